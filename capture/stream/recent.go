package stream

const (
	recentBits = 14
	// longWay is how often a connection that is ignored is looked up all the
	// same: one that is busy must not look silent, or it would be evicted first.
	longWay = 64
)

// recent is a small set of the connections whose segments came lately, apart
// from those of which nothing but SYNs was seen. It spares the way through the
// index, and of those of which nothing more is read and nothing has to be known
// also all else: most segments of most traffic belong to one. Where two fall on
// one place the later stays; the other is looked up as any other. The zero value
// takes nothing in.
type recent struct {
	places *[1 << recentBits]recently
	hits   uint64 // segments of ignored connections
}

// recently is one of them: its hash, whose lowest bits say what is to be done,
// and its number.
type recently struct {
	name   uint64
	number uint32
}

const (
	isConfirmed = 1 << iota
	isIgnored
	verdict = isConfirmed | isIgnored
)

// at is the place of a hash; nil where nothing is taken in.
func (r *recent) at(hash uint64) *recently {
	if r.places == nil {
		return nil
	}
	return &r.places[hash>>(64-recentBits)]
}

// is reports whether the connection stands there.
func (p *recently) is(hash uint64) bool {
	return p != nil && (p.name^hash)&^verdict == 0 && p.number != 0
}

// note puts connection i into the set.
func (r *recent) note(hash uint64, i uint32, ignored, confirmed bool) {
	p := r.at(hash)
	if p == nil {
		return
	}
	name := hash &^ verdict
	if ignored {
		name |= isIgnored
	}
	if confirmed {
		name |= isConfirmed
	}
	if p.name != name || p.number != i {
		*p = recently{name, i}
	}
}

// forget takes a connection out of the set.
func (r *recent) forget(hash uint64) {
	if p := r.at(hash); p.is(hash) {
		*p = recently{}
	}
}
