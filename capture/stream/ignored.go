package stream

const (
	ignoredBits = 14
	// longWay is how often a connection is looked up all the same: one that is
	// busy must not look silent, or it would be evicted first.
	longWay = 64
)

// ignored is a small set of connections of which nothing more is read and
// nothing has to be known: most segments of most traffic belong to one. Where
// two fall on one place the later stays; the other is looked up as any other.
// Each is its keyed hash, whose lowest bit says whether it is confirmed. The
// zero value takes nothing in.
type ignored struct {
	slots *[1 << ignoredBits]uint64
	hits  uint64
}

// has reports whether the connection is in the set, and is confirmed.
func (g *ignored) has(hash uint64) (is, confirmed bool) {
	if g.slots == nil {
		return false, false
	}
	found := g.slots[hash>>(64-ignoredBits)]
	if (found^hash)>>1 != 0 || found == 0 {
		return false, false
	}
	g.hits++
	return g.hits%longWay != 0, found&1 != 0
}

// note puts a connection into the set, or takes it out.
func (g *ignored) note(hash uint64, in, confirmed bool) {
	if g.slots == nil {
		return
	}
	slot := &g.slots[hash>>(64-ignoredBits)]
	switch {
	case in && confirmed:
		*slot = hash | 1
	case in:
		*slot = hash &^ 1
	case (*slot^hash)>>1 == 0:
		*slot = 0
	}
}
