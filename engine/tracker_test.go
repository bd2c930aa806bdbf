package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
)

// naive is the definition of a threshold, without any bound on memory.
type naive struct {
	stamps []int64
	newest int64
	seen   bool
}

func (n *naive) clamp(now int64) int64 {
	if n.seen && now < n.newest {
		now = n.newest
	}
	n.newest, n.seen = now, true
	return now
}

func (n *naive) hit(now, window int64, threshold int) bool {
	n.stamps = append(n.stamps, n.clamp(now))
	now = n.newest
	count := 0
	for _, s := range n.stamps {
		if now-s <= window {
			count++
		}
	}
	if count < threshold {
		return false
	}
	n.stamps = nil
	return true
}

type naiveSet struct {
	naive
	last map[uint64]int64
}

func (n *naiveSet) hit(value uint64, now, window int64, threshold int) bool {
	now = n.clamp(now)
	if n.last == nil {
		n.last = map[uint64]int64{}
	}
	n.last[value] = now
	count := 0
	for _, s := range n.last {
		if now-s <= window {
			count++
		}
	}
	if count < threshold {
		return false
	}
	n.last = nil
	return true
}

func hostAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// TestTrackerIsExact compares the table with the definition on random streams:
// bursts, gaps, steps back in time, many addresses, thresholds below, at and
// far above what a slot holds.
func TestTrackerIsExact(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		tr := newTracker(4096, 1<<16)
		threshold := []int{2, 3, 4, 5, 16, 17, 31, 100, 400}[r.IntN(9)]
		window := int64(1 + r.IntN(1000))
		hosts := 1 + r.IntN(20)
		model := make([]naive, hosts)
		now, fired := int64(r.IntN(1000)), 0
		for i := range 6000 {
			switch r.IntN(50) {
			case 0:
				now += int64(r.IntN(int(window) * 2))
			case 1:
				now -= int64(r.IntN(int(window)))
			default:
				now += int64(r.IntN(1 + int(window)/threshold/hosts*2))
			}
			h := r.IntN(hosts)
			got := tr.hit(tr.key(7, countMatches, hostAddr(h), noAddr()), now, window, threshold) == threshold
			want := model[h].hit(now, window, threshold)
			if got != want {
				t.Fatalf("seed %d, hit %d of host %d at %d, %d in %d: fired %v, want %v", seed, i, h, now, threshold, window, got, want)
			}
			if got {
				fired++
			}
		}
		if _, evicted, lost := tr.stats(); evicted != 0 || lost != 0 {
			t.Fatalf("seed %d: %d evictions, %d lost stamps with room to spare", seed, evicted, lost)
		}
		if fired == 0 && threshold <= 5 {
			t.Errorf("seed %d: never fired", seed)
		}
		checkPool(t, tr)
	}
}

// TestDistinctIsExact does the same for different values.
func TestDistinctIsExact(t *testing.T) {
	fired := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		tr := newTracker(1024, 1<<14)
		threshold := []int{2, 3, 7, 8, 9, 20, 60}[r.IntN(7)]
		window := int64(1 + r.IntN(1000))
		hosts, values := 1+r.IntN(5), threshold+r.IntN(40)
		model := make([]naiveSet, hosts)
		now := int64(0)
		for i := range 4000 {
			now += int64(r.IntN(1+int(window)/threshold)) - int64(r.IntN(20)/19*10)
			h, v := r.IntN(hosts), r.Uint64N(uint64(values))
			got := tr.distinct(tr.key(9, countMatches, hostAddr(h), noAddr()), v, now, window, threshold) == threshold
			if want := model[h].hit(v, now, window, threshold); got != want {
				t.Fatalf("seed %d, step %d, value %d of host %d at %d, %d in %d: fired %v, want %v", seed, i, v, h, now, threshold, window, got, want)
			}
			if got {
				fired++
			}
		}
		checkPool(t, tr)
	}
	if fired < 1000 {
		t.Errorf("fired %d times only", fired)
	}
}

// checkPool holds the chunk pool to its bookkeeping: every chunk is free, or
// belongs to exactly one slot.
func checkPool(t *testing.T, tr *tracker) {
	t.Helper()
	owner := map[uint32]string{}
	claim := func(c uint32, who string) bool {
		if other, ok := owner[c]; ok {
			t.Errorf("chunk %d belongs to %s and to %s", c, other, who)
			return false
		}
		owner[c] = who
		return true
	}
	for c := tr.pool.free; c != 0; c = tr.pool.chunks[c].next {
		if !claim(c, "the free list") {
			return
		}
	}
	for i := range tr.shards {
		for j := range tr.shards[i].slots {
			for k := range tr.shards[i].slots[j] {
				s := &tr.shards[i].slots[j][k]
				if n := tr.shards[i].heads[j][k].count; n < 2 && s.first != 0 {
					t.Errorf("slot %d/%d/%d: %d matches, and a chunk", i, j, k, n)
				}
				for c := s.first; c != 0; c = tr.pool.chunks[c].next {
					if !claim(c, fmt.Sprintf("slot %d/%d/%d", i, j, k)) {
						return
					}
					if c == s.last {
						break
					}
				}
			}
		}
	}
	if uint32(len(owner)) != tr.pool.fresh {
		t.Errorf("%d of %d chunks are accounted for", len(owner), tr.pool.fresh)
	}
}

