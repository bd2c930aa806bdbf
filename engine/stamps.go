package engine

import "sync"

const chunkStamps = 15

// chunk holds 15 time stamps, or seven pairs of a value and its time stamp,
// of one slot: 128 bytes.
type chunk struct {
	words [chunkStamps]int64
	next  uint32
}

// stampPool is the memory that all slots share for what they cannot hold
// themselves. Chunks are named by index; 0 is none.
type stampPool struct {
	// mu guards the free list and is taken while a shard is locked.
	mu     sync.Mutex
	chunks []chunk
	free   uint32 // list of chunks given back
	fresh  uint32 // chunks handed out at least once
}

func (p *stampPool) get() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.free; c != 0 {
		p.free = p.chunks[c].next
		p.chunks[c].next = 0
		return c
	}
	if int(p.fresh)+1 < len(p.chunks) {
		p.fresh++
		return p.fresh
	}
	return 0
}

// put gives back the list of chunks from first to last.
func (p *stampPool) put(first, last uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chunks[last].next = p.free
	p.free = first
}

// oldest returns the slot's oldest stamp; it must have one.
func (t *tracker) oldest(s *slot) int64 {
	if s.first == 0 {
		return s.inline[0]
	}
	return t.pool.chunks[s.first].words[s.offset]
}

// drop removes the oldest stamp.
func (t *tracker) drop(s *slot) {
	s.count--
	if s.first == 0 {
		copy(s.inline[:], s.inline[1:])
		return
	}
	if s.offset++; s.offset == chunkStamps || s.count == 0 {
		c := s.first
		s.first, s.offset = t.pool.chunks[c].next, 0
		if s.count == 0 {
			s.first, s.last = 0, 0
		}
		t.pool.put(c, c)
	}
}

// expire removes the stamps that are too old at now.
func (t *tracker) expire(s *slot, now, window int64) {
	for s.count > 0 && now-t.oldest(s) > window {
		t.drop(s)
	}
}

// empty removes everything that the slot counted.
func (t *tracker) empty(s *slot) {
	if s.first != 0 {
		t.pool.put(s.first, s.last)
	}
	s.count, s.first, s.last, s.offset = 0, 0, 0, 0
}

// push appends a stamp. Where the pool has no room and nothing weaker holds
// any, the slot gives up its own oldest stamps, which is counted.
func (t *tracker) push(sh *shard, s *slot, now int64) {
	if s.first == 0 && s.count < inlineStamps {
		s.inline[s.count] = now
		s.count++
		return
	}
	fill := s.end()
	if s.first == 0 || fill == 0 {
		c := t.chunk(sh, s)
		if c == 0 {
			sh.lost++
			t.drop(s)
			t.push(sh, s, now)
			return
		}
		t.attach(s, c)
		fill = s.end()
	}
	t.pool.chunks[s.last].words[fill] = now
	s.count++
}

// end is where the next stamp goes in the last chunk; 0 = it is full.
func (s *slot) end() uint32 { return (uint32(s.offset) + s.count) % chunkStamps }

// attach puts a chunk at the end of the slot's list; the first one takes over
// the inline stamps.
func (t *tracker) attach(s *slot, c uint32) {
	if s.first != 0 {
		t.pool.chunks[s.last].next = c
		s.last = c
		return
	}
	copy(t.pool.chunks[c].words[:], s.inline[:s.count])
	s.first, s.last, s.offset = c, c, 0
}

// chunk takes one from the pool, or from another slot of the shard: from the
// weakest that is no stronger than s, which loses everything, else from the
// strongest, which loses its oldest. It returns 0 where no other slot holds
// any.
func (t *tracker) chunk(sh *shard, s *slot) uint32 {
	if c := t.pool.get(); c != 0 {
		return c
	}
	slots := len(sh.buckets) * bucketSlots
	var weakest, strongest *slot
	for range min(reclaimScan, slots) {
		sh.hand = (sh.hand + 1) % slots
		v := &sh.buckets[sh.hand/bucketSlots].slots[sh.hand%bucketSlots]
		if v == s || v.first == 0 {
			continue
		}
		if weakest == nil || weaker(v, weakest, s.newest) {
			weakest = v
		}
		if strongest == nil || weaker(strongest, v, s.newest) {
			strongest = v
		}
	}
	switch {
	case weakest == nil:
		return 0
	case weakest.expires < s.newest:
		t.empty(weakest)
	case weakest.count <= s.count:
		sh.evictions++
		t.empty(weakest)
	default:
		sh.lost += uint64(t.shave(strongest))
	}
	return t.pool.get()
}

// shave takes the first chunk from a slot that has one and returns how many
// stamps or values went with it.
func (t *tracker) shave(s *slot) uint32 {
	before, c := s.count, s.first
	if !s.pairs {
		for s.first == c {
			t.drop(s)
		}
		return before - s.count
	}
	if s.first == s.last {
		s.count, s.first, s.last = 1, 0, 0
	} else {
		s.count, s.first = s.count-pairsPerChunk, t.pool.chunks[c].next
	}
	t.pool.put(c, c)
	return before - s.count
}
