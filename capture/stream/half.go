package stream

import "github.com/netcap-guard/netcap-guard/record"

// half is one direction of a connection. Its bytes are numbered from 0, the
// first one behind the SYN or the first one seen.
type half struct {
	base  uint32 // sequence number of byte 0
	begun bool   // base is known
	acks  bool   // acked is known
	mode  mode
	step  step
	tries uint8  // segments looked at in vain
	spoke bool   // a protocol was recognised
	bound bool   // edge and scale are known
	scale uint8  // by which the receiver's windows are to be shifted
	acked uint32 // the newest byte that the receiver asked for
	edge  uint32 // the first byte that he never had room for
	// claim is what he says he has though it was not seen, up to where he had
	// room then; claims: there is one.
	claim, room uint32
	claims      bool
	next        uint64 // the byte to come
	high        uint64 // the end of what was seen
	rest        uint64 // bytes of the message that are passed over
	kept        *state // nil while nothing is kept
}

// begin starts a direction whose first byte has the sequence number seq.
func (h *half) begin(seq uint32) { *h = half{base: seq, begun: true} }

// state is what is kept of a direction between two segments.
type state struct {
	buf []byte // the beginning of a message
	// scanned bytes of buf were looked at already for the end of what is being
	// read.
	scanned int
	waiting []piece // beyond a gap, by their first byte
	bytes   int     // capacity of all that
	spare   *state
}

// piece is bytes that came before their turn.
type piece struct {
	at   uint64
	data []byte
}

func (p *piece) end() uint64 { return p.at + uint64(len(p.data)) }

const (
	// maxWaiting bounds the pieces of a direction: finding the place of one
	// must stay cheap.
	maxWaiting = 1024
	// patience is how many pieces a gap is left open for where nobody is seen
	// to ask for the bytes again; TCP itself takes three for a loss (RFC 5681).
	patience = 3
	// coalesced is how long a piece may grow by what follows it.
	coalesced = 16 << 10
)

// data takes a segment's bytes.
func (t *Table) data(i uint32, c conn, dir int, seg *record.Segment) {
	if seg.Size == 0 {
		return
	}
	h := &c.half[dir]
	if !h.within(seg) {
		t.stats.outside.Add(1)
		return
	}
	if !h.begun {
		m := h.mode // it may be known that nobody reads it
		h.begin(seg.Seq)
		h.mode = m
	}
	at := int64(h.next) + int64(int32(seg.Seq-(h.base+uint32(h.next))))
	if at == -1 && h.next == 0 && !c.confirmed && seg.Size > 1 && h.kept == nil {
		// Packets made by hand often forget that a SYN takes a number of its own.
		h.base, at = seg.Seq, 0
	}
	data, end := seg.Payload, at+int64(seg.Size)
	if len(data) > int(seg.Size) {
		data = data[:seg.Size]
	}
	for before := uint64(0); at > int64(h.next) && h.next != before; {
		before = h.next
		jump(h)
	}
	h.sent(end)
	if end <= int64(h.next) {
		return // had it
	}
	if h.mode == passOver || !t.want.any() {
		h.next = max(h.next, uint64(end))
		return
	}
	if skip := int64(h.next) - at; skip > 0 {
		data, at = data[min(int(skip), len(data)):], int64(h.next)
	}
	if uint64(at) > h.next {
		t.wait(i, c, dir, uint64(at), data)
		t.passGap(i, c, dir)
		return
	}
	if len(data) > 0 {
		t.deliver(i, c, dir, data)
	}
	if len(seg.Payload) < int(seg.Size) && h.mode != passOver {
		t.skip(c, dir, uint64(end)) // cut by the snap length
	}
	t.advance(i, c, dir)
}

// advance delivers what waited for its turn.
func (t *Table) advance(i uint32, c conn, dir int) {
	h := &c.half[dir]
	for h.kept != nil && len(h.kept.waiting) > 0 {
		if h.mode == passOver {
			t.dropState(c, dir)
			return
		}
		s := h.kept
		p := s.waiting[0]
		if p.at > h.next {
			return
		}
		n := copy(s.waiting, s.waiting[1:])
		s.waiting = s.waiting[:n]
		s.bytes -= cap(p.data)
		if p.end() > h.next {
			t.deliver(i, c, dir, p.data[h.next-p.at:])
		}
		t.pool.put(p.data)
		t.release(h)
	}
}

// passGap gives up bytes that are missing, if it is known that they will not
// come: the receiver has them, and what follows them is here. Where nothing is
// seen of the receiver and little of the beginning, a message that begins where
// a segment does is as good a sign, or that several segments came since.
func (t *Table) passGap(i uint32, c conn, dir int) {
	h := &c.half[dir]
	if h.kept == nil || len(h.kept.waiting) == 0 {
		return
	}
	s := h.kept
	if h.acks {
		if acked := int64(h.next) + int64(int32(h.acked-(h.base+uint32(h.next)))); acked < int64(s.waiting[0].at) {
			return
		}
	} else {
		begins := first(s.waiting[0].data, false) == httpProtocol
		if c.confirmed || !begins && len(s.waiting) < patience {
			return
		}
	}
	t.skip(c, dir, s.waiting[0].at)
	t.advance(i, c, dir)
}

// skip gives up the bytes before to: the message they belong to is lost.
func (t *Table) skip(c conn, dir int, to uint64) {
	h := &c.half[dir]
	if to <= h.next {
		return
	}
	t.stats.gaps.Add(1)
	if s := h.kept; s != nil {
		t.cut(c, dir, s.buf)
		t.forget(s)
	}
	lose(h)
	h.next = to
	t.release(h)
}

