package firewall

import (
	"context"
	"fmt"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// begin adopts what is there. What others do to it from then on is heard: they
// are listened to before the one look at the kernel that this takes.
func (m *Manager) begin(ctx context.Context) error {
	m.kernel.Lock()
	defer m.kernel.Unlock()
	if !m.cfg.DryRun && !m.cfg.Attach && !m.cfg.PacketTime {
		m.listen(ctx)
	}
	return m.adopt(ctx)
}

// adopt takes over what the kernel enforces already, removes what is due or
// meanwhile whitelisted, and tells the kernel what to let through.
func (m *Manager) adopt(ctx context.Context) error {
	found, err := m.backend.List(ctx)
	if err != nil {
		return fmt.Errorf("adopt blocks: %w", err)
	}
	now := m.now()
	var change backend.Change
	m.mu.Lock()
	texts := make(map[string]string)
	for _, b := range found {
		b = lasting(b, now)
		b.Rule = same(texts, b.Rule)
		e := &entry{Block: b, by: adopted}
		if lift := b.Expired(now) || m.exempt(b.Key, false); lift && !m.cfg.Attach {
			if b.Rule != ManualRule || b.Log || m.white.all.covers(b.Prefix) || b.Expired(now) {
				change.Remove = append(change.Remove, b)
				continue
			}
			e.forced = true
		}
		old := m.idx.get(b.Key)
		if old != nil && !m.cfg.Attach {
			// Two actions of one address: somebody made the second, or the earlier
			// process died between the two.
			weaker := b
			if b.Action.Stronger(old.Action) {
				weaker = old.Block
				m.idx.put(e)
			}
			change.Remove = append(change.Remove, weaker)
			continue
		}
		m.idx.put(e)
		m.stats.adopted++
	}
	if !m.cfg.Attach {
		change.Allow = m.allowed(nil, nil)
	}
	m.mu.Unlock()
	if change.Empty() {
		return nil
	}
	if err := m.backend.Apply(ctx, change); err != nil {
		return fmt.Errorf("adopt blocks: %w", err)
	}
	if n := len(found); n > 0 {
		m.log.Info("adopted blocks of an earlier run", "found", n, "lifted", len(change.Remove))
	}
	return nil
}

// lasting ties the end of a block that the kernel told us to the clock of now,
// so that it lasts as long as it does now, whatever becomes of the wall clock.
func lasting(b backend.Block, now time.Time) backend.Block {
	if !b.Permanent() {
		b.ExpiresAt = now.Add(b.ExpiresAt.Sub(now))
	}
	return b
}

// same returns a text from those seen before: many blocks have the same rule.
func same(seen map[string]string, s string) string {
	if t, ok := seen[s]; ok {
		return t
	}
	if len(seen) < 4096 {
		seen[s] = s
	}
	return s
}
