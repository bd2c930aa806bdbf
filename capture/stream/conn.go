package stream

import "github.com/netcap-guard/netcap-guard/record"

// class is a connection's worth: the lowest is evicted first.
type class uint8

const (
	// unproven connections showed no full handshake, or are closed.
	unproven class = iota
	// idle ones are confirmed, and carry nothing that a rule asks for.
	idle
	// useful ones are confirmed, and are being read.
	useful

	numClasses
)

// entry is what a connection takes from its first segment on, in one line of
// the cache: its name, its place among the others, and the handshake. Number 0
// is none.
type entry struct {
	hash uint64 // its name, see keys
	seen int64  // packet time, Unix nanoseconds
	all  link   // place in Table.lists; of one that is not in use, after is the next such
	// pairAt is the number of its pair, 0 while nothing but SYNs were seen.
	pairAt uint32

	again uint32 // see twice
	isn   [2]uint32
	gates gates
	// offers are what both sides said of their windows in the handshake.
	offers offers
	fast   uint16 // bytes that came with the SYN: a server may take them (RFC 7413)

	class class
	marks marks

	confirmed bool
	closed    bool
	// hello is how far a handshake has come; client is who began it.
	hello  progress
	client uint8
	knows  bool  // client is known
	fins   uint8 // directions that ended, one bit each
}

// marks are what else is so of a connection.
type marks uint8

const (
	// held: it stands in Table.held[class].
	held marks = 1 << iota
	// twice: again is the number of another SYN of the client's.
	twice
)

// pair is what is known of both directions of a connection. Most connections of
// a scan or a flood never have one.
type pair struct {
	half  [2]half
	http  pending
	keeps link // place in Table.held, where bytes are kept
	// beside is the number of an answer to the SYN that came in where the SYN
	// had come in; refused: there is one.
	beside  uint32
	refused bool
}

// conn is one connection; its pair may be nil.
type conn struct {
	*entry
	*pair
}

// gates are the interfaces by which a client's SYN came in and went out (see
// record.Segment).
type gates struct{ in, out uint32 }

type progress uint8

const (
	noHello progress = iota
	sentSYN
	sentSYNACK
)

// link is a place in a doubly linked list of connections.
type link struct{ before, after uint32 }

// list is a doubly linked list; its head is the longest silent.
type list struct{ head, tail uint32 }

const slabBits = 10

// slab is memory for some entries or pairs: it is allocated as needed, and what
// was allocated does not move.
type slab[T any] []*[1 << slabBits]T

// at is number i, counted from 1.
func (s slab[T]) at(i uint32) *T {
	i--
	return &s[i>>slabBits][i&(1<<slabBits-1)]
}

// grow makes number i, the one after those there are.
func (s *slab[T]) grow(i uint32) {
	if i--; i&(1<<slabBits-1) == 0 {
		*s = append(*s, new([1 << slabBits]T))
	}
}

func (t *Table) at(i uint32) *entry { return t.entries.at(i) }

// conn is connection i with its pair; of one of which only SYNs were seen it
// has none, if seg is nothing else.
func (t *Table) conn(i uint32, seg *record.Segment) conn {
	e := t.at(i)
	if e.pairAt == 0 && bare(seg) {
		return conn{e, nil}
	}
	if e.pairAt == 0 {
		t.paired(e)
	}
	return conn{e, t.pairs.at(e.pairAt)}
}

// holder is connection i, of which bytes are kept.
func (t *Table) holder(i uint32) conn {
	e := t.at(i)
	return conn{e, t.pairs.at(e.pairAt)}
}

// open makes a connection, evicting the one that is worth least where there is
// no room.
func (t *Table) open(hash uint64, now int64, seg *record.Segment) (uint32, conn) {
	if t.free == 0 && int(t.made) >= t.cfg.Connections {
		t.evict()
	} else {
		t.stats.open.Add(1)
	}
	i := t.free
	if i != 0 {
		t.free = t.at(i).all.after
	} else {
		t.made++
		i = t.made
		t.entries.grow(i)
	}
	*t.at(i) = entry{hash: hash, seen: now}
	t.index.add(hash, i)
	t.push(&t.lists[unproven], i, placeAll)
	return i, t.conn(i, seg)
}

