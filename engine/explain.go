package engine

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// peak is the highest count that a rule's counters reached within its window,
// and for whom: what a person asks who wonders why a rule did not fire.
type peak struct {
	count atomic.Int64
	// mu guards who.
	mu  sync.Mutex
	who Tracked
}

// Tracked is whose matches a counter counts; the zero Addr where a rule does
// not tell addresses apart.
type Tracked struct {
	Src, Dst netip.Addr
}

// raise notes a count, which is rarely higher than all before.
func (p *peak) raise(count int, ev *evaluator, src, dst netip.Addr) {
	if int64(count) <= p.count.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if int64(count) <= p.count.Load() {
		return
	}
	p.count.Store(int64(count))
	p.who = Tracked{}
	if ev.rule.TrackBy == TrackSource || ev.rule.TrackBy == TrackPair {
		p.who.Src = src
	}
	if ev.rule.TrackBy == TrackDestination || ev.rule.TrackBy == TrackPair {
		p.who.Dst = dst
	}
}

func (p *peak) load() (int, Tracked) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.count.Load()), p.who
}

// stopwatch measures how long rules take, on one packet in sampleEvery: a look
// at the clock costs as much as a rule.
type stopwatch struct {
	packets  uint64
	running  bool
	overhead time.Duration
}

const sampleEvery = 64

// newStopwatch finds out what looking at the clock takes itself.
func newStopwatch() stopwatch {
	s := stopwatch{overhead: time.Hour}
	for range 100 {
		begun := time.Now()
		s.overhead = min(s.overhead, time.Since(begun))
	}
	return s
}

// packet begins another packet.
func (s *stopwatch) packet() {
	s.packets++
	s.running = s.packets%sampleEvery == 0
}

// timed evaluates a rule with the clock running; the time stands for
// sampleEvery packets.
func (w *Worker) timed(ev *evaluator, run func()) {
	begun := time.Now()
	run()
	ev.state.nanoseconds.Add(uint64(max(0, time.Since(begun)-w.watch.overhead) * sampleEvery))
}
