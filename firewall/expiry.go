package firewall

import (
	"context"
	"time"
)

// EventKind says what happened to a block without a caller waiting for it.
type EventKind uint8

// The kinds of events.
const (
	Expired   EventKind = iota // its end came
	Unblocked                  // it was lifted before its end
)

// Who lifted a block (Event.By).
const (
	ByManual    = "manual"
	ByWhitelist = "whitelist"
	ByFlush     = "flush"
)

// Event tells of a block that is over.
type Event struct {
	Kind  EventKind
	Block BlockInfo
	By    string // Unblocked only
	At    time.Time
}

// emit hands events to the owner, without a lock held.
func (m *Manager) emit(events []Event) {
	if m.cfg.OnEvent == nil {
		return
	}
	for _, e := range events {
		m.cfg.OnEvent(e)
	}
}

// run ends blocks when they are due and keeps the protected addresses up to
// date, until ctx ends.
func (m *Manager) run(ctx context.Context) {
	defer close(m.done)
	clean := time.NewTicker(m.cfg.CleanupInterval)
	defer clean.Stop()
	for {
		next := time.NewTimer(m.untilNext())
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-m.wake:
		case <-next.C:
			m.sweep(ctx)
		case <-clean.C:
			m.sweep(ctx)
			m.followHost(ctx)
		}
		next.Stop()
	}
}

// untilNext is the time to the next end, at most a cleanup interval.
func (m *Manager) untilNext() time.Duration {
	m.mu.RLock()
	defer m.mu.RUnlock()
	due, ok := m.idx.nextDue()
	if !ok {
		return m.cfg.CleanupInterval
	}
	return min(max(time.Until(due), 0), m.cfg.CleanupInterval)
}

// rewake lets the background goroutine look at the next end again.
func (m *Manager) rewake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *Manager) sweep(ctx context.Context) {
	m.kernel.Lock()
	events := m.expire(ctx, time.Now())
	m.kernel.Unlock()
	m.emit(events)
}

// expire takes the blocks whose end has come at now out of the kernel (nft
// has dropped them itself, iptables holds dead rules) and out of the index. A
// failure is counted and tried again after a cleanup interval; queries treat
// the block as gone all the same. It runs with m.kernel held.
func (m *Manager) expire(ctx context.Context, now time.Time) []Event {
	m.mu.RLock()
	due := m.idx.due(now)
	change := m.closing(due)
	m.mu.RUnlock()
	if len(due) == 0 || m.closed {
		return nil
	}
	err := m.backend.Apply(ctx, change)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.stats.errors++
		m.log.Error("removing ended blocks", "error", err)
		for _, e := range due {
			m.idx.postpone(e, now.Add(m.cfg.CleanupInterval))
		}
		return nil
	}
	events := make([]Event, len(due))
	for i, e := range due {
		m.idx.remove(e.Key)
		m.stats.expired++
		events[i] = Event{Kind: Expired, Block: e.info(), At: e.ExpiresAt}
	}
	return events
}

// followHost reads the protected addresses again and, where they changed,
// lifts what they cover and tells the kernel.
func (m *Manager) followHost(ctx context.Context) {
	if !m.refreshProtected() {
		return
	}
	m.kernel.Lock()
	events, err := m.editWhitelist(ctx, func() bool { return true }, func() {})
	m.kernel.Unlock()
	m.emit(events)
	if err != nil {
		m.log.Error("following this host's addresses", "error", err)
	}
}
