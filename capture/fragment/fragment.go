// Package fragment puts IP datagrams together again that were sent in
// fragments (RFC 791, RFC 8200). It knows bytes and addresses, and neither
// records nor packets: package decode feeds it.
//
// Everything in it is bounded, because whoever sends fragments decides how
// much is kept of them. Memory: each source address (of IPv6: each /64) falls
// into one of 64 compartments by a random hash, and each compartment holds 16
// datagrams and 128 KiB. Who floods us with heads that never get their tail
// pushes the oldest datagrams out of one compartment, and those of sources in
// the other 63 stay. Time: as in Linux, a datagram has 30 seconds (IPv6: 60)
// from its first fragment, in packet time.
//
// Fragments that overlap give their datagram up, whole, in both families: so
// do Linux since 4.19 and, for IPv6, RFC 5722. There is then no question which
// of the two contents counts, and no way to show us another than the target
// sees: it sees none. A fragment whose bytes are all there already is a repeat
// of the network's and is ignored, as Linux does since 5.0.
package fragment

import (
	"errors"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
)

const (
	compartments = 64
	slots        = 16
	// budget bounds the memory of one compartment's datagrams. The longest
	// datagram fits twice.
	budget = 128 << 10
	// maxLength is the longest datagram that IP can say.
	maxLength = 65535
	// unit is what fragments are counted in.
	unit = 8
	// leastBuffer is what a datagram gets to begin with: most fragments come
	// two to a datagram of little more than a frame.
	leastBuffer = 4 << 10

	second    = int64(1e9)
	lifetime4 = 30 * second // Linux: net.ipv4.ipfrag_time
	lifetime6 = 60 * second // RFC 8200, 4.5; Linux: net.ipv6.ip6frag_time
)

// Errors of Add.
var (
	// ErrOverlap: the datagram is given up.
	ErrOverlap = errors.New("fragments overlap")
	// ErrLength: a datagram longer than there can be, or fragments that differ
	// about where it ends; the latter is given up.
	ErrLength = errors.New("fragments of a length that cannot be")
	// ErrUnit: a fragment in the middle whose length is no multiple of eight,
	// or an empty one. An empty one gives its datagram up, as in Linux; for any
	// other the datagram waits for a better one.
	ErrUnit = errors.New("a fragment of a length that cannot be")
)

// Key is what the fragments of one datagram have in common. Proto is the
// protocol number of IPv4, 0 for IPv6.
type Key struct {
	Src, Dst netip.Addr
	ID       uint32
	Proto    uint8
}

// Fragment is one of them. Data is copied where it is kept.
type Fragment struct {
	Key
	Offset int  // of Data in the datagram's payload, a multiple of 8
	More   bool // this is not the last
	// Next is the protocol of the payload; that of the fragment with Offset 0
	// counts.
	Next uint8
	Data []byte
	Time int64 // packet time, Unix nanoseconds
}

// Stats are a table's counters so far.
type Stats struct {
	Reassembled uint64 // datagrams that were put together
	Refused     uint64 // fragments that overlapped or cannot be
	Evicted     uint64 // datagrams that had to give way to newer ones
	Expired     uint64 // datagrams whose time was over
}

// Table holds the datagrams under construction. It belongs to one goroutine;
// Stats may be called from any.
type Table struct {
	seed  maphash.Seed
	rooms [compartments]*compartment
	now   int64
	// datagrams counts those begun.
	datagrams uint64
	// handed are the datagrams given out since Begin; spare is a buffer of an
	// earlier one, for the next.
	handed []whole
	spare  []byte

	reassembled, refused, evicted, expired atomic.Uint64
}

// whole is a datagram's payload with its protocol.
type whole struct {
	key  Key
	data []byte
	next uint8
}

// New returns an empty table; it takes memory as fragments come.
func New() *Table { return &Table{seed: maphash.MakeSeed()} }

// Begin says that the next packet begins: the payloads that Add returned are
// no longer used.
func (t *Table) Begin() {
	for i := range t.handed {
		if cap(t.handed[i].data) > cap(t.spare) {
			t.spare = t.handed[i].data
		}
		t.handed[i] = whole{}
	}
	t.handed = t.handed[:0]
}

// Add takes one fragment. Where it is the last one missing, Add returns the
// datagram's payload, good until Begin, and its protocol; nil otherwise.
func (t *Table) Add(f *Fragment) (payload []byte, next uint8, err error) {
	t.now = max(t.now, f.Time)
	data, end, err := check(f)
	if err != nil {
		t.refused.Add(1)
		if end == f.Offset {
			t.giveUp(&f.Key)
		}
		return nil, 0, err
	}
	room := t.room(f.Src)
	s := t.find(room, &f.Key)
	if s == nil {
		s = t.begin(room, f)
	}
	fresh, err := s.place(f, len(data), end)
	if err != nil {
		t.refused.Add(1)
		room.give(s)
		return nil, 0, err
	}
	if !fresh {
		return nil, 0, nil
	}
	t.grow(room, s, end)
	copy(s.buf[f.Offset:end], data)
	if f.Offset == 0 {
		s.next = f.Next
	}
	if !s.complete() {
		return nil, 0, nil
	}
	return t.hand(room, s)
}

// giveUp forgets a datagram, if it is being put together.
func (t *Table) giveUp(k *Key) {
	room := t.room(k.Src)
	if s := t.find(room, k); s != nil {
		room.give(s)
	}
}

// check returns a fragment's data as far as it counts, and where it ends: of an
// empty one at its offset, of others that do not count at -1.
func check(f *Fragment) (data []byte, end int, err error) {
	data = f.Data
	if f.More && len(data)%unit != 0 {
		if f.Src.Is6() { // RFC 8200, 4.5: such a fragment is dropped
			return nil, -1, ErrUnit
		}
		data = data[:len(data)&^(unit-1)] // as Linux does
	}
	end = f.Offset + len(data)
	switch {
	case f.Offset < 0 || f.Offset%unit != 0:
		return nil, -1, ErrUnit
	case end > maxLength:
		return nil, -1, ErrLength
	case len(data) == 0:
		return nil, end, ErrUnit
	}
	return data, end, nil
}

// hand gives a complete datagram out and its slot free.
func (t *Table) hand(room *compartment, s *slot) ([]byte, uint8, error) {
	w := whole{key: s.key, data: s.buf[:s.total], next: s.next}
	room.bytes -= cap(s.buf)
	s.buf = nil
	room.give(s)
	t.handed = append(t.handed, w)
	t.reassembled.Add(1)
	return w.data, w.next, nil
}

// Again returns what Add has returned for a key since Begin, nil for nothing:
// for whoever decodes the same packet a second time.
func (t *Table) Again(k *Key) (payload []byte, next uint8) {
	for i := range t.handed {
		if t.handed[i].key == *k {
			return t.handed[i].data, t.handed[i].next
		}
	}
	return nil, 0
}

// Stats reads the counters.
func (t *Table) Stats() Stats {
	return Stats{
		Reassembled: t.reassembled.Load(), Refused: t.refused.Load(),
		Evicted: t.evicted.Load(), Expired: t.expired.Load(),
	}
}
