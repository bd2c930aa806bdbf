package stream

// keep returns the direction's state, made if there is none.
func (t *Table) keep(h *half) *state {
	if h.kept == nil {
		s := t.spare
		if s == nil {
			s = new(state)
		}
		t.spare, s.spare = s.spare, nil
		h.kept = s
	}
	return h.kept
}

// release gives the direction's state back if it holds nothing.
func (t *Table) release(h *half) {
	if s := h.kept; s != nil && len(s.buf) == 0 && len(s.waiting) == 0 {
		t.forget(s)
		s.waiting, s.bytes, s.spare = s.waiting[:0], 0, t.spare
		t.spare, h.kept = s, nil
	}
}

// forget drops the part of a message that is kept.
func (t *Table) forget(s *state) {
	s.bytes -= cap(s.buf)
	t.pool.put(s.buf)
	s.buf, s.scanned = nil, 0
}

// dropState gives up all that is kept of a direction.
func (t *Table) dropState(c conn, dir int) {
	h := &c.half[dir]
	if h.kept == nil {
		return
	}
	for _, p := range h.kept.waiting {
		t.pool.put(p.data)
	}
	h.kept.waiting = h.kept.waiting[:0]
	t.forget(h.kept)
	t.release(h)
}

// take gets a buffer for connection i, at the cost of connections that are
// worth less or were silent for longer; nil if there are none.
func (t *Table) take(i uint32, n int) []byte {
	for {
		b := t.pool.get(n)
		if b != nil {
			return b
		}
		if sizeClass(n) >= bufferSizes || !t.shed(i) {
			return nil
		}
	}
}

// shed takes the kept bytes of the connection that is worth least, but not
// those of connection i and of better ones.
func (t *Table) shed(i uint32) bool {
	own := t.at(i).class
	for cl := range t.held {
		if class(cl) > own {
			break
		}
		victim := t.held[cl].head
		if victim == i {
			victim = t.holder(i).keeps.after
		}
		if victim == 0 {
			continue
		}
		c := t.holder(victim)
		for dir := range c.half {
			if c.half[dir].kept != nil {
				t.dropState(c, dir)
				lose(&c.half[dir])
			}
		}
		t.settle(victim, c)
		t.stats.shed.Add(1)
		return true
	}
	return false
}
