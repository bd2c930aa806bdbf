package engine

import "sync"

const chunkStamps = 15

// chunk holds 15 time stamps, or seven pairs of a value and its time stamp,
// of one counter: 128 bytes.
type chunk struct {
	words [chunkStamps]int64
	next  uint32
}

// stampPool is the memory that all counters share for what they cannot
// hold themselves. Chunks are named by index; 0 is none.
type stampPool struct {
	// mu guards the free list and is taken while a shard is locked.
	mu     sync.Mutex
	chunks []chunk
	free   uint32 // list of chunks given back
	fresh  uint32 // chunks handed out at least once
}

func (p *stampPool) get() uint32 {
	p.mu.Lock()
	c := p.free
	switch {
	case c != 0:
		p.free = p.chunks[c].next
		p.chunks[c].next = 0
	case int(p.fresh)+1 < len(p.chunks):
		p.fresh++
		c = p.fresh
	}
	p.mu.Unlock()
	return c
}

// put gives back the list of chunks from first to last.
func (p *stampPool) put(first, last uint32) {
	p.mu.Lock()
	p.chunks[last].next = p.free
	p.free = first
	p.mu.Unlock()
}

// oldest returns the oldest stamp before the newest; there must be one.
func (t *tracker) oldest(c counter) int64 {
	if c.first == 0 {
		return c.inline[0]
	}
	return t.pool.chunks[c.first].words[c.offset]
}

// drop removes the oldest stamp before the newest.
func (t *tracker) drop(c counter) {
	c.count--
	if c.first == 0 {
		copy(c.inline[:], c.inline[1:])
		return
	}
	if c.offset++; c.offset == chunkStamps || c.count == 1 {
		over := c.first
		c.first, c.offset = t.pool.chunks[over].next, 0
		if c.count == 1 {
			c.first, c.last = 0, 0
		}
		t.pool.put(over, over)
	}
}

// expire removes the stamps that are too old at now.
func (t *tracker) expire(c counter, now, window int64) {
	if c.count > 0 && now-c.newest > window {
		t.empty(c)
		return
	}
	for c.count > 1 && now-t.oldest(c) > window {
		t.drop(c)
	}
}

// empty removes everything that the counter counted.
func (t *tracker) empty(c counter) {
	if c.count > 1 && c.first != 0 {
		t.pool.put(c.first, c.last)
		c.first, c.last, c.offset = 0, 0, 0
	}
	c.count = 0
}

// push adds a stamp, which becomes the newest. Where the pool has no room and
// nothing weaker holds any, the counter gives up its own oldest stamps, which is
// counted.
func (t *tracker) push(sh *shard, c counter, now int64) {
	if c.count > 0 {
		t.keep(sh, c, now)
	}
	c.count++
	c.newest = now
}

// keep puts the newest stamp, which is no longer going to be it, behind the
// others.
func (t *tracker) keep(sh *shard, c counter, now int64) {
	if c.count == 1 {
		c.offset, c.pairs = 0, false
	}
	before := c.count - 1
	if c.first == 0 && before < inlineStamps {
		c.inline[before] = c.newest
		return
	}
	fill := c.end()
	if c.first == 0 || fill == 0 {
		chunk := t.chunk(sh, c, now)
		if chunk == 0 {
			sh.lost++
			t.drop(c)
			t.keep(sh, c, now)
			return
		}
		t.attach(c, chunk)
		fill = c.end()
	}
	t.pool.chunks[c.last].words[fill] = c.newest
}

// end is where the next stamp goes in the last chunk; 0 = it is full.
func (c counter) end() uint32 { return (uint32(c.offset) + c.count - 1) % chunkStamps }

// attach puts a chunk at the end of the counter's list; the first one takes over
// the inline stamps.
func (t *tracker) attach(c counter, chunk uint32) {
	if c.first != 0 {
		t.pool.chunks[c.last].next = chunk
		c.last = chunk
		return
	}
	copy(t.pool.chunks[chunk].words[:], c.inline[:c.count-1])
	c.first, c.last, c.offset = chunk, chunk, 0
}

// chunk takes one from the pool, or from another counter of the shard: from the
// weakest that is no stronger than c, which loses everything, else from the
// strongest, which loses its oldest. It returns 0 where no other counter holds
// any.
func (t *tracker) chunk(sh *shard, c counter, now int64) uint32 {
	if chunk := t.pool.get(); chunk != 0 {
		return chunk
	}
	slots := len(sh.slots) * bucketSlots
	var weakest, strongest counter
	for range min(reclaimScan, slots) {
		sh.hand = (sh.hand + 1) % slots
		place, i := sh.hand/bucketSlots, sh.hand%bucketSlots
		v := counter{&sh.heads[place][i], &sh.slots[place][i]}
		if v == c || v.first == 0 {
			continue
		}
		if weakest.head == nil || weaker(v.head, weakest.head, now) {
			weakest = v
		}
		if strongest.head == nil || weaker(strongest.head, v.head, now) {
			strongest = v
		}
	}
	switch {
	case weakest.head == nil:
		return 0
	case weakest.over(now):
		t.empty(weakest)
	case weakest.count <= c.count:
		sh.evictions++
		t.empty(weakest)
	default:
		sh.lost += uint64(t.shave(strongest))
	}
	return t.pool.get()
}

// shave takes the first chunk from a counter that has one and returns how many
// stamps or values went with it.
func (t *tracker) shave(c counter) uint32 {
	before, chunk := c.count, c.first
	if !c.pairs {
		for c.first == chunk {
			t.drop(c)
		}
		return before - c.count
	}
	if c.first == c.last {
		c.count, c.first, c.last = 1, 0, 0
	} else {
		c.count, c.first = c.count-pairsPerChunk, t.pool.chunks[chunk].next
	}
	t.pool.put(chunk, chunk)
	return before - c.count
}
