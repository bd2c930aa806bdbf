package evidence

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/netcap-guard/netcap-guard/capture"
)

const (
	// maxKept is how many bytes of a packet are kept.
	maxKept = 2048
	// A reader of the tape holds one segment at a time, which is a small part
	// of the tape.
	segmentBytes   = 64 << 10
	segmentPackets = 512
	minSegments    = 4
)

// Tape holds the packets that one worker saw last, and, longer, those that
// counted for a rule: a slow scan beside much other traffic is to be found on
// it, too. The worker's goroutine owns it; readers come now and then. Copying
// neither allocates nor waits: what comes while its segment is being read is not
// copied, and counted.
type Tape struct {
	recent, matched reel
	order           *atomic.Uint64 // of what counts, in all tapes
	number          uint64         // of the packets
	last            uint64         // number of the packet that was copied to matched last
	missed          atomic.Uint64
}

// reel is a ring of segments.
type reel struct {
	segments []segment
	current  atomic.Int32 // the one being filled
}

type segment struct {
	// mu guards all of it against who reads; the owner reads without.
	mu      sync.Mutex
	n, used int
	entries [segmentPackets]entry
	data    [segmentBytes]byte
}

// entry describes one packet.
type entry struct {
	src, dst         address
	time             int64
	number           uint64
	order            uint64 // 0 = it did not count
	at, size, length int32
	link             capture.LinkType
	iface            int32
}

// address is an IPv6 address, or an IPv4 address mapped to one, without
// pointers: the collector has nothing to look for in a tape.
type address struct{ high, low uint64 }

func addressOf(a netip.Addr) address {
	b := a.As16()
	return address{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func newTape(memory int, order *atomic.Uint64) *Tape {
	const size = segmentBytes + segmentPackets*80
	half := max(memory/2/size, minSegments)
	t := &Tape{order: order}
	t.recent.segments, t.matched.segments = make([]segment, half), make([]segment, half)
	return t
}

// Packet copies a packet from src to dst; what has no addresses is left out.
func (t *Tape) Packet(p *capture.Packet, src, dst netip.Addr) {
	t.number++
	if src.IsValid() {
		t.copy(&t.recent, p, src, dst, 0)
	}
}

// Matched keeps the last packet for longer, because it counted for a rule, as
// one from src to dst.
func (t *Tape) Matched(p *capture.Packet, src, dst netip.Addr) {
	if t.last == t.number {
		return // for another rule, too
	}
	t.last = t.number
	if src.IsValid() {
		t.copy(&t.matched, p, src, dst, t.order.Add(1))
	}
}

func (t *Tape) copy(r *reel, p *capture.Packet, src, dst netip.Addr, order uint64) {
	size := min(len(p.Data), maxKept)
	i := int(r.current.Load())
	s := &r.segments[i]
	full := s.n == segmentPackets || s.used+size > segmentBytes
	if full {
		if i++; i == len(r.segments) {
			i = 0
		}
		s = &r.segments[i]
	}
	if !s.mu.TryLock() {
		t.missed.Store(t.missed.Load() + 1)
		return
	}
	if full {
		s.n, s.used = 0, 0
		r.current.Store(int32(i))
	}
	s.entries[s.n] = entry{
		src: addressOf(src), dst: addressOf(dst), time: p.Time, number: t.number, order: order,
		at: int32(s.used), size: int32(size), length: int32(p.Length), link: p.Link, iface: int32(p.Iface),
	}
	copy(s.data[s.used:], p.Data[:size])
	s.n++
	s.used += size
	s.mu.Unlock()
}

// found is a packet that was taken from a tape.
type found struct {
	capture.Packet // its Number is the tape's
	tape           int
	crossed        bool // it led to the block
}

// lastOf returns the last packets of a case, oldest first, at most so many.
func lastOf(tapes []*Tape, c Case, most int) []found {
	var all []found
	m := matcherOf(c)
	for _, t := range tapes {
		m.crossing = max(m.crossing, t.matched.orderOf(m))
	}
	for i, t := range tapes {
		for _, r := range []*reel{&t.recent, &t.matched} {
			all = r.collect(all, m, i, most)
		}
	}
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.tape, b.tape), cmp.Compare(a.Number, b.Number), first(a.crossed, b.crossed))
	})
	all = slices.CompactFunc(all, func(a, b found) bool { return a.tape == b.tape && a.Number == b.Number })
	if m.crossing == 0 && len(all) > 0 {
		all[len(all)-1].crossed = true // as far as is known
	}
	return all[max(len(all)-most, 0):]
}

// first orders what is true before what is not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// orderOf is the place among all that counted of the packet that led to the
// block; 0 = it is not on this reel.
func (r *reel) orderOf(m matcher) (order uint64) {
	for i := range r.segments {
		s := &r.segments[i]
		s.mu.Lock()
		for e := range s.entries[:s.n] {
			if e := &s.entries[e]; e.time == m.until && m.matches(e) {
				order = max(order, e.order)
			}
		}
		s.mu.Unlock()
	}
	return order
}

// collect appends a reel's last packets that match, in any order, at most so
// many.
func (r *reel) collect(all []found, m matcher, tape, most int) []found {
	enough := len(all) + most
	first := int(r.current.Load())
	for back := range r.segments {
		s := &r.segments[(first-back+len(r.segments))%len(r.segments)]
		s.mu.Lock()
		for i := s.n - 1; i >= 0 && len(all) < enough; i-- {
			if e := &s.entries[i]; m.matches(e) {
				all = append(all, s.take(e, tape, e.order != 0 && e.order == m.crossing))
			}
		}
		s.mu.Unlock()
		if len(all) == enough {
			break
		}
	}
	return all
}

func (s *segment) take(e *entry, tape int, crossed bool) found {
	return found{tape: tape, crossed: crossed, Packet: capture.Packet{
		Data: slices.Clone(s.data[e.at : e.at+e.size]), Time: e.time, Length: int(e.length),
		Link: e.link, Number: e.number, Iface: int(e.iface),
	}}
}

// matcher says which entries belong to a case.
type matcher struct {
	base, mask  address
	destination bool
	// until is the time of the packet that led to the block. Another worker may
	// have been ahead of it: what counted before it, in the order that was
	// counted in, belongs to the case whatever its time.
	until    int64
	crossing uint64 // that packet's place in the order
}

func matcherOf(c Case) matcher {
	bits := c.Prefix.Bits()
	if c.Prefix.Addr().Is4() {
		bits += 128 - 32
	}
	ones := func(n int) uint64 { return ^(^uint64(0) >> min(max(n, 0), 64)) } // a shift by 64 gives 0
	return matcher{
		base: addressOf(c.Prefix.Masked().Addr()), mask: address{ones(bits), ones(bits - 64)},
		destination: c.Destination, until: c.At.UnixNano(),
	}
}

func (m *matcher) matches(e *entry) bool {
	a := e.src
	if m.destination {
		a = e.dst
	}
	return a.high&m.mask.high == m.base.high && a.low&m.mask.low == m.base.low &&
		(e.time <= m.until || e.order != 0 && e.order <= m.crossing)
}
