package stream

import (
	"encoding/binary"
	"math/bits"

	"github.com/netcap-guard/netcap-guard/record"
)

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

// key names a connection, the same for both of its directions.
type key struct {
	lo, hi         [16]byte
	loPort, hiPort uint16
}

// keyOf returns the key of a packet's connection and the packet's direction: 0
// from lo to hi.
func keyOf(h *record.Header) (key, int) {
	src, dst := h.Src.As16(), h.Dst.As16()
	if less(&src, &dst, h.SrcPort, h.DstPort) {
		return key{src, dst, h.SrcPort, h.DstPort}, 0
	}
	return key{dst, src, h.DstPort, h.SrcPort}, 1
}

func less(a, b *[16]byte, aPort, bPort uint16) bool {
	for i := 0; i < 16; i += 8 {
		x, y := u64(a[i:i+8]), u64(b[i:i+8])
		if x != y {
			return x < y
		}
	}
	return aPort < bPort
}

// conn is one connection. Number 0 is none.
type conn struct {
	key   key
	chain uint32 // the next of the same hash, or of the free ones
	all   link   // place in Table.lists
	keeps link   // place in Table.held, where bytes are kept
	class class
	held  bool // it stands in Table.held[class]

	confirmed bool
	closed    bool
	// hello is how far a handshake has come; client is who began it.
	hello  progress
	client uint8
	knows  bool   // client is known
	fins   uint8  // directions that ended, one bit each
	twice  bool   // again is the number of another SYN of the client's
	fast   uint16 // bytes that came with the SYN: a server may take them (RFC 7413)
	isn    [2]uint32
	again  uint32
	gates  gates
	// offers are what both sides said of their windows in the handshake.
	offers offers

	http pending
	seen int64 // packet time, Unix nanoseconds
	half [2]half
}

// gates are the interfaces by which a client's SYN came in and went out (see
// record.Segment), and the number of an answer to it that came in beside it.
type gates struct {
	in, out uint32
	beside  uint32
	refused bool // beside is known
}

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

func (t *Table) at(i uint32) *conn {
	i--
	return &t.slabs[i>>slabBits][i&(1<<slabBits-1)]
}

// hash is keyed: who wants collisions would have to guess the seed. Two
// connections have the same about once in 2^64 pairs: the set of ignored ones
// takes it for their name.
func (t *Table) hash(k *key) uint64 {
	a, b := bits.Mul64(u64(k.lo[:8])^t.seed, u64(k.lo[8:])^0x9e3779b97f4a7c15)
	c, d := bits.Mul64(u64(k.hi[:8])^a, u64(k.hi[8:])^b^0xd6e8feb86659fd93)
	e, f := bits.Mul64(c^uint64(k.loPort)<<16^uint64(k.hiPort)^t.seed, d^0xa0761d6478bd642f)
	return e ^ f
}

// chainOf is the chain of a hash.
func (t *Table) chainOf(hash uint64) *uint32 { return &t.index[hash&uint64(len(t.index)-1)] }

func u64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

func (t *Table) find(hash uint64, k *key) uint32 {
	for i := *t.chainOf(hash); i != 0; {
		c := t.at(i)
		if c.key == *k {
			return i
		}
		i = c.chain
	}
	return 0
}

// open makes a connection, evicting the one that is worth least where there is
// no room.
func (t *Table) open(hash uint64, k *key) uint32 {
	if t.free == 0 && int(t.made) >= t.cfg.Connections {
		for cl := range t.lists {
			if i := t.lists[cl].head; i != 0 {
				t.stats.evicted[cl].Add(1)
				t.close(i)
				break
			}
		}
	}
	i := t.free
	if i != 0 {
		t.free = t.at(i).chain
	} else {
		if t.made&(1<<slabBits-1) == 0 {
			t.slabs = append(t.slabs, make([]conn, 1<<slabBits))
		}
		t.made++
		i = t.made
	}
	c := t.at(i)
	chain := t.chainOf(hash)
	*c = conn{key: *k, chain: *chain}
	*chain = i
	t.push(&t.lists[unproven], i, placeAll)
	t.stats.open.Add(1)
	return i
}

// close forgets a connection.
func (t *Table) close(i uint32) {
	c := t.at(i)
	t.dropState(c, 0)
	t.dropState(c, 1)
	if c.held {
		t.remove(&t.held[c.class], i, placeKeeps)
	}
	t.remove(&t.lists[c.class], i, placeAll)
	hash := t.hash(&c.key)
	t.ignored.note(hash, false, false)
	at := t.chainOf(hash)
	for *at != i {
		at = &t.at(*at).chain
	}
	*at = c.chain
	*c = conn{chain: t.free}
	t.free = i
	t.stats.open.Add(^uint64(0))
}

// touchEvery spares a busy connection the way to the end of its list.
const touchEvery = 1e9

func (t *Table) touch(i uint32, c *conn, now int64) {
	if now-c.seen < touchEvery && now >= c.seen && c.seen != 0 {
		return
	}
	c.seen = now
	t.remove(&t.lists[c.class], i, placeAll)
	t.push(&t.lists[c.class], i, placeAll)
	if c.held {
		t.remove(&t.held[c.class], i, placeKeeps)
		t.push(&t.held[c.class], i, placeKeeps)
	}
}

// settle puts the connection where it belongs by what is known of it now.
func (t *Table) settle(i uint32, c *conn) {
	want := unproven
	switch {
	case !c.confirmed || c.closed:
	case c.half[0].mode == passOver && c.half[1].mode == passOver || !t.want.any():
		want = idle
	default:
		want = useful
	}
	keeps := c.half[0].kept != nil || c.half[1].kept != nil
	if want == c.class && keeps == c.held {
		return
	}
	if c.held {
		t.remove(&t.held[c.class], i, placeKeeps)
	}
	if want != c.class {
		t.remove(&t.lists[c.class], i, placeAll)
		t.push(&t.lists[want], i, placeAll)
	}
	c.class, c.held = want, keeps
	if keeps {
		t.push(&t.held[want], i, placeKeeps)
	}
}

// deaf reports whether no segment of the connection needs a look until one has
// a flag that opens or ends it.
func (t *Table) deaf(c *conn) bool {
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
		return &t.at(i).keeps
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
