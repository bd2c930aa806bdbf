package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/netcap-guard/netcap-guard/backend"
)

// UnblockIP lifts the block of exactly this address, in both directions. An
// address that is not blocked is no error.
func (m *Manager) UnblockIP(ip string) error { return m.unblock(ip) }

// UnblockCIDR lifts the block of exactly this prefix, in both directions. A
// prefix that is not blocked is no error.
func (m *Manager) UnblockCIDR(cidr string) error { return m.unblock(cidr) }

func (m *Manager) unblock(s string) error {
	p, err := ParsePrefix(s)
	if err == nil {
		_, err = m.Unblock(context.Background(), p)
	} else {
		m.count(&m.stats.errors)
	}
	if err != nil {
		return fmt.Errorf("unblock: %w", err)
	}
	return nil
}

// Unblock lifts what exactly this prefix has: blocks, rate limits and kernel
// log rules, in both directions; p is made canonical. Where the configuration
// blocks the prefix of a single IPv6 address (ManagerConfig.IPv6Prefix), the
// address stands for that prefix here, too. It returns what was lifted, nothing
// if there was nothing. What the escalation remembers stays.
func (m *Manager) Unblock(ctx context.Context, p netip.Prefix) ([]BlockInfo, error) {
	p, err := backend.Canonical(p)
	if err != nil {
		m.count(&m.stats.errors)
		return nil, err
	}
	if err := m.kernel.LockContext(ctx); err != nil {
		m.count(&m.stats.errors)
		return nil, err
	}
	events, err := m.lift(ctx, p)
	m.kernel.Unlock()
	m.emit(events)
	var lifted []BlockInfo
	for _, e := range events {
		if e.Kind == Unblocked {
			lifted = append(lifted, e.Block)
		}
	}
	return lifted, err
}

// lift runs with m.kernel held.
func (m *Manager) lift(ctx context.Context, p netip.Prefix) ([]Event, error) {
	if m.closed {
		return nil, ErrClosed
	}
	events := m.expireAll(ctx, m.now())
	var gone []*entry
	m.mu.RLock()
	for _, k := range m.keysOf(p) {
		if e := m.idx.get(k); e != nil && !slices.Contains(gone, e) {
			gone = append(gone, e)
		}
	}
	change := m.closing(gone)
	m.mu.RUnlock()
	more, err := m.remove(ctx, change, ByManual)
	return append(events, more...), err
}

// remove takes blocks out of the kernel and the index. It runs with m.kernel
// held.
func (m *Manager) remove(ctx context.Context, change backend.Change, by string) ([]Event, error) {
	if change.Empty() {
		return nil, nil
	}
	m.revise()
	events, err := m.apply(ctx, change)
	if err != nil {
		m.count(&m.stats.errors)
		return events, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range change.Remove {
		if e := m.idx.remove(b.Key); e != nil {
			m.stats.removed++
			events = append(events, Event{Kind: Unblocked, Block: e.info(), By: by, At: m.clockLocked()})
		}
	}
	return events, nil
}

// closing is the change that takes blocks out: where one of them was forced,
// the protection it had pierced comes back in the same step. Needs m.mu.
func (m *Manager) closing(gone []*entry) backend.Change {
	var change backend.Change
	forced := false
	for _, e := range gone {
		change.Remove = append(change.Remove, e.Block)
		forced = forced || e.forced
	}
	if forced {
		change.Allow = m.allowed(nil, change.Remove)
	}
	return change
}
