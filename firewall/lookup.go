package firewall

import (
	"context"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Packets asks the kernel how many packets each of the blocks has stopped, in
// their order; nil where it does not know.
func (m *Manager) Packets(ctx context.Context, blocks []BlockInfo) ([]*uint64, error) {
	out := make([]*uint64, len(blocks))
	if len(blocks) == 0 || m.cfg.DryRun {
		return out, nil
	}
	keys := make([]backend.Key, len(blocks))
	for i, b := range blocks {
		keys[i] = b.key()
	}
	m.kernel.Lock()
	defer m.kernel.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	found, err := m.backend.Lookup(ctx, keys)
	if err != nil {
		m.count(&m.stats.errors)
		return nil, err
	}
	for i, s := range found {
		if s.Found && s.HasPackets {
			out[i] = &s.Packets
		}
	}
	return out, nil
}

func (b *BlockInfo) key() backend.Key {
	k := backend.Key{Prefix: b.Prefix, Log: b.Action == backend.Log.String()}
	if b.Target == backend.Destination.String() {
		k.Target = backend.Destination
	}
	return k
}
