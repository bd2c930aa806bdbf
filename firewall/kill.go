package firewall

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Killer ends the connections that exist from or to a prefix, so that what was
// allowed before a block is not remembered after it (connection tracking). It
// returns how many it ended; none is no error. It is called from one goroutine.
type Killer interface {
	Kill(ctx context.Context, prefix netip.Prefix, target backend.Target) (int, error)
}

const (
	// killQueue is how many prefixes may wait for the Killer: those of several
	// long lists that are blocked at once.
	killQueue = 10 * maxBatch
	// killPieces is how many pieces a prefix is cut into around the addresses
	// that are let through.
	killPieces = 256
	// killPatience is how long the end of a Manager waits for the Killer.
	killPatience = 2 * time.Second
)

// killWish is a prefix whose connections are to end.
type killWish struct {
	prefix netip.Prefix
	target backend.Target
}

// KillStats are the counters of the Killer.
type KillStats struct {
	Killed uint64 // connections
	Failed uint64 // calls that returned an error
	Lost   uint64 // prefixes for which there was no room in the queue
}

// killing feeds the Killer on a goroutine of its own: no block waits for it.
type killing struct {
	killer               Killer
	log                  *slog.Logger
	killed, failed, lost atomic.Uint64

	mu      sync.Mutex // guards what follows
	waiting []killWish
	closed  bool

	wake  chan struct{}
	done  chan struct{}
	abort context.CancelFunc
}

func startKilling(k Killer, log *slog.Logger) *killing {
	if k == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &killing{killer: k, log: log, wake: make(chan struct{}, 1), done: make(chan struct{}), abort: cancel}
	go s.run(ctx)
	return s
}

func (s *killing) run(ctx context.Context) {
	defer close(s.done)
	for range s.wake {
		s.mu.Lock()
		waiting, last := s.waiting, s.closed
		s.waiting = nil
		s.mu.Unlock()
		for _, w := range waiting {
			s.kill(ctx, w)
		}
		if last {
			return
		}
	}
}

func (s *killing) kill(ctx context.Context, w killWish) {
	if ctx.Err() != nil {
		s.lost.Add(1)
		return
	}
	n, err := s.killer.Kill(ctx, w.prefix, w.target)
	s.killed.Add(uint64(max(n, 0)))
	if err != nil && s.failed.Add(1) == 1 {
		s.log.Warn("connections of a blocked address could not be ended", "prefix", w.prefix, "error", err)
	}
}

// wish asks for the connections of a prefix, without waiting. It must not be
// called after end.
func (s *killing) wish(prefix netip.Prefix, target backend.Target) {
	s.mu.Lock()
	room := len(s.waiting) < killQueue
	if room {
		s.waiting = append(s.waiting, killWish{prefix, target})
	}
	s.mu.Unlock()
	if room {
		s.rouse()
		return
	}
	if s.lost.Add(1) == 1 {
		s.log.Warn("more is blocked than connections can be ended: some are left", "prefix", prefix)
	}
}

func (s *killing) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// end lets the Killer finish what is asked for, within reason, and joins it.
func (s *killing) end() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.rouse()
	patience := time.AfterFunc(killPatience, s.abort)
	<-s.done
	patience.Stop()
	s.abort()
}

// Kills returns the counters of the Killer; zeros where there is none.
func (m *Manager) Kills() KillStats {
	if m.killing == nil {
		return KillStats{}
	}
	return KillStats{Killed: m.killing.killed.Load(), Failed: m.killing.failed.Load(), Lost: m.killing.lost.Load()}
}

// kill has the connections of a new block ended, those of addresses that are
// let through left alone. It runs with m.kernel held.
func (m *Manager) kill(e *entry) {
	if m.killing == nil || !e.Action.Stops() {
		return
	}
	if e.Prefix.IsSingleIP() {
		m.killing.wish(e.Prefix, e.Target)
		return
	}
	m.mu.RLock()
	holes := slices.Clone(m.white.all.within(e.Prefix))
	for _, p := range m.protected.within(e.Prefix) {
		if !e.forced || p != e.Prefix {
			holes = append(holes, p)
		}
	}
	m.mu.RUnlock()
	pieces := without(e.Prefix, holes)
	if len(pieces) > killPieces {
		m.killing.lost.Add(uint64(len(pieces) - killPieces))
		pieces = pieces[:killPieces]
	}
	for _, p := range pieces {
		m.killing.wish(p, e.Target)
	}
}
