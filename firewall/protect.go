package firewall

import (
	"context"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// readProtected reads which addresses must never be blocked, at start; Follow
// keeps them up to date afterwards.
func (m *Manager) readProtected() {
	entries, err := hostaddr.Snapshot(m.cfg.Protect)
	if err != nil {
		m.warnOnce("protected", "some protected addresses could not be read", "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.protected = protectedSet(entries)
}

func protectedSet(entries []hostaddr.Entry) prefixSet[string] {
	var s prefixSet[string]
	for _, e := range entries {
		s.set(e.Prefix, e.Why)
	}
	return s
}

// setProtected takes over a change of this host's addresses: blocks that they
// cover are lifted, larger ones get a hole.
func (m *Manager) setProtected(ctx context.Context, entries []hostaddr.Entry) error {
	fresh := protectedSet(entries)
	m.kernel.Lock()
	m.mu.RLock()
	old := m.protected
	m.mu.RUnlock()
	if m.closed || slices.Equal(fresh.keys(), old.keys()) {
		m.kernel.Unlock()
		return nil
	}
	events, err := m.editWhitelist(ctx,
		func() bool { m.protected = fresh; return true },
		func() { m.protected = old })
	m.kernel.Unlock()
	m.emit(events)
	return err
}

// clockStep is how far the wall clock must jump against elapsed time before
// anything is rewritten.
const clockStep = time.Second

// wallOffset is how far the wall clock is from elapsed time since start.
func wallOffset(start, now time.Time) time.Duration {
	return now.Round(0).Sub(start.Round(0)) - now.Sub(start)
}

// followClock notices a step of the wall clock. Durations are elapsed time:
// the ends that we show move with the clock, and a kernel that ends blocks by
// the wall clock (iptables) is told the new ends.
func (m *Manager) followClock(ctx context.Context) {
	now := m.now()
	m.kernel.Lock()
	defer m.kernel.Unlock()
	offset := m.wallOffset(m.started, now)
	if m.closed || (offset-m.offset).Abs() < clockStep {
		return
	}
	m.log.Warn("the clock was set", "by", (offset - m.offset).Round(time.Millisecond))
	m.offset = offset
	m.logError("following the clock", m.rewriteEnds(ctx, now))
}

// rewriteEnds gives every timed block an end on today's wall clock. It runs
// with m.kernel held.
func (m *Manager) rewriteEnds(ctx context.Context, now time.Time) error {
	var change backend.Change
	m.mu.Lock()
	for _, e := range m.idx.blocks {
		if !e.Permanent() {
			e.ExpiresAt = now.Add(e.ExpiresAt.Sub(now))
			change.Add = append(change.Add, e.Block)
		}
	}
	m.mu.Unlock()
	w, ok := m.backend.(interface{ EndsOnWallClock() bool })
	if !ok || !w.EndsOnWallClock() || change.Empty() {
		return nil
	}
	return m.backend.Apply(ctx, change)
}