// TestForgedFloodDoesNotHideAttackers sends far more forged sources than there
// is room for, one match each, between the matches of real attackers.
func TestForgedFloodDoesNotHideAttackers(t *testing.T) {
	const attackers, threshold, entries = 50, 20, 1 << 16
	tr := newTracker(entries, 1<<14)
	window := int64(1e9)
	fired := map[int]bool{}
	forged, now := 0, int64(0)
	for range threshold + 3 { // room for an attacker displaced at his first match
		for a := range attackers {
			if tr.hit(tr.key(1, countMatches, hostAddr(a), noAddr()), now, window, threshold) == threshold {
				fired[a] = true
			}
			for range 200 {
				forged++
				now += 1000
				tr.hit(tr.key(1, countMatches, hostAddr(1<<20+forged), noAddr()), now, window, threshold)
			}
		}
	}
	used, evicted, _ := tr.stats()
	if used > entries || evicted < 100_000 {
		t.Errorf("%d slots in use, %d evictions after %d forged sources", used, evicted, forged)
	}
	if len(fired) != attackers {
		t.Errorf("%d of %d attackers were found", len(fired), attackers)
	}
}

// TestStampsAreBounded lets more sources collect stamps than the pool holds:
// what is given up is counted, and the pool's bookkeeping survives.
func TestStampsAreBounded(t *testing.T) {
	tr := newTracker(256, 600) // 272 chunks
	r := rand.New(rand.NewPCG(3, 3))
	for i := range 50_000 {
		h := r.IntN(400)
		tr.hit(tr.key(1, countMatches, hostAddr(h), noAddr()), int64(i), 1<<40, 1000)
		tr.distinct(tr.key(2, countMatches, hostAddr(h), noAddr()), r.Uint64(), int64(i), 1<<40, 1000)
	}
	_, evicted, lost := tr.stats()
	if evicted == 0 || lost == 0 {
		t.Errorf("%d evictions, %d lost stamps", evicted, lost)
	}
	checkPool(t, tr)
}

// TestWhoMakesRoom fills a bucket and asks for one more counter: first goes what
// is over, then the lowest count, then what was seen least lately.
func TestWhoMakesRoom(t *testing.T) {
	const window = 1000
	for _, tc := range []struct {
		name  string
		count [bucketSlots]int   // matches of each counter
		seen  [bucketSlots]int64 // time of them
		want  int
	}{
		{"over, though it has the most", [bucketSlots]int{2, 2, 1, 9, 2, 2, 2, 2}, [bucketSlots]int64{900, 900, 900, 199, 900, 900, 900, 900}, 3},
		{"the lowest count, though it is the newest", [bucketSlots]int{2, 3, 2, 4, 2, 1, 2, 20}, [bucketSlots]int64{200, 201, 202, 200, 200, 900, 200, 200}, 5},
		{"the oldest", [bucketSlots]int{1, 1, 1, 1, 1, 1, 1, 1}, [bucketSlots]int64{800, 700, 600, 500, 400, 300, 200, 250}, 6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTracker(bucketSlots, 1000)
			host := func(i int) trackerKey { return tr.key(1, countMatches, hostAddr(i), noAddr()) }
			for i := range tc.count {
				for range tc.count[i] {
					tr.hit(host(i), tc.seen[i], window, 100)
				}
			}
			tr.hit(host(99), 1200, window, 100)
			for i := range tc.count {
				if i == tc.want {
					continue
				}
				if got := tr.hit(host(i), tc.seen[i], window, 100); got != tc.count[i]+1 {
					t.Errorf("counter %d went on to %d, want %d", i, got, tc.count[i]+1)
				}
			}
			checkPool(t, tr)
		})
	}
}

// TestLifespan: in 32 bits a duration is never shorter, and hardly longer.
func TestLifespan(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for i := range 100_000 {
		ns := r.Int64() >> (i % 63)
		got := lifespanOf(ns).length()
		if got < ns && got >= 0 || got-ns > ns>>25 {
			t.Fatalf("%d ns became %d", ns, got)
		}
		if ns < 1<<26 && got != ns {
			t.Fatalf("%d ns became %d", ns, got)
		}
	}
}

