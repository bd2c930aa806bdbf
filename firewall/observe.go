package firewall

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Dropped is how many packets the kernel stopped, by action and family; nil
// where the backend does not count them (a dry run). It asks the kernel.
func (m *Manager) Dropped(ctx context.Context) ([]backend.Drops, error) {
	d, ok := m.backend.(backend.Dropper)
	if !ok {
		return nil, nil
	}
	if err := m.kernel.LockContext(ctx); err != nil {
		return nil, err
	}
	defer m.kernel.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	drops, err := d.Dropped(ctx)
	if err != nil {
		m.count(&m.stats.errors)
	}
	return drops, err
}

// Coalesced is how many changes of the kernel Block led to, and how many of
// its requests were made in the change of another one. BlockAll is not counted.
func (m *Manager) Coalesced() (changes, joined uint64) {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	return m.queue.batches, m.queue.joined
}

// LogRules returns the kernel log rules that a packet from src to dst meets,
// those of the source first, of each side the longest prefix first. It never
// waits for the kernel.
func (m *Manager) LogRules(src, dst netip.Addr) []BlockInfo {
	now := m.now()
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []BlockInfo
	for _, side := range []struct {
		target backend.Target
		addr   netip.Addr
	}{{backend.Source, src}, {backend.Destination, dst}} {
		addr := side.addr.Unmap().WithZone("")
		if !addr.IsValid() {
			continue
		}
		for bits := addr.BitLen(); bits >= 0; bits-- {
			k := backend.Key{Prefix: netip.PrefixFrom(addr, bits).Masked(), Target: side.target, Log: true}
			if e := m.idx.get(k); e != nil && !e.Expired(now) {
				out = append(out, e.info())
			}
		}
	}
	return out
}

// Escalation is what is remembered of one prefix and target.
type Escalation struct {
	Prefix netip.Prefix
	Target backend.Target
	// Blocks are the times at which it was blocked by requests with an
	// escalation, the oldest first; the slice is the caller's.
	Blocks []time.Time
}

// Escalated returns what the escalation remembers of the prefixes that contain
// all of p, the longest first; nothing where it remembers nothing. It never
// waits for the kernel.
func (m *Manager) Escalated(p netip.Prefix) []Escalation {
	p, err := backend.Canonical(p)
	if err != nil {
		return nil
	}
	horizon := m.now().Add(-m.escalated.horizon()).Unix()
	var out []Escalation
	for bits := p.Bits(); bits >= 0; bits-- {
		for _, target := range []backend.Target{backend.Source, backend.Destination} {
			w := whom{netip.PrefixFrom(p.Addr(), bits).Masked(), target}
			if times := m.escalated.times(w, horizon); len(times) > 0 {
				out = append(out, Escalation{w.Prefix, w.Target, times})
			}
		}
	}
	return out
}

// horizon is how long a block is remembered.
func (t *escalations) horizon() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.memory
}

// times are the blocks of w that were made after a moment.
func (t *escalations) times(w whom, after int64) []time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.records[w]
	if r == nil {
		return nil
	}
	var out []time.Time
	for _, at := range r.times {
		if at > after {
			out = append(out, time.Unix(at, 0))
		}
	}
	return out
}

const (
	// maxCounted bounds how many counters Inspect asks for: without Init a
	// backend asks for each of the actions that a block may have.
	maxCounted = 20_000
	// countedAtOnce is how many it asks for in one call.
	countedAtOnce = 5000
)

// counted asks a backend for the packets of blocks that it has just listed;
// what it does not say is nil. A block that is gone meanwhile is no error.
func counted(ctx context.Context, b backend.Backend, blocks []BlockInfo) []*uint64 {
	out := make([]*uint64, len(blocks))
	done := 0
	for part := range slices.Chunk(blocks[:min(len(blocks), maxCounted)], countedAtOnce) {
		keys := make([]backend.Key, len(part))
		for i := range part {
			keys[i] = part[i].key()
		}
		found, err := b.Lookup(ctx, keys)
		if err != nil {
			return out
		}
		for i, s := range found {
			if s.Found && s.HasPackets {
				out[done+i] = &s.Packets
			}
		}
		done += len(part)
	}
	return out
}
