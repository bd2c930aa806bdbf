package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/netcap-guard/netcap-guard/backend"
)

// UnblockAll is Unblock for many prefixes, up to 10,000 in one change of the
// kernel. It returns what was lifted of each, in their order; a prefix that
// comes twice has nothing the second time. On an error what was lifted before
// it is in the result, and the rest is as it was.
func (m *Manager) UnblockAll(ctx context.Context, prefixes []netip.Prefix) ([][]BlockInfo, error) {
	out := make([][]BlockInfo, len(prefixes))
	done := 0
	for part := range slices.Chunk(prefixes, maxBatch) {
		if err := m.unblockPart(ctx, part, out[done:]); err != nil {
			return out, err
		}
		done += len(part)
	}
	return out, nil
}

// unblockPart lifts what the prefixes have and files what that was.
func (m *Manager) unblockPart(ctx context.Context, prefixes []netip.Prefix, out [][]BlockInfo) error {
	if err := m.kernel.LockContext(ctx); err != nil {
		m.count(&m.stats.errors)
		return err
	}
	events, whose, err := m.liftAll(ctx, prefixes)
	m.kernel.Unlock()
	m.emit(events)
	for _, e := range events {
		if i, ok := whose[e.Block.key()]; ok && e.Kind == Unblocked {
			out[i] = append(out[i], e.Block)
		}
	}
	return err
}

// liftAll runs with m.kernel held. whose says which of the prefixes a key
// stands for.
func (m *Manager) liftAll(ctx context.Context, prefixes []netip.Prefix) (events []Event, whose map[backend.Key]int, err error) {
	if m.closed {
		return nil, nil, ErrClosed
	}
	events = m.expireAll(ctx, m.now())
	whose = make(map[backend.Key]int, len(prefixes))
	var gone []*entry
	m.mu.RLock()
	for i, given := range prefixes {
		p, err := backend.Canonical(given)
		if err != nil {
			m.mu.RUnlock()
			return events, whose, fmt.Errorf("unblock %v: %w", given, err)
		}
		for _, k := range m.keysOf(p) {
			e := m.idx.get(k)
			if _, twice := whose[k]; e == nil || twice {
				continue
			}
			whose[k] = i
			gone = append(gone, e)
		}
	}
	change := m.closing(gone)
	m.mu.RUnlock()
	more, err := m.remove(ctx, change, ByManual)
	return append(events, more...), whose, err
}

// keysOf are the identities that unblocking a prefix may lift.
func (m *Manager) keysOf(p netip.Prefix) []backend.Key {
	var keys []backend.Key
	for _, p := range []netip.Prefix{p, m.widened(p, &Request{})} {
		for _, target := range []backend.Target{backend.Source, backend.Destination} {
			keys = append(keys, backend.Key{Prefix: p, Target: target}, backend.Key{Prefix: p, Target: target, Log: true})
		}
	}
	return keys
}
