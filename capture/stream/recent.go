package stream

const (
	// recentBits makes 2,048 sets of one line of the cache each.
	recentBits = 11
	recentWays = 4
	// longWay is how often a connection that is ignored is looked up all the
	// same: one that is busy must not look silent, or it would be evicted first.
	longWay = 64
)

// recent are connections whose segments came lately, apart from those of which
// nothing but SYNs was seen. It spares the way through the index, and of those
// of which nothing more is read and nothing has to be known also all else: most
// segments of most traffic belong to one. Where a set is full one of it goes; it
// is looked up as any other. The zero value takes nothing in.
type recent struct {
	sets *[1 << recentBits][recentWays]recently
	turn uint
	hits uint64 // segments of ignored connections
}

// recently is one of them: its hash, whose lowest bits say what is to be done,
// its number, which is not 0, and that of its pair.
type recently struct {
	name           uint64
	number, pairAt uint32
}

const (
	isConfirmed = 1 << iota
	isIgnored
	verdict = isConfirmed | isIgnored
)

// find returns the place of a connection, nil where it has none.
func (r *recent) find(hash uint64) *recently {
	if r.sets == nil {
		return nil
	}
	set := &r.sets[hash>>(64-recentBits)]
	for i := range set {
		if p := &set[i]; (p.name^hash)&^verdict == 0 && p.number != 0 {
			return p
		}
	}
	return nil
}

// note puts connection i, which has a pair, into its set.
func (r *recent) note(i uint32, e *entry, ignored bool) {
	if r.sets == nil {
		return
	}
	set := &r.sets[e.hash>>(64-recentBits)]
	p := &set[r.turn%recentWays]
	for w := range set {
		if set[w].number == i || set[w].number == 0 && p.number != i {
			p = &set[w]
		}
	}
	if p.number != 0 && p.number != i {
		r.turn++
	}
	*p = recently{e.hash, i, e.pairAt}
	p.judge(e, ignored)
}

// judge writes down what is to be done with the connection's segments.
func (p *recently) judge(e *entry, ignored bool) {
	name := e.hash &^ verdict
	if ignored {
		name |= isIgnored
	}
	if e.confirmed {
		name |= isConfirmed
	}
	if p.name != name {
		p.name = name
	}
}

// forget takes a connection out of its set.
func (r *recent) forget(hash uint64) {
	if p := r.find(hash); p != nil {
		*p = recently{}
	}
}
