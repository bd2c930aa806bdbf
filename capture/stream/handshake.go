package stream

import "github.com/netcap-guard/netcap-guard/record"

// maxFirst is how far behind its SYN a client's first segment that is seen may
// begin: the ACK before it may have come later, or never to the capture.
const maxFirst = 1 << 20

// follow looks at a segment's flags: how the handshake goes on, and whether
// the connection ends. It reports whether the segment's data may be taken. It
// may close the connection.
func (t *Table) follow(i uint32, c conn, dir int, seg *record.Segment) bool {
	f := seg.Flags
	switch {
	case f&record.FlagRST != 0:
		t.reset(i, c, dir, seg)
		return false
	case f&record.FlagSYN != 0 && f&record.FlagACK == 0:
		t.syn(c, dir, seg)
		return false
	case f&record.FlagSYN != 0:
		t.synACK(c, dir, seg)
		return false
	case f&record.FlagACK == 0:
		return false
	}
	switch {
	case c.hello == sentSYN && c.confirmed && dir != int(c.client):
		t.goesOn(c)
	case c.hello == sentSYNACK && dir == int(c.client):
		if third(c, dir, seg) {
			t.confirm(c, dir)
		} else if !c.confirmed {
			// The server gave a number that this segment does not know.
			t.stats.invalid.Add(1)
			return false
		}
	}
	if t.out {
		forwarded(&c.half[dir], seg)
	}
	if acknowledge(c, dir, seg) {
		t.passGap(i, c, 1-dir)
	}
	if f&record.FlagFIN != 0 && t.ends(&c.half[dir], seg) {
		c.fins |= 1 << dir
		if c.fins == 3 {
			c.closed = true
		}
	}
	return true
}

// syn begins a handshake. One in a connection that is being followed may be
// forged: it counts only when the handshake that it begins is complete.
func (t *Table) syn(c conn, dir int, seg *record.Segment) {
	defer t.begun(c, dir, seg)
	if c.knows && int(c.client) == dir && c.isn[dir] == seg.Seq {
		return // sent again
	}
	if c.hello != noHello && int(c.client) == dir {
		// Servers ignore one while another waits for its ACK, or answer it when
		// that is forgotten: which one counts, the answer says.
		c.again, c.marks = seg.Seq, c.marks|twice
		return
	}
	if c.confirmed && !c.closed {
		c.offers = offers{}
		c.hello, c.client, c.knows = sentSYN, uint8(dir), true
		c.isn[dir] = seg.Seq
		return
	}
	t.restart(c)
	c.hello, c.client, c.knows = sentSYN, uint8(dir), true
	c.isn[dir] = seg.Seq
	if c.pair != nil {
		c.half[dir].begin(seg.Seq + 1)
	}
}

// begun notes by which gate a SYN came in or went out, and what came with it.
func (t *Table) begun(c conn, dir int, seg *record.Segment) {
	c.offers.syn(dir, seg)
	c.fast = uint16(min(max(seg.Size, 0), 1<<16-1))
	if t.out {
		c.gates.out = seg.Gate
	} else {
		c.gates.in = seg.Gate
	}
}

// passesBack reports whether an answer takes the way of the SYN back. Where
// this host stands between two others, one that comes in where the SYN came in
// was sent by whoever sent the SYN; so was the same when it goes out later,
// because it was sent back to where it came from.
func (t *Table) passesBack(c conn, seg *record.Segment) bool {
	switch {
	case seg.Gate == 0:
		return true
	case t.out:
		return c.gates.in == seg.Gate && (!c.refused || c.beside != seg.Seq)
	case c.gates.out == seg.Gate:
		return true
	}
	c.beside, c.refused = seg.Seq, true
	return false
}

// goesOn is told that the server of a connection that stands has answered a
// SYN in it with an ordinary segment: the connection goes on as it was.
func (t *Table) goesOn(c conn) {
	c.hello, c.marks = noHello, c.marks&^twice
	for d := range c.isn {
		c.isn[d] = c.half[d].base - 1
	}
}

// instead takes the other SYN of a client for the one that counts.
func (t *Table) instead(c conn, client int) {
	again, offers := c.again, c.offers
	if !c.confirmed {
		t.restart(c)
		c.offers = offers
		c.half[client].begin(again + 1)
	}
	c.hello, c.client, c.knows, c.marks = sentSYN, uint8(client), true, c.marks&^twice
	c.isn[client] = again
}

