package engine

import "encoding/binary"

const pairsPerChunk = chunkStamps / 2

// distinct counts one match with a value (a keyed hash of it) and returns how
// many different values there are that were last seen within the window. At n
// the counter starts again from zero. A counter's values stand in no order: the
// first in the slot itself, the others in chunks, each with the time it was
// last seen. The work is linear in n.
func (t *tracker) distinct(k trackerKey, value uint64, now, window int64, n int) int {
	sh := t.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := t.find(sh, k, now, window)
	count := t.see(sh, c, value, now, window, n)
	if count >= n {
		t.empty(c)
	}
	return count
}

// see notes that a value was seen and returns how many the counter has
// within the window, at most n. Of more than n those that were seen last stay.
func (t *tracker) see(sh *shard, s counter, value uint64, now, window int64, n int) int {
	now = max(now, s.newest)
	s.pairs, s.newest = true, now
	cutoff := now - window
	l := t.look(s, int64(value), cutoff)
	_, seen := t.pair(s, l.found)
	switch {
	case l.is:
		if *seen < cutoff {
			l.alive++
		}
		*seen = now
		return min(l.alive, n)
	case s.count == 0 || l.least >= cutoff && int(s.count) < n:
		if !t.addValue(sh, s, int64(value), now) {
			return l.alive
		}
		l.alive++
	default: // in the place of one that is over, or that is not needed
		if l.least < cutoff {
			l.alive++
		}
		v, seen := t.pair(s, l.oldest)
		*v, *seen = int64(value), now
	}
	if int(s.count) > 2*l.alive+pairsPerChunk {
		t.compact(s, cutoff)
	}
	return min(l.alive, n)
}

// spot is where a pair of a counter stands: in a chunk, or (0) in the slot.
type spot struct{ chunk, at uint32 }

// pair returns a value and the time it was last seen.
func (t *tracker) pair(s counter, at spot) (value, seen *int64) {
	if at.chunk == 0 {
		return &s.inline[0], &s.inline[1]
	}
	words := &t.pool.chunks[at.chunk].words
	return &words[2*at.at], &words[2*at.at+1]
}

// looked is what a walk over a counter's values tells: whether the value is among
// them and where, which was seen least lately and when, and how many were
// seen since the cutoff.
type looked struct {
	is            bool
	found, oldest spot
	least         int64
	alive         int
}

func (t *tracker) look(s counter, value, cutoff int64) looked {
	l := looked{least: 1<<63 - 1}
	if s.count == 0 {
		return l
	}
	l.is, l.least = s.inline[0] == value, s.inline[1]
	if l.least >= cutoff {
		l.alive = 1
	}
	rest := s.count - 1
	for c := s.first; rest > 0; {
		ch := &t.pool.chunks[c]
		n := min(rest, pairsPerChunk)
		for i := range n {
			v, seen := ch.words[2*i], ch.words[2*i+1]
			if v == value {
				l.is, l.found = true, spot{c, i}
			}
			if seen >= cutoff {
				l.alive++
			}
			if seen < l.least {
				l.least, l.oldest = seen, spot{c, i}
			}
		}
		rest -= n
		c = ch.next
	}
	return l
}

// exactDistinct is how many different values a counter tells apart one by one.
const exactDistinct = 1024

// manyDistinct is distinct for any n. Above exactDistinct the counter keeps a
// sample: the values whose hash ends in so many zero bits that at most
// exactDistinct of n do, each of which stands for a power of two (Gibbons,
// distinct sampling, 2001). The count is then right to about 4 percent, the
// standard error of 513 to 1,024 samples.
func (t *tracker) manyDistinct(k trackerKey, value uint64, now, window int64, n int) int {
	p := t.sample(value, n)
	if !p.in {
		return 0
	}
	return p.count(t.distinct(k, value, now, window, p.needed), n)
}

// sampling is how a counter of n different values counts.
type sampling struct {
	zeros  int
	needed int  // samples that stand for n
	in     bool // the value at hand is one
}

func (t *tracker) sample(value uint64, n int) sampling {
	if n <= exactDistinct {
		return sampling{needed: n, in: true}
	}
	p := sampling{}
	for n>>p.zeros > exactDistinct {
		p.zeros++
	}
	p.needed = (n + 1<<p.zeros - 1) >> p.zeros
	var raw [8]byte
	binary.LittleEndian.PutUint64(raw[:], value)
	p.in = t.hashBytes(raw[:])&(1<<p.zeros-1) == 0
	return p
}

// count is how many values so many samples stand for, at most n.
func (p *sampling) count(samples, n int) int {
	if samples >= p.needed {
		return n
	}
	return samples << p.zeros
}

// hitDistinct counts one match with a value and returns how many different
// values there are within the window, at most m, and whether there are m, and n
// matches. Then both counters start again from zero. The counter of k holds the
// matches; that of the values stands in the same shard, so that two workers
// cannot both be the one that crosses.
func (t *tracker) hitDistinct(k trackerKey, value uint64, now, window int64, n, m int) (int, bool) {
	sh := t.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p, other := t.sample(value, m), k.values()
	values, samples := t.find(sh, other, now, window), 0
	if p.in {
		samples = t.see(sh, values, value, now, window, p.needed)
	} else {
		l := t.look(values, 0, max(now, values.newest)-window)
		samples = l.alive
	}
	matches := t.find(sh, k, now, window) // values may be gone now
	if t.last(sh, matches, now, window, n) < n || samples < p.needed {
		return p.count(samples, m), false
	}
	t.empty(matches)
	t.empty(t.find(sh, other, now, window))
	return m, true
}

// last is hit without a start from zero: the n latest matches stay.
func (t *tracker) last(sh *shard, s counter, now, window int64, n int) int {
	now = max(now, s.newest)
	t.expire(s, now, window)
	if int(s.count) >= n {
		t.drop(s)
	}
	t.push(sh, s, now)
	return int(s.count)
}

// cursor walks a counter's pairs.
type cursor struct {
	counter
	spot
}

func (c *cursor) next(t *tracker) {
	switch {
	case c.chunk == 0:
		c.spot = spot{c.first, 0}
	case c.at+1 == pairsPerChunk:
		c.spot = spot{t.pool.chunks[c.chunk].next, 0}
	default:
		c.at++
	}
}

// compact removes the values that were last seen before the cutoff.
func (t *tracker) compact(s counter, cutoff int64) {
	from, to := cursor{counter: s}, cursor{counter: s}
	kept, lastChunk := uint32(0), uint32(0)
	for range s.count {
		if v, seen := t.pair(s, from.spot); *seen >= cutoff {
			toValue, toSeen := t.pair(s, to.spot)
			*toValue, *toSeen = *v, *seen
			lastChunk = to.chunk
			kept++
			to.next(t)
		}
		from.next(t)
	}
	s.count = kept
	t.cutAfter(s, lastChunk)
}

// cutAfter gives back the chunks behind c; 0 = all of them.
func (t *tracker) cutAfter(s counter, c uint32) {
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
func (t *tracker) addValue(sh *shard, s counter, value, now int64) bool {
	if s.count == 0 {
		s.inline[0], s.inline[1] = value, now
		s.count = 1
		return true
	}
	pair := (int(s.count) - 1) % pairsPerChunk
	if pair == 0 {
		c := t.chunk(sh, s, now)
		if c == 0 {
			sh.lost++
			return false
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
	return true
}
