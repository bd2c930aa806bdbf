package fragment

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
)

// compartment holds the datagrams of some sources.
type compartment struct {
	slots [slots]slot
	bytes int // the slots' buffers together
}

// slot is a datagram under construction. A free slot keeps its buffer.
type slot struct {
	used   bool
	key    Key
	begun  int64  // packet time of the first fragment
	order  uint64 // which datagram of the table's this is: many have the same time
	buf    []byte
	filled int // bytes received
	total  int // the payload's length, 0 until the last fragment came
	high   int // where the fragment that reaches farthest ends
	next   uint8
	// have has a bit for each unit of eight bytes that was received.
	have [(maxLength/unit + 64) / 64]uint64
}

// room is a source's compartment.
func (t *Table) room(src netip.Addr) *compartment {
	b := src.As16()
	significant := b[:8] // one host has a whole /64
	if src.Is4() {
		significant = b[12:]
	}
	i := maphash.Bytes(t.seed, significant) % compartments
	if t.rooms[i] == nil {
		t.rooms[i] = &compartment{}
	}
	return t.rooms[i]
}

// find returns the slot of a datagram, nil without one, and frees those whose
// time is over.
func (t *Table) find(room *compartment, k *Key) *slot {
	var found *slot
	for i := range room.slots {
		s := &room.slots[i]
		if !s.used {
			continue
		}
		if t.now-s.begun > s.lifetime() {
			t.expired.Add(1)
			room.give(s)
			continue
		}
		if s.key == *k {
			found = s
		}
	}
	return found
}

// begin takes a free slot for a new datagram, or that of the oldest.
func (t *Table) begin(room *compartment, f *Fragment) *slot {
	s := room.oldest(nil)
	if free := room.free(); free != nil {
		s = free
	} else {
		t.evicted.Add(1)
		room.give(s)
	}
	t.datagrams++
	s.used, s.key, s.begun, s.order = true, f.Key, t.now, t.datagrams
	return s
}

// grow gives a slot a buffer of at least n bytes.
func (t *Table) grow(room *compartment, s *slot, n int) {
	if n <= cap(s.buf) {
		s.buf = s.buf[:cap(s.buf)]
		return
	}
	size := max(leastBuffer, 1<<bits.Len(uint(n-1)))
	old := s.buf
	room.bytes -= cap(old)
	s.buf = t.buffer(room, s, size)
	room.bytes += cap(s.buf)
	copy(s.buf, old)
}

// buffer finds size bytes within the compartment's budget: those handed out
// last, else those of a free slot, else new ones, for which the oldest
// datagrams go.
func (t *Table) buffer(room *compartment, s *slot, size int) []byte {
	if cap(t.spare) >= size && room.bytes+cap(t.spare) <= budget {
		b := t.spare[:cap(t.spare)]
		t.spare = nil
		return b
	}
	for {
		for i := range room.slots {
			other := &room.slots[i]
			if other.used || other == s || other.buf == nil {
				continue
			}
			b := other.buf[:cap(other.buf)]
			if cap(b) < size && room.bytes+size <= budget {
				continue // there is room for both
			}
			other.buf = nil
			room.bytes -= cap(b)
			if cap(b) >= size {
				return b
			}
		}
		if room.bytes+size <= budget {
			return make([]byte, size)
		}
		t.evicted.Add(1)
		room.give(room.oldest(s))
	}
}

// give frees a slot. Its buffer stays with it.
func (c *compartment) give(s *slot) {
	clear(s.have[:(s.high/unit+64)/64]) // no more than was set: a flood pays for what it sends
	s.used, s.key, s.begun = false, Key{}, 0
	s.filled, s.total, s.high, s.next = 0, 0, 0, 0
}

// free returns a slot that is not used, nil if all are.
func (c *compartment) free() *slot {
	for i := range c.slots {
		if !c.slots[i].used {
			return &c.slots[i]
		}
	}
	return nil
}

// oldest returns the used slot, but not the given one, that began first.
func (c *compartment) oldest(but *slot) *slot {
	var oldest *slot
	for i := range c.slots {
		s := &c.slots[i]
		if s.used && s != but && (oldest == nil || s.order < oldest.order) {
			oldest = s
		}
	}
	return oldest
}

func (s *slot) lifetime() int64 {
	if s.key.Src.Is4() {
		return lifetime4
	}
	return lifetime6
}

// place enters a fragment of n bytes that ends at end; fresh is false for one
// that has been there before. Nothing is entered with an error.
func (s *slot) place(f *Fragment, n, end int) (fresh bool, err error) {
	if !f.More && s.total != 0 && end != s.total || s.total != 0 && end > s.total || !f.More && s.high > end {
		return false, ErrLength
	}
	first, last := f.Offset/unit, (end-1)/unit
	set := s.count(first, last)
	switch set {
	case 0:
	case last - first + 1:
		return false, nil
	default:
		return false, ErrOverlap
	}
	for i := first; i <= last; i++ {
		s.have[i/64] |= 1 << (i % 64)
	}
	s.filled += n
	s.high = max(s.high, end)
	if !f.More {
		s.total = end
	}
	return true, nil
}

// count is how many of the units from first to last were received.
func (s *slot) count(first, last int) int {
	n := 0
	for i := first; i <= last; i++ {
		n += int(s.have[i/64] >> (i % 64) & 1)
	}
	return n
}

func (s *slot) complete() bool { return s.total != 0 && s.filled == s.total }
