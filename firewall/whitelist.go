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
// prefix is whitelisted, or protected and not forced. A kernel log rule would
// never see the packets of such an address, which pass in front of it, and
// cannot be forced: that would open the protection to blocks around the
// address. Needs m.mu.
func (m *Manager) exempt(k backend.Key, force bool) bool {
	if m.white.all.covers(k.Prefix) {
		return true
	}
	if force && !k.Log {
		return false
	}
	if m.protected.covers(k.Prefix) {
		return true
	}
	if k.Prefix.IsSingleIP() {
		return false // it has no parts
	}
	white, protected := m.white.all.within(k.Prefix), m.protected.within(k.Prefix)
	if len(white) == 0 || len(protected) == 0 {
		return false // neither of them alone is all of it
	}
	return tiles(k.Prefix, slices.Concat(white, protected))
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
	list := m.white.all.keys()
	for _, p := range m.protected.keys() {
		list = append(list, without(p, forced)...)
	}
	return &list
}

// protectAgain lets protected addresses through again that blocks had pierced
// by force, where such blocks have left the kernel in another way than by a
// change of ours (see closing). It runs with m.kernel held.
func (m *Manager) protectAgain(ctx context.Context, forced bool) error {
	if !forced {
		return nil
	}
	m.mu.RLock()
	allow := m.allowed(nil, nil)
	m.mu.RUnlock()
	if err := m.backend.Apply(ctx, backend.Change{Allow: allow}); err != nil {
		return fmt.Errorf("let protected addresses through again: %w", err)
	}
	return nil
}

// without is what is left of a protected prefix when the forced ones inside it
// are cut out. A forced prefix that is larger cuts nothing out: somebody who
// blocks a network does not mean the gateway in it.
func without(p netip.Prefix, forced []netip.Prefix) []netip.Prefix {
	var inside []netip.Prefix
	for _, f := range forced {
		if f == p {
			return nil
		}
		if f.Bits() > p.Bits() && p.Contains(f.Addr()) {
			inside = append(inside, f)
		}
	}
	if inside == nil {
		return []netip.Prefix{p}
	}
	low, high := halves(p)
	return append(without(low, inside), without(high, inside)...)
}

// letThrough reports whether the kernel lets a host pass in front of every
// block: it answers for a single address what allowed lists. Needs m.mu.
func (m *Manager) letThrough(host netip.Prefix, now time.Time) bool {
	if _, _, ok := m.white.all.longest(host); ok {
		return true
	}
	open := false
	m.protected.containing(host, func(p netip.Prefix, _ string) bool {
		open = !m.pierced(p, host, now)
		return !open
	})
	return open
}

// pierced reports whether a block by force inside the protected prefix holds
// the host. Needs m.mu.
func (m *Manager) pierced(protected, host netip.Prefix, now time.Time) bool {
	found := false
	for t := range m.idx.lengths {
		m.idx.containing(backend.Target(t), host, func(e *entry) bool {
			found = found || e.Prefix.Bits() >= protected.Bits() && e.forced && !e.Expired(now)
			return !found && e.Prefix.Bits() >= protected.Bits()
		})
	}
	return found
}

// Origins of whitelist entries. Others are named by who makes them, with
// SetWhitelist.
const (
	OriginConfig = "configuration" // ManagerConfig.Whitelist
	OriginAPI    = "manual"        // AddToWhitelist
)

// whitelist is the set of prefixes that are never blocked, each with its
// origins: an entry stays until its last origin is gone.
type whitelist struct {
	all prefixSet[[]string] // origins, in the order in which they came
	// lifted were removed by hand: no origin brings them back before the next
	// start.
	lifted prefixSet[struct{}]
}

// add enters a prefix and reports whether it is new to the set.
func (w *whitelist) add(origin string, p netip.Prefix) bool {
	origins, had := w.all.get(p)
	if !slices.Contains(origins, origin) {
		w.all.set(p, append(slices.Clone(origins), origin))
	}
	return !had
}

// drop takes an origin off a prefix and reports whether the prefix left the
// set.
func (w *whitelist) drop(origin string, p netip.Prefix) bool {
	origins, _ := w.all.get(p)
	if !slices.Contains(origins, origin) {
		return false
	}
	rest := slices.DeleteFunc(slices.Clone(origins), func(o string) bool { return o == origin })
	if len(rest) > 0 {
		w.all.set(p, rest)
		return false
	}
	return w.all.remove(p)
}

// replace makes the origin's entries exactly these and reports whether the
// set changed.
func (w *whitelist) replace(origin string, prefixes []netip.Prefix) bool {
	changed := false
	for _, p := range w.all.keys() {
		if !slices.Contains(prefixes, p) {
			changed = w.drop(origin, p) || changed
		}
	}
	for _, p := range prefixes {
		if _, by := w.lifted.get(p); !by {
			changed = w.add(origin, p) || changed
		}
	}
	return changed
}

// clone copies the whitelist, for undoing an edit.
func (w *whitelist) clone() whitelist {
	return whitelist{all: w.all.clone(), lifted: w.lifted.clone()}
}

// WhitelistEntry is one entry of the whitelist and where it comes from.
type WhitelistEntry struct {
	Prefix  netip.Prefix
	Origins []string
}

// Whitelist returns the whitelist, in order of the prefixes. Protected
// addresses are not in it.
func (m *Manager) Whitelist() []WhitelistEntry {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []WhitelistEntry
	for _, p := range m.white.all.keys() {
		origins, _ := m.white.all.get(p)
		out = append(out, WhitelistEntry{p, slices.Clone(origins)})
	}
	return out
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
	return m.white.all.covers(p)
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
		m.white.lifted.remove(p)
		return m.white.add(OriginAPI, p)
	})
}

// SetWhitelist makes the entries of one origin exactly these prefixes (in any
// form); those of other origins stay. What was removed by hand stays removed.
func (m *Manager) SetWhitelist(origin string, prefixes []netip.Prefix) error {
	list := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		var err error
		if list[i], err = backend.Canonical(p); err != nil {
			m.count(&m.stats.errors)
			return fmt.Errorf("whitelist: %w", err)
		}
	}
	return m.changeWhitelist(func() bool { return m.white.replace(origin, list) })
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
		if found = m.white.all.remove(p); found {
			m.white.lifted.set(p, struct{}{})
		}
		return found
	})
	if err == nil && !found {
		return fmt.Errorf("%v: %w", p, ErrNotWhitelisted)
	}
	return err
}

// changeWhitelist edits the whitelist and brings the kernel in step; if the
// kernel refuses, the list stays as it was.
func (m *Manager) changeWhitelist(edit func() bool) error {
	m.kernel.Lock()
	m.mu.RLock()
	before := m.white.clone()
	m.mu.RUnlock()
	events, err := m.editWhitelist(context.Background(), edit, func() { m.white = before })
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
	ended := m.expireAll(ctx, m.now()) // what is over was not lifted
	m.mu.Lock()
	if !edit() {
		m.mu.Unlock()
		return ended, nil
	}
	var change backend.Change
	for _, e := range m.idx.blocks {
		if m.exempt(e.Key, e.forced) {
			change.Remove = append(change.Remove, e.Block)
		}
	}
	change.Allow = m.allowed(nil, change.Remove)
	m.publish()
	m.mu.Unlock()
	events, err := m.remove(ctx, change, ByWhitelist)
	if err != nil {
		m.mu.Lock()
		undo()
		m.publish()
		m.mu.Unlock()
	}
	return append(ended, events...), err
}