func (t *Table) evict() {
	for cl := range t.lists {
		if i := t.lists[cl].head; i != 0 {
			t.stats.evicted[cl].Add(1)
			t.drop(i)
			return
		}
	}
}

// close forgets a connection.
func (t *Table) close(i uint32) {
	t.drop(i)
	t.stats.open.Add(^uint64(0))
}

// drop is close, but for the count.
func (t *Table) drop(i uint32) {
	e := t.at(i)
	if e.marks&held != 0 {
		c := t.holder(i)
		t.dropState(c, 0)
		t.dropState(c, 1)
		t.remove(&t.held[e.class], i, placeKeeps)
	}
	if e.pairAt != 0 {
		t.pairs.at(e.pairAt).keeps = link{after: t.freePair}
		t.freePair = e.pairAt
	}
	t.remove(&t.lists[e.class], i, placeAll)
	if e.pairAt != 0 {
		t.recent.forget(e.hash)
	}
	t.index.remove(e.hash, i)
	*e = entry{all: link{after: t.free}}
	t.free = i
}

// paired gives a connection of which more than SYNs is seen its pair.
func (t *Table) paired(e *entry) {
	i := t.freePair
	if i != 0 {
		t.freePair = t.pairs.at(i).keeps.after
	} else {
		t.madePairs++
		i = t.madePairs
		t.pairs.grow(i)
	}
	e.pairAt = i
	p := t.pairs.at(i)
	*p = pair{}
	if e.knows {
		p.half[e.client].begin(e.isn[e.client] + 1)
	}
}

// touchEvery spares a busy connection the way to the end of its list.
const touchEvery = 1e9

func (t *Table) touch(i uint32, e *entry, now int64) {
	if now-e.seen < touchEvery && now >= e.seen && e.seen != 0 {
		return
	}
	e.seen = now
	t.remove(&t.lists[e.class], i, placeAll)
	t.push(&t.lists[e.class], i, placeAll)
	if e.marks&held != 0 {
		t.remove(&t.held[e.class], i, placeKeeps)
		t.push(&t.held[e.class], i, placeKeeps)
	}
}

// settle puts the connection where it belongs by what is known of it now.
func (t *Table) settle(i uint32, c conn) {
	want, keeps := t.worth(c), marks(0)
	if c.half[0].kept != nil || c.half[1].kept != nil {
		keeps = held
	}
	if want == c.class && keeps == c.marks&held {
		return
	}
	if c.marks&held != 0 {
		t.remove(&t.held[c.class], i, placeKeeps)
	}
	if want != c.class {
		t.remove(&t.lists[c.class], i, placeAll)
		t.push(&t.lists[want], i, placeAll)
	}
	c.class, c.marks = want, c.marks&^held|keeps
	if keeps != 0 {
		t.push(&t.held[want], i, placeKeeps)
	}
}

func (t *Table) worth(c conn) class {
	switch {
	case !c.confirmed || c.closed:
		return unproven
	case c.half[0].mode == passOver && c.half[1].mode == passOver || !t.want.any():
		return idle
	}
	return useful
}

// deaf reports whether no segment of the connection needs a look until one has
// a flag that opens or ends it.
func (t *Table) deaf(c conn) bool {
	if c.hello != noHello {
		return false
	}
	return c.half[0].mode == passOver && c.half[1].mode == passOver || c.confirmed && !t.want.any()
}

// place says which of a connection's two links a list uses.
type place bool

const (
	placeAll   place = false
	placeKeeps place = true
)

func (t *Table) link(i uint32, p place) *link {
	if p == placeKeeps {
		return &t.holder(i).keeps
	}
	return &t.at(i).all
}

func (t *Table) push(l *list, i uint32, p place) {
	*t.link(i, p) = link{before: l.tail}
	if l.tail != 0 {
		t.link(l.tail, p).after = i
	} else {
		l.head = i
	}
	l.tail = i
}

func (t *Table) remove(l *list, i uint32, p place) {
	at := *t.link(i, p)
	if at.before != 0 {
		t.link(at.before, p).after = at.after
	} else {
		l.head = at.after
	}
	if at.after != 0 {
		t.link(at.after, p).before = at.before
	} else {
		l.tail = at.before
	}
	*t.link(i, p) = link{}
}
