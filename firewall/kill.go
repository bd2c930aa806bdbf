package firewall

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
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
	// killQueue is how many prefixes may wait for the Killer.
	killQueue = 4096
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
	queue                chan killWish
	killed, failed, lost atomic.Uint64
	done                 chan struct{}
	abort                context.CancelFunc
}

func startKilling(k Killer, log *slog.Logger) *killing {
	if k == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &killing{killer: k, log: log, queue: make(chan killWish, killQueue), done: make(chan struct{}), abort: cancel}
	go s.run(ctx)
	return s
}

func (s *killing) run(ctx context.Context) {
	defer close(s.done)
	for w := range s.queue {
		if ctx.Err() != nil {
			s.lost.Add(1)
			continue
		}
		n, err := s.killer.Kill(ctx, w.prefix, w.target)
		s.killed.Add(uint64(max(n, 0)))
		if err != nil && s.failed.Add(1) == 1 {
			s.log.Warn("connections of a blocked address could not be ended", "prefix", w.prefix, "error", err)
		}
	}
}

// wish asks for the connections of a prefix, without waiting. It must not be
// called after end.
func (s *killing) wish(prefix netip.Prefix, target backend.Target) {
	select {
	case s.queue <- killWish{prefix, target}:
	default:
		if s.lost.Add(1) == 1 {
			s.log.Warn("more is blocked than connections can be ended: some are left", "prefix", prefix)
		}
	}
}

// end lets the Killer finish what is asked for, within reason, and joins it.
func (s *killing) end() {
	if s == nil {
		return
	}
	close(s.queue)
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