// wait keeps a piece that came before its turn.
func (t *Table) wait(i uint32, c conn, dir int, at uint64, data []byte) {
	if len(data) == 0 {
		return
	}
	h := &c.half[dir]
	n, covered := h.place(at, uint64(len(data)))
	if covered {
		return
	}
	s := t.keep(h)
	if n > 0 && t.join(s, &s.waiting[n-1], at, data) {
		return
	}
	if len(s.waiting) >= maxWaiting || !t.room(c, len(data)) {
		t.crowded(i, c, dir, at, data)
		return
	}
	b := t.take(i, len(data))
	if b == nil {
		t.stats.dropped.Add(1)
		t.release(h)
		return
	}
	s.bytes += cap(b)
	n = t.uncover(s, n, at, at+uint64(len(data)))
	s.waiting = append(s.waiting, piece{})
	copy(s.waiting[n+1:], s.waiting[n:])
	s.waiting[n] = piece{at, append(b, data...)}
}

// place returns where a piece belongs among those that wait, and whether one
// of them has all of it.
func (h *half) place(at, size uint64) (int, bool) {
	if h.kept == nil {
		return 0, false
	}
	w := h.kept.waiting
	lo, hi := 0, len(w)
	for lo < hi {
		if m := (lo + hi) / 2; w[m].at <= at {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, lo > 0 && w[lo-1].end() >= at+size
}

// uncover removes the pieces that [at, end) covers wholly and returns where it
// belongs now; n is where it belonged before.
func (t *Table) uncover(s *state, n int, at, end uint64) int {
	if n > 0 && s.waiting[n-1].at == at {
		n--
	}
	m := n
	for m < len(s.waiting) && s.waiting[m].end() <= end {
		s.bytes -= cap(s.waiting[m].data)
		t.pool.put(s.waiting[m].data)
		m++
	}
	k := copy(s.waiting[n:], s.waiting[m:])
	s.waiting = s.waiting[:n+k]
	return n
}

// join appends data to the piece before it, if that ends where it begins and
// has the room.
func (t *Table) join(s *state, p *piece, at uint64, data []byte) bool {
	if p.end() != at || len(p.data)+len(data) > coalesced {
		return false
	}
	if len(p.data)+len(data) > cap(p.data) {
		b := t.pool.get(2 * (len(p.data) + len(data)))
		if b == nil || s.bytes+cap(b) > t.cfg.PerConnection {
			t.pool.put(b)
			return false
		}
		b = append(b, p.data...)
		s.bytes += cap(b) - cap(p.data)
		t.pool.put(p.data)
		p.data = b
	}
	p.data = append(p.data, data...)
	return true
}

// room reports whether the connection may keep n bytes more.
func (t *Table) room(c conn, n int) bool {
	kept := 0
	for d := range c.half {
		if s := c.half[d].kept; s != nil {
			kept += s.bytes
		}
	}
	return kept+minBuffer<<min(sizeClass(n), bufferSizes) <= t.cfg.PerConnection
}

// crowded is for a piece that the connection has no room for. Where the
// receiver is known not to have what is missing, it cannot use the piece
// either: whoever sends far ahead of himself must not make us jump. Else the
// bytes are lost to the capture, and reading goes on behind them.
func (t *Table) crowded(i uint32, c conn, dir int, at uint64, data []byte) {
	h := &c.half[dir]
	t.stats.dropped.Add(1)
	if h.acks || h.kept == nil || len(h.kept.waiting) == 0 {
		t.release(h)
		return
	}
	t.skip(c, dir, h.kept.waiting[0].at)
	t.advance(i, c, dir)
	if at == h.next && h.mode != passOver {
		t.deliver(i, c, dir, data)
	}
}

// deliver hands bytes that begin at h.next to the protocol's reader and keeps
// what it cannot use yet.
func (t *Table) deliver(i uint32, c conn, dir int, data []byte) {
	h := &c.half[dir]
	h.next += uint64(len(data))
	if s := h.kept; s != nil && len(s.buf) > 0 {
		if !t.grow(i, c, dir, data) {
			t.stats.dropped.Add(1)
			t.forget(s)
			lose(h)
			t.release(h)
			return
		}
		t.scanned = s.scanned
		n := t.read(c, dir, s.buf)
		if n >= len(s.buf) || h.mode == passOver {
			t.forget(s)
		} else {
			s.buf, s.scanned = s.buf[:copy(s.buf, s.buf[n:])], t.scanned
		}
		t.release(h)
		return
	}
	t.scanned = 0
	n := t.read(c, dir, data)
	if n >= len(data) || h.mode == passOver {
		t.release(h)
		return
	}
	s := t.keep(h)
	if !t.grow(i, c, dir, data[n:]) {
		t.stats.dropped.Add(1)
		lose(h)
		t.release(h)
		return
	}
	s.scanned = t.scanned
}

// grow appends to what is kept of a message.
func (t *Table) grow(i uint32, c conn, dir int, data []byte) bool {
	s := c.half[dir].kept
	if need := len(s.buf) + len(data); need > cap(s.buf) {
		if !t.room(c, need) {
			return false
		}
		b := t.take(i, need)
		if b == nil {
			return false
		}
		b = append(b, s.buf...)
		s.bytes += cap(b) - cap(s.buf)
		t.pool.put(s.buf)
		s.buf = b
	}
	s.buf = append(s.buf, data...)
	return true
}
