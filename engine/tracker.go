package engine

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
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
// of 64-byte slots in buckets of eight, found by a keyed 128-bit hash that an
// attacker cannot aim at, and a shared pool of chunks for the time stamps
// that a slot cannot hold. A full bucket gives up the counter with the lowest
// count: a flood of forged sources, one match each, displaces itself and not
// the attacker who is about to reach the threshold. What is given up is
// counted.
//
// All methods are safe for concurrent use; each locks one of up to 64 shards
// for one update.
type tracker struct {
	seeds  [2]maphash.Seed
	shards []shard
	// perShard buckets belong to each shard; both numbers are powers of two.
	perShard uint64
	pool     stampPool
}

// trackerKey is a counter's name: 128 bits of keyed hash. Two names collide
// once in 2^64 pairs or so, for reasons nobody can foresee.
type trackerKey [2]uint64

// purpose separates the counters of one rule.
type purpose byte

const (
	countMatches purpose = iota + 1
	countHosts           // of hosts that count for themselves where others do for their network
	mergeAlerts
	followsRule
)

type shard struct {
	// mu guards the shard's buckets and numbers.
	mu        sync.Mutex
	buckets   []bucket
	used      uint64
	evictions uint64
	lost      uint64
	hand      int      // where reclaim goes on
	_         [64]byte // keep neighbours off this cache line
}

// bucket keeps the tags apart, so that a look-up reads one cache line before
// it touches a slot. Tag 0 is a free slot.
type bucket struct {
	tags  [bucketSlots]uint64
	slots [bucketSlots]slot
}

// slot is one counter. Its stamps stand in order, oldest first: in inline, or,
// once there are more than fit, all of them in chunks.
type slot struct {
	check       uint64 // the second half of the key
	expires     int64  // nothing in it counts after this packet time
	newest      int64
	count       uint32
	first, last uint32 // chunks; 0 = none
	offset      uint16 // of the oldest stamp in the first chunk
	pairs       bool   // it holds values with their stamps (see distinct)
	inline      [inlineStamps]int64
}

func newTracker(entries, stamps int) *tracker {
	buckets := uint64(1)
	for buckets*bucketSlots < uint64(entries) {
		buckets *= 2
	}
	shards := min(buckets, maxShards)
	t := &tracker{
		seeds:    [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		shards:   make([]shard, shards),
		perShard: buckets / shards,
	}
	for i := range t.shards {
		t.shards[i].buckets = make([]bucket, t.perShard)
	}
	// With more chunks than slots, a flood of sources that fill one chunk each
	// cannot use up the pool.
	chunks := max((stamps+chunkStamps-1)/chunkStamps, int(buckets)*bucketSlots*17/16)
	t.pool.chunks = make([]chunk, 1+chunks)
	return t
}

func noAddr() netip.Addr { return netip.Addr{} }

// network masks an IPv6 address to its first bits; IPv4 stays whole.
func network(a netip.Addr, bits int) netip.Addr {
	if !a.Is6() || a.Is4In6() {
		return a
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return a
	}
	return p.Addr()
}

// key names the counter of a rule for up to two addresses.
func (t *tracker) key(rule uint32, p purpose, a, b netip.Addr) trackerKey {
	var buf [40]byte
	binary.LittleEndian.PutUint32(buf[:], rule)
	x, y := a.As16(), b.As16()
	copy(buf[4:20], x[:])
	copy(buf[20:36], y[:])
	buf[36] = byte(p)
	buf[37] = valid(a) | valid(b)<<1
	k := trackerKey{maphash.Bytes(t.seeds[0], buf[:]), maphash.Bytes(t.seeds[1], buf[:])}
	k[0] = max(k[0], 1) // 0 marks a free slot
	return k
}

func valid(a netip.Addr) byte {
	if a.IsValid() {
		return 1
	}
	return 0
}

// hashBytes and hashText are the keyed hash of a value that distinct counts.
func (t *tracker) hashBytes(b []byte) uint64 { return maphash.Bytes(t.seeds[0], b) }
func (t *tracker) hashText(s string) uint64  { return maphash.String(t.seeds[0], s) }

// hit counts one match at packet time now and returns how many there are now
// with newest - oldest <= window. At n the counter starts again from zero.
// Time that goes backwards counts as the newest time that the counter saw.
func (t *tracker) hit(k trackerKey, now, window int64, n int) int {
	sh := t.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := t.find(sh, k, now)
	now = max(now, s.newest)
	s.newest, s.expires = now, later(now, window)
	t.expire(s, now, window)
	if int(s.count)+1 >= n {
		t.empty(s)
		return n
	}
	t.push(sh, s, now)
	return int(s.count)
}

// merge reports whether an alert is to be emitted: none equal was within the
// window before.
func (t *tracker) merge(k trackerKey, now, window int64) bool {
	sh := t.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := t.find(sh, k, now)
	if s.count > 0 && now < s.expires {
		return false
	}
	s.count, s.newest, s.expires = 1, now, later(now, window)
	s.inline[0] = now
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
	return &t.shards[k[0]>>32&uint64(len(t.shards)-1)]
}

// find returns the key's slot, taking one over where it is new: a free one,
// one whose time is over, else the one with the lowest count.
func (t *tracker) find(sh *shard, k trackerKey, now int64) *slot {
	b := &sh.buckets[k[0]&(t.perShard-1)]
	free, victim := -1, 0
	for i, tag := range b.tags {
		s := &b.slots[i]
		switch {
		case tag == k[0] && s.check == k[1]:
			return s
		case tag == 0:
			free = i
		case weaker(s, &b.slots[victim], now):
			victim = i
		}
	}
	if free >= 0 {
		sh.used++
		victim = free
	} else if s := &b.slots[victim]; s.expires >= now && s.count > 0 {
		sh.evictions++
	}
	s := &b.slots[victim]
	t.empty(s)
	b.tags[victim] = k[0]
	*s = slot{check: k[1], newest: now, expires: now}
	return s
}

// weaker reports whether a is to be given up before b.
func weaker(a, b *slot, now int64) bool {
	if over := a.expires < now; over != (b.expires < now) {
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
