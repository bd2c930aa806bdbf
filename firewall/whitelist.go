package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// exempt reports whether a block of the key must not be made: all of its
// prefix is whitelisted, or protected and not forced. Needs m.mu.
func (m *Manager) exempt(k backend.Key, force bool) bool {
	if m.white.covers(k.Prefix) {
		return true
	}
	if force {
		return false
	}
	if m.protected.covers(k.Prefix) {
		return true
	}
	var both prefixSet[struct{}]
	for _, p := range append(m.white.within(k.Prefix), m.protected.within(k.Prefix)...) {
		both.set(p, struct{}{})
	}
	return both.covers(k.Prefix)
}

// allowed is the list of what the kernel lets through before any block: the
// whitelist, and the protected addresses except the ones that were blocked by
// force. fresh, if not nil, is a block about to be made, and gone the blocks
// about to leave. Needs m.mu.
func (m *Manager) allowed(fresh *entry, gone []backend.Block) *[]netip.Prefix {
	var forced []netip.Prefix
	leaving := make(map[backend.Key]bool, len(gone))
	for _, b := range gone {
		leaving[b.Key] = true
	}
	for k, e := range m.idx.blocks {
		if e.forced && !leaving[k] {
			forced = append(forced, k.Prefix)
		}
	}
	if fresh != nil && fresh.forced {
		forced = append(forced, fresh.Prefix)
	}
	list := m.white.keys()
	for _, p := range m.protected.keys() {
		undoes := func(f netip.Prefix) bool { return overlaps(f, p) }
		if !slices.ContainsFunc(forced, undoes) {
			list = append(list, p)
		}
	}
	return &list
}

// overlaps reports whether a forced block and a protected prefix meet such
// that the protection would undo the block.
func overlaps(forced, protected netip.Prefix) bool {
	return protected.Bits() <= forced.Bits() && protected.Contains(forced.Addr())
}

// Whitelist returns the whitelisted prefixes, in order. Protected addresses
// are not among them.
func (m *Manager) Whitelist() []netip.Prefix {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.white.keys()
}

// Protected says why an address or a prefix may not be blocked: "own address",
// "default gateway" ...; empty where nothing protects it. Whitelisted reports
// the whitelist.
func (m *Manager) Protected(p netip.Prefix) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, why, _ := m.protected.longest(p)
	return why
}

// Whitelisted reports whether all of the prefix is whitelisted.
func (m *Manager) Whitelisted(p netip.Prefix) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.white.covers(p)
}

// AddToWhitelist whitelists an address or a prefix. Blocks that lie wholly
// inside the whitelist then are lifted at once; larger ones get a hole.
func (m *Manager) AddToWhitelist(entry string) error {
	p, err := ParsePrefix(entry)
	if err != nil {
		m.count(&m.stats.errors)
		return fmt.Errorf("whitelist: %w", err)
	}
	return m.changeWhitelist(func() bool {
		_, had := m.white.get(p)
		m.white.set(p, struct{}{})
		return !had
	}, func() { m.white.remove(p) })
}

// RemoveFromWhitelist takes an entry off the whitelist, whatever its origin,
// until the next start; holes it made in blocks close at once. It reports
// ErrNotWhitelisted for a prefix that is no entry.
func (m *Manager) RemoveFromWhitelist(entry string) error {
	p, err := ParsePrefix(entry)
	if err != nil {
		m.count(&m.stats.errors)
		return fmt.Errorf("whitelist: %w", err)
	}
	found := false
	err = m.changeWhitelist(func() bool {
		found = m.white.remove(p)
		return found
	}, func() { m.white.set(p, struct{}{}) })
	if err == nil && !found {
		return fmt.Errorf("%v: %w", p, ErrNotWhitelisted)
	}
	return err
}

// changeWhitelist edits the whitelist and brings the kernel in step; if the
// kernel refuses, undo puts the list back.
func (m *Manager) changeWhitelist(edit func() bool, undo func()) error {
	m.kernel.Lock()
	events, err := m.editWhitelist(context.Background(), edit, undo)
	m.kernel.Unlock()
	m.emit(events)
	if err != nil {
		return fmt.Errorf("whitelist: %w", err)
	}
	return nil
}

func (m *Manager) editWhitelist(ctx context.Context, edit func() bool, undo func()) ([]Event, error) {
	if m.closed {
		return nil, ErrClosed
	}
	m.mu.Lock()
	if !edit() {
		m.mu.Unlock()
		return nil, nil
	}
	var change backend.Change
	for _, e := range m.idx.blocks {
		if m.exempt(e.Key, e.forced) {
			change.Remove = append(change.Remove, e.Block)
		}
	}
	change.Allow = m.allowed(nil, change.Remove)
	m.mu.Unlock()
	events, err := m.remove(ctx, change, ByWhitelist)
	if err != nil {
		m.mu.Lock()
		undo()
		m.mu.Unlock()
	}
	return events, err
}

// breaker refuses blocks that rules ask for when there are too many new ones
// in one minute: a flood with forged sources must not turn the guard into the
// attack. The zero breaker is ready for use.
type breaker struct {
	began time.Time
	n     int
}

func (b *breaker) allow(now time.Time, limit int) bool {
	if now.Sub(b.began) >= time.Minute {
		b.began, b.n = now, 0
	}
	if b.n >= limit {
		return false
	}
	b.n++
	return true
}

// admit asks the caps whether one more block may be made. Needs m.mu.
func (m *Manager) admit(req Request, now time.Time) error {
	if n := len(m.idx.blocks); n >= m.cfg.MaxActiveBlocks {
		m.warnOnceLocked("full", "no more blocks are made until some end", "active", n)
		m.stats.refused++
		return fmt.Errorf("%w: %d blocks are active, the most allowed", ErrRefused, n)
	}
	if req.ByRule && !m.breaker.allow(now, m.cfg.MaxNewPerMinute) {
		m.warnOnceLocked("breaker", "rules ask for too many new blocks: is a flood forging its sources?",
			"limit_per_minute", m.cfg.MaxNewPerMinute)
		m.stats.refused++
		return fmt.Errorf("%w: rules made %d new blocks within a minute, the most allowed", ErrRefused, m.cfg.MaxNewPerMinute)
	}
	return nil
}