// TestPoolExhaustion: with the pool used up by others, a source that goes on
// still reaches the threshold, whether the others are weak or strong.
func TestPoolExhaustion(t *testing.T) {
	for _, tc := range []struct {
		name   string
		others int // stamps of each of the other sources
	}{{"weak", 14}, {"middling", 40}, {"strong", 90}} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTracker(8, 100)
			hit := func(host int, now int64) bool {
				return tr.hit(tr.key(1, countMatches, hostAddr(host), noAddr()), now, 1<<40, 100) == 100
			}
			for h := range 7 {
				for i := range tc.others {
					hit(h, int64(i))
				}
			}
			fired := false
			for i := range 150 {
				fired = hit(99, int64(100+i)) || fired
			}
			if !fired {
				t.Error("the persistent source did not reach the threshold")
			}
			checkPool(t, tr)
		})
	}
}

func TestMerge(t *testing.T) {
	const window = 300
	for _, tc := range []struct {
		name string
		at   []int64
		want []bool
	}{
		{"first is emitted", []int64{5}, []bool{true}},
		{"within the window merged", []int64{0, 1, 299}, []bool{true, false, false}},
		{"at the end emitted", []int64{0, 300}, []bool{true, true}},
		{"not sliding", []int64{0, 200, 300, 400}, []bool{true, false, true, false}},
		{"time steps back", []int64{1000, 10, 1200, 1300}, []bool{true, false, false, true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTracker(64, 64)
			k := tr.key(1, mergeAlerts, hostAddr(1), hostAddr(2))
			for i, at := range tc.at {
				if got := tr.merge(k, at, window); got != tc.want[i] {
					t.Errorf("at %d: emitted %v, want %v", at, got, tc.want[i])
				}
			}
		})
	}
}

// TestKeysDiffer: rule, purpose, side, family and validity all make another
// counter; the IPv4-mapped form does not.
func TestKeysDiffer(t *testing.T) {
	tr := newTracker(64, 64)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	seen := map[trackerKey]string{}
	for name, k := range map[string]trackerKey{
		"rule 1":      tr.key(1, countMatches, a, noAddr()),
		"rule 2":      tr.key(2, countMatches, a, noAddr()),
		"merge":       tr.key(1, mergeAlerts, a, noAddr()),
		"destination": tr.key(1, countMatches, noAddr(), a),
		"pair":        tr.key(1, countMatches, a, b),
		"v6":          tr.key(1, countMatches, b, noAddr()),
		"none":        tr.key(1, countMatches, noAddr(), noAddr()),
		"unspecified": tr.key(1, countMatches, netip.IPv6Unspecified(), noAddr()),
	} {
		if other, ok := seen[k]; ok {
			t.Errorf("%s and %s share a counter", name, other)
		}
		seen[k] = name
	}
	if tr.key(1, countMatches, netip.MustParseAddr("::ffff:192.0.2.1"), noAddr()) != tr.key(1, countMatches, a, noAddr()) {
		t.Error("the IPv4-mapped form has a counter of its own")
	}
}

// TestTrackerConcurrent counts with several goroutines: nothing is lost.
func TestTrackerConcurrent(t *testing.T) {
	const workers, each, threshold = 8, 4000, 50
	tr := newTracker(1024, 1<<14)
	var fired [workers]int
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if tr.hit(tr.key(1, countMatches, hostAddr(i%16), noAddr()), 5, 100, threshold) == threshold {
					fired[w]++
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range fired {
		total += n
	}
	if want := workers * each / threshold; total != want {
		t.Errorf("fired %d times, want %d", total, want)
	}
}

func TestTrackerAllocatesNothing(t *testing.T) {
	tr := newTracker(1024, 1<<12)
	i := 0
	allocs := testing.AllocsPerRun(5000, func() {
		i++
		src := hostAddr(i % 3000)
		tr.hit(tr.key(1, countMatches, src, noAddr()), int64(i), 1000, 40)
		tr.distinct(tr.key(2, countMatches, src, noAddr()), uint64(i), int64(i), 1000, 40)
		tr.merge(tr.key(1, mergeAlerts, src, src), int64(i), 1000)
	})
	if allocs != 0 {
		t.Errorf("%v allocations a match", allocs)
	}
}

// TestHeadsInOrder: a bucket's counters are taken from the first on, so that few
// of them lie in few cache lines.
func TestHeadsInOrder(t *testing.T) {
	tr := newTracker(bucketSlots, 1000)
	bucket := &tr.shards[0].heads[0]
	for n := range bucketSlots {
		tr.hit(tr.key(1, countMatches, hostAddr(n), noAddr()), int64(n), 1000, 100)
		for i := range bucket {
			if used := bucket[i].tag != 0; used != (i <= n) || used && bucket[i].newest != int64(i) {
				t.Errorf("after %d sources, head %d is %+v", n+1, i, bucket[i])
			}
		}
	}
}
