package engine

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// naiveBoth is the definition of a threshold on matches and on values.
type naiveBoth struct {
	naive
	last map[uint64]int64
}

func (b *naiveBoth) hit(value uint64, now, window int64, n, m int) bool {
	now = b.clamp(now)
	if b.last == nil {
		b.last = map[uint64]int64{}
	}
	b.stamps, b.last[value] = append(b.stamps, now), now
	matches, values := 0, 0
	for _, s := range b.stamps {
		if now-s <= window {
			matches++
		}
	}
	for _, s := range b.last {
		if now-s <= window {
			values++
		}
	}
	if matches < n || values < m {
		return false
	}
	b.stamps, b.last = nil, nil
	return true
}

// TestBothIsExact: a rule with threshold and distinct_threshold fires where N
// matches and M different values are within the window, and nowhere else.
func TestBothIsExact(t *testing.T) {
	fired := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		tr := newTracker(1024, 1<<14)
		m := []int{2, 3, 8, 9, 20}[r.IntN(5)]
		n := m + r.IntN(2*m)
		window, hosts, values := int64(1+r.IntN(1000)), 1+r.IntN(5), m+r.IntN(10)
		model := make([]naiveBoth, hosts)
		now := int64(0)
		for i := range 3000 {
			now += int64(r.IntN(1+int(window)/n)) - int64(r.IntN(20)/19*10)
			if r.IntN(100) == 0 {
				now += window / 2
			}
			h, v := r.IntN(hosts), r.Uint64N(uint64(1+r.IntN(values)))
			count, got := tr.hitDistinct(tr.key(9, countMatches, hostAddr(h), noAddr()), v, now, window, n, m)
			if want := model[h].hit(v, now, window, n, m); got != want {
				t.Fatalf("seed %d, step %d, value %d of host %d at %d, %d matches and %d values in %d: fired %v, want %v", seed, i, v, h, now, n, m, window, got, want)
			}
			if got && count != m || count > m {
				t.Fatalf("seed %d, step %d: %d values of %d", seed, i, count, m)
			}
			if got {
				fired++
			}
		}
		if _, evicted, lost := tr.stats(); evicted != 0 || lost != 0 {
			t.Fatalf("seed %d: %d evictions, %d lost", seed, evicted, lost)
		}
		checkPool(t, tr)
	}
	if fired < 500 {
		t.Errorf("fired %d times only", fired)
	}
}

// TestBothInARule: neither many matches with one value nor many values with few
// matches fire; the alert is about the values.
func TestBothInARule(t *testing.T) {
	j := &journal{}
	_, w := start(t, "- {name: r, type: TCP, expression: SYN, threshold: 6, threshold_window: 60, distinct_field: DstPort, distinct_threshold: 3}", j)
	send := func(number uint64, port uint16) {
		set := syn(number, "203.0.113.9", 0)
		set.Time = t0 + int64(number)
		set.DstPort, set.TCP.DstPort = port, int32(port)
		w.Evaluate(set)
	}
	for i := range uint64(10) {
		send(1+i, 22)
	}
	send(11, 23)
	if len(j.alerts) != 0 {
		t.Errorf("%d alerts with two values", len(j.alerts))
	}
	send(12, 24)
	if len(j.alerts) != 1 || j.alerts[0].Count != 3 || j.alerts[0].Threshold != 3 || j.alerts[0].Packet != 12 {
		t.Fatalf("alerts %+v", j.alerts)
	}
	for i := range uint16(5) {
		send(13+uint64(i), 30+i)
	}
	if len(j.alerts) != 1 {
		t.Error("fired again with 5 matches: it starts from zero")
	}
	if send(18, 22); len(j.alerts) != 2 {
		t.Errorf("%d alerts after 6 matches more", len(j.alerts))
	}
}

// BenchmarkDistinct is what a match costs that stays below its threshold, with
// so many values in the window, each of which ends as another comes.
func BenchmarkDistinct(b *testing.B) {
	for _, n := range []int{20, 100, 500, exactDistinct} {
		b.Run(fmt.Sprintf("values=%d", n), func(b *testing.B) {
			tr := newTracker(defaultEntries, defaultStamps)
			k, i := tr.key(1, countMatches, hostAddr(1), noAddr()), int64(0)
			for b.Loop() {
				i++
				if tr.distinct(k, uint64(i*0x5851f42d4c957f2d), i, int64(n-3), n) == n {
					b.Fatal("the threshold was reached")
				}
			}
		})
	}
}
