package stream

import "github.com/netcap-guard/netcap-guard/record"

// offers are the windows that a handshake opens. Of segments that were sent
// again the widest counts: which of them the other side took is not known.
type offers struct {
	scale  [2]uint8  // as record.Segment has it
	window [2]uint16 // of the SYN and of the SYN-ACK, which are not scaled
}

// syn notes what a SYN or a SYN-ACK of direction dir says.
func (o *offers) syn(dir int, seg *record.Segment) {
	o.scale[dir] = max(o.scale[dir], seg.Scale)
	o.window[dir] = max(o.window[dir], seg.Window)
}

// answered is told of a SYN-ACK that was looked at.
func (t *Table) answered(c conn, dir int, seg *record.Segment) {
	if c.hello != sentSYNACK || c.isn[dir] != seg.Seq || dir == int(c.client) {
		return
	}
	c.offers.syn(dir, seg)
	if !c.confirmed {
		c.limit()
	}
}

// limit bounds what either side may send by what the other has room for. Both
// halves have begun, and both segments of the handshake were seen.
func (c conn) limit() {
	server := 1 - c.client
	for dir := range c.half {
		h, o := &c.half[dir], &c.offers
		h.bound, h.scale = true, 0
		if o.scale[server] > 0 && o.scale[1-dir] > 0 { // scaled where both say so
			h.scale = o.scale[1-dir] - 1
		}
		first := c.isn[dir] + 1
		if h.acks {
			first = h.acked // it has what came with the SYN
		}
		h.edge = first + uint32(o.window[1-dir])
	}
}

// acknowledge notes what the receiver of the other direction says that it has
// and how much it has room for, and reports whether it has more than before.
// What was not sent it cannot have: who says so is not the receiver, or the
// capture has lost what he speaks of; that shows when what follows it comes.
func acknowledge(c conn, dir int, seg *record.Segment) bool {
	h := &c.half[1-dir]
	if !h.begun {
		return false
	}
	edge := seg.Ack + uint32(seg.Window)<<h.scale
	h.claims = int32(seg.Ack-(h.base+uint32(h.high))) > int32(c.fins>>(1-dir)&1)
	if h.claims {
		h.claim, h.room = seg.Ack, edge
		return false
	}
	return h.has(seg.Ack, edge)
}

// has notes what the receiver has, up to where he has room, and reports whether
// he has more than before.
func (h *half) has(ack, edge uint32) bool {
	if h.bound && int32(edge-h.edge) > 0 {
		h.edge = edge
	}
	if h.acks && int32(ack-h.acked) <= 0 {
		return false
	}
	h.acks, h.acked = true, ack
	return true
}

// within reports whether the receiver has room for a segment's first byte:
// both ends may agree that he has taken what the capture lost.
func (h *half) within(seg *record.Segment) bool {
	if !h.bound || int32(seg.Seq-h.edge) < 0 {
		return true
	}
	return h.claims && int32(seg.Seq-h.claim) >= 0 && int32(seg.Seq-h.room) < 0
}

// sent notes where a segment ends that the receiver has room for.
func (h *half) sent(end int64) {
	if end <= int64(h.high) {
		return
	}
	h.high = uint64(end)
	if h.claims && int32(h.claim-(h.base+uint32(end))) <= 0 {
		h.claims = false
		h.has(h.claim, h.room)
	}
}

// forwarded notes how far a direction has come whose data count elsewhere.
func forwarded(h *half, seg *record.Segment) {
	if seg.Size > 0 && h.begun && h.within(seg) {
		h.sent(int64(h.high) + int64(int32(seg.Seq+uint32(seg.Size)-(h.base+uint32(h.high)))))
	}
}

// ends reports whether a FIN can be the end of its direction: nothing that was
// seen comes behind it, and the receiver has room up to there. Of what nobody
// reads not everything was seen.
func (t *Table) ends(h *half, seg *record.Segment) bool {
	at := seg.Seq + uint32(seg.Size)
	if !h.begun || h.mode == passOver || !t.want.any() {
		return true
	}
	return int32(at-(h.base+uint32(h.high))) >= 0 && (!h.bound || int32(at-h.edge) <= 0)
}
