package engine

import (
	"hash/maphash"
	"sync"
)

// Sizes of the tracker.
const (
	defaultEntries = 1 << 18
	defaultStamps  = 1 << 20
	bucketSlots    = 8
	maxShards      = 64
	inlineStamps   = 3
	// reclaimScan bounds the work of making room for a time stamp.
	reclaimScan = 64
)

// tracker counts matches in exact sliding windows, in fixed memory: a table
// of counters in buckets of eight, found by a keyed hash that an attacker
// cannot aim at, and a shared pool of chunks for the time stamps that a counter
// cannot hold. A full bucket gives up the counter with the lowest count: a flood
// of forged sources, one match each, displaces itself and not the attacker who
// is about to reach the threshold. What is given up is counted.
//
// What a look at the table costs is the cache lines that nobody has touched for
// a while, and pages that the processor has no translation for. So a counter
// stands in two parts, the second of which a first match does not need; the
// first parts lie close together, and two rules that count the same address
// find theirs in one bucket.
//
// All methods are safe for concurrent use; each locks one of up to 64 shards
// for one update.
type tracker struct {
	seed   maphash.Seed
	shards []shard
	// perShard buckets belong to each shard; both numbers are powers of two.
	perShard uint64
	pool     stampPool
}

// purpose separates the counters of one rule.
type purpose byte

const (
	countMatches purpose = iota + 1
	countHosts           // of hosts that count for themselves where others do for their network
	mergeAlerts
	followsRule
)

type shard struct {
	// mu guards the shard's counters and numbers.
	mu        sync.Mutex
	heads     []heads // a bucket each
	slots     []slots
	used      uint64
	evictions uint64
	lost      uint64
	hand      int      // where reclaim goes on
	_         [64]byte // keep neighbours off this cache line
}

// heads and slots are the two parts of a bucket's counters.
type (
	heads [bucketSlots]head // three cache lines
	slots [bucketSlots]slot
)

// head is what a counter with one match consists of. Heads are taken into
// use from the first on, and never become free again.
type head struct {
	tag    uint64 // names the counter; 0 = free
	newest int64  // the last time stamp
	count  uint32
	life   lifespan // how long after newest something in it counts
}

// slot is what a counter has beside its head: the time stamps before the
// newest, in order, oldest first: in inline, or, once there are more than fit,
// all of them in chunks. With a count of 0 or 1 there are none, and first is 0.
type slot struct {
	first, last uint32 // chunks; 0 = none
	offset      uint16 // of the oldest stamp in the first chunk
	pairs       bool   // it holds values with their stamps (see distinct)
	inline      [inlineStamps]int64
}

// counter is a head with its slot. The slot is to be touched only where the
// count says that there is something in it.
type counter struct {
	*head
	*slot
}

func newTracker(entries, stamps int) *tracker {
	buckets := uint64(1)
	for buckets*bucketSlots < uint64(entries) {
		buckets *= 2
	}
	shards := min(buckets, maxShards)
	t := &tracker{
		seed:     maphash.MakeSeed(),
		shards:   make([]shard, shards),
		perShard: buckets / shards,
	}
	for i := range t.shards {
		t.shards[i].heads, t.shards[i].slots = make([]heads, t.perShard), make([]slots, t.perShard)
	}
	// With more chunks than slots, a flood of sources that fill one chunk each
	// cannot use up the pool.
	chunks := max((stamps+chunkStamps-1)/chunkStamps, int(buckets)*bucketSlots*17/16)
	t.pool.chunks = make([]chunk, 1+chunks)
	return t
}

// hit counts one match at packet time now and returns how many there are now
// with newest - oldest <= window. At n the counter starts again from zero.
// Time that goes backwards counts as the newest time that the counter saw.
func (t *tracker) hit(k trackerKey, now, window int64, n int) int {
	sh := t.shard(k)
	sh.mu.Lock()
	c := t.find(sh, k, now, window)
	now = max(now, c.newest)
	t.expire(c, now, window)
	count := int(c.count) + 1
	if count < n {
		t.push(sh, c, now)
		count = int(c.count)
	} else {
		t.empty(c)
		c.newest, count = now, n
	}
	sh.mu.Unlock()
	return count
}

// merge reports whether an alert is to be emitted: none equal was within the
// window before.
func (t *tracker) merge(k trackerKey, now, window int64) bool {
	sh := t.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := t.find(sh, k, now, window)
	if c.count > 0 && now < later(c.newest, window) {
		return false
	}
	c.count, c.newest = 1, now
	return true
}

// later adds without running over the end of time.
func later(now, window int64) int64 {
	if sum := now + window; sum >= now {
		return sum
	}
	return 1<<63 - 1
}

func (t *tracker) shard(k trackerKey) *shard {
	return &t.shards[k.place>>32&uint64(len(t.shards)-1)]
}

// find returns the key's counter, taking one over where it is new: a free one,
// one whose time is over, else the one with the lowest count.
func (t *tracker) find(sh *shard, k trackerKey, now, window int64) counter {
	place := k.place & (t.perShard - 1)
	b := &sh.heads[place]
	at, free := -1, -1
	for i := len(b) - 1; i >= 0; i-- { // down: the first of the free ones is found last
		// No way out of the loop before its end: whether to go on is not known
		// before the cache line has come, and the next one would not be asked for.
		tag := b[i].tag
		if tag == k.tag {
			at = i
		}
		if tag == 0 {
			free = i
		}
	}
	if at >= 0 {
		return counter{&b[at], &sh.slots[place][at]}
	}
	if at = free; at >= 0 {
		sh.used++
	} else {
		at = t.vacate(sh, place, now)
	}
	b[at] = head{tag: k.tag, newest: now, life: lifespanOf(window)}
	return counter{&b[at], &sh.slots[place][at]}
}

// vacate empties the weakest counter of a full bucket and says which it was.
func (t *tracker) vacate(sh *shard, place uint64, now int64) int {
	b, victim := &sh.heads[place], 0
	for i := 1; i < bucketSlots; i++ {
		if weaker(&b[i], &b[victim], now) {
			victim = i
		}
	}
	h := &b[victim]
	if h.count > 0 && !h.over(now) {
		sh.evictions++
	}
	t.empty(counter{h, &sh.slots[place][victim]})
	return victim
}

// over reports whether nothing in the counter counts any more.
func (h *head) over(now int64) bool { return later(h.newest, h.life.length()) < now }

// weaker reports whether a is to be given up before b.
func weaker(a, b *head, now int64) bool {
	if over := a.over(now); over != b.over(now) {
		return over
	}
	if a.count != b.count {
		return a.count < b.count
	}
	return a.newest < b.newest
}

// stats sums up the shards.
func (t *tracker) stats() (used, evictions, lost uint64) {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		used, evictions, lost = used+sh.used, evictions+sh.evictions, lost+sh.lost
		sh.mu.Unlock()
	}
	return used, evictions, lost
}