// synACK is the second step, if it answers the first.
func (t *Table) synACK(c conn, dir int, seg *record.Segment) {
	client := 1 - dir
	if !t.passesBack(c, seg) {
		t.stats.invalid.Add(1)
		return
	}
	if c.marks&twice != 0 && int(c.client) == client && seg.Ack == c.again+1 {
		t.instead(c, client)
	}
	defer t.answered(c, dir, seg)
	switch {
	case c.hello == sentSYN && int(c.client) == client:
		if seg.Ack-(c.isn[client]+1) > uint32(c.fast) {
			t.stats.invalid.Add(1)
			return
		}
		c.hello, c.isn[dir] = sentSYNACK, seg.Seq
		if !c.confirmed {
			c.half[dir].begin(seg.Seq + 1)
			if seg.Ack != c.isn[client]+1 { // it has what came with the SYN
				c.half[client].high = uint64(seg.Ack - (c.isn[client] + 1))
				acknowledge(c, dir, seg)
			}
		}
	case c.hello == sentSYNACK && int(c.client) == client && seg.Ack-(c.isn[client]+1) <= uint32(c.fast):
		// Sent again, or a second answer. The later is taken: a forged first
		// one must not keep the real one out.
		c.isn[dir] = seg.Seq
		if !c.confirmed {
			t.dropState(c, dir)
			c.half[dir].begin(seg.Seq + 1)
		}
	case !c.knows && !c.confirmed: // the capture lacks the SYN
		t.restart(c)
		c.client, c.knows = uint8(client), true
		c.half[dir].begin(seg.Seq + 1)
		c.half[client].begin(seg.Ack)
	}
}

// third reports whether a client's segment proves that it got the server's
// answer: it acknowledges what the server sent.
func third(c conn, dir int, seg *record.Segment) bool {
	server := 1 - dir
	sent := uint32(0) // by the server, of this connection
	if h := &c.half[server]; !c.confirmed && h.begun {
		sent = uint32(h.high)
	}
	return seg.Ack-(c.isn[server]+1) <= sent && seg.Seq-(c.isn[dir]+1) <= maxFirst
}

// confirm notes that the handshake is complete. Of a new connection with the
// ports of an old one the old one is forgotten.
func (t *Table) confirm(c conn, dir int) {
	if c.confirmed {
		client, isn, offers := c.client, c.isn, c.offers
		t.restart(c)
		c.client, c.knows, c.isn, c.offers = client, true, isn, offers
		c.half[dir].begin(isn[dir] + 1)
		c.half[1-dir].begin(isn[1-dir] + 1)
		c.limit()
	}
	c.hello, c.confirmed, c.closed, c.marks, c.fins = noHello, true, false, c.marks&^twice, 0
	t.stats.confirmed.Add(1)
}

// restart forgets what was known of a connection but its name.
func (t *Table) restart(c conn) {
	if c.pair != nil {
		t.dropState(c, 0)
		t.dropState(c, 1)
		*c.pair = pair{keeps: c.keeps}
	}
	c.confirmed, c.closed, c.knows, c.marks = false, false, false, c.marks&^twice
	c.fins, c.hello, c.gates, c.offers = 0, noHello, gates{}, offers{}
}

// reset ends a connection, if the segment names the byte that is to come: any
// other may be forged to make us look away (RFC 5961, 3.2). What was being
// opened is forgotten, all else stays known until the room is needed.
func (t *Table) reset(i uint32, c conn, dir int, seg *record.Segment) {
	if c.hello != noHello && !c.confirmed {
		if dir != int(c.client) && seg.Flags&record.FlagACK != 0 && seg.Ack == c.isn[c.client]+1 {
			t.close(i)
		}
		return
	}
	// The byte to come is the one behind those that were seen, not that behind
	// the rest of a body, of which nothing came yet; where it is known what the
	// receiver has, it must be that, too.
	h := &c.half[dir]
	ahead := seg.Seq - (h.base + uint32(h.high))
	fits := ahead == 0
	if h.acks {
		fits = seg.Seq == h.acked && (h.high == 0 || ahead <= uint32(c.fins>>dir&1))
	}
	c.closed = c.closed || h.begun && fits
}
