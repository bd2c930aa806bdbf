package engine

import "encoding/binary"

const pairsPerChunk = chunkStamps / 2

// distinct counts one match with a value (a keyed hash of it) and returns how
// many different values there are that were last seen within the window. At n
// the counter starts again from zero. A slot's values stand in no order: the
// first in the slot itself, the others in chunks, each with the time it was
// last seen. The work is linear in n.
func (t *tracker) distinct(k trackerKey, value uint64, now, window int64, n int) int {
	sh := t.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := t.find(sh, k, now)
	now = max(now, s.newest)
	s.pairs = true
	s.newest, s.expires = now, later(now, window)
	found := t.refresh(s, int64(value), now, window)
	if found {
		return int(s.count)
	}
	if int(s.count)+1 >= n {
		t.empty(s)
		return n
	}
	t.addValue(sh, s, int64(value), now)
	return int(s.count)
}

// exactDistinct is how many different values a counter tells apart one by one.
const exactDistinct = 1024

// manyDistinct is distinct for any n. Above exactDistinct the counter keeps a
// sample: the values whose hash ends in so many zero bits that at most
// exactDistinct of n do, each of which stands for a power of two (Gibbons,
// distinct sampling, 2001). The count is then right to about 4 percent, the
// standard error of 513 to 1,024 samples.
func (t *tracker) manyDistinct(k trackerKey, value uint64, now, window int64, n int) int {
	if n <= exactDistinct {
		return t.distinct(k, value, now, window, n)
	}
	zeros := 0
	for n>>zeros > exactDistinct {
		zeros++
	}
	var raw [8]byte
	binary.LittleEndian.PutUint64(raw[:], value)
	if t.hashBytes(raw[:])&(1<<zeros-1) != 0 {
		return 0
	}
	samples := (n + 1<<zeros - 1) >> zeros
	if count := t.distinct(k, value, now, window, samples); count < samples {
		return count << zeros
	}
	return n
}

// cursor walks a slot's pairs.
type cursor struct {
	slot  *slot
	chunk uint32 // 0 = the slot's own pair
	pair  int
}

// at returns where the pair stands.
func (c *cursor) at(t *tracker) (value, seen *int64) {
	if c.chunk == 0 {
		return &c.slot.inline[0], &c.slot.inline[1]
	}
	words := &t.pool.chunks[c.chunk].words
	return &words[2*c.pair], &words[2*c.pair+1]
}

func (c *cursor) next(t *tracker) {
	switch {
	case c.chunk == 0:
		c.chunk, c.pair = c.slot.first, 0
	case c.pair+1 == pairsPerChunk:
		c.chunk, c.pair = t.pool.chunks[c.chunk].next, 0
	default:
		c.pair++
	}
}

// refresh removes the values that are too old and notes that value was seen
// now; it reports whether it was there.
func (t *tracker) refresh(s *slot, value, now, window int64) bool {
	from, to := cursor{slot: s}, cursor{slot: s}
	found, kept, lastChunk := false, uint32(0), uint32(0)
	for range s.count {
		v, seen := from.at(t)
		if *v == value {
			*seen, found = now, true
		}
		if now-*seen <= window {
			toValue, toSeen := to.at(t)
			*toValue, *toSeen = *v, *seen
			lastChunk = to.chunk
			kept++
			to.next(t)
		}
		from.next(t)
	}
	s.count = kept
	t.cutAfter(s, lastChunk)
	return found
}

// cutAfter gives back the chunks behind c; 0 = all of them.
func (t *tracker) cutAfter(s *slot, c uint32) {
	rest := s.first
	if c != 0 {
		rest = t.pool.chunks[c].next
	}
	if rest == 0 {
		return
	}
	t.pool.put(rest, s.last)
	s.last = c
	if c == 0 {
		s.first = 0
	} else {
		t.pool.chunks[c].next = 0
	}
}

// addValue appends a value; without room in the pool it is lost, and counted.
func (t *tracker) addValue(sh *shard, s *slot, value, now int64) {
	if s.count == 0 {
		s.inline[0], s.inline[1] = value, now
		s.count = 1
		return
	}
	pair := (int(s.count) - 1) % pairsPerChunk
	if pair == 0 {
		c := t.chunk(sh, s)
		if c == 0 {
			sh.lost++
			return
		}
		t.pool.chunks[c].next = 0
		if s.first == 0 {
			s.first = c
		} else {
			t.pool.chunks[s.last].next = c
		}
		s.last = c
	}
	words := &t.pool.chunks[s.last].words
	words[2*pair], words[2*pair+1] = value, now
	s.count++
}
