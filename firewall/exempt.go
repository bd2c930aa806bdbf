package firewall

import "net/netip"

// exempted are the addresses that must not be blocked, as packets ask for them:
// a copy that nobody changes, so that no packet waits for who changes the lists.
type exempted struct {
	white     prefixSet[[]string]
	protected prefixSet[string]
}

// publish has Exempt answer by the lists of now. Needs m.mu.
func (m *Manager) publish() {
	// setProtected replaces the protected addresses and never edits them.
	m.exempted.Store(&exempted{white: m.white.all.clone(), protected: m.protected})
}

// Exempt reports whether an address is whitelisted or protected. It is for every
// packet: it takes no lock and allocates nothing.
func (m *Manager) Exempt(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return false
	}
	p, x := netip.PrefixFrom(a, a.BitLen()), m.exempted.Load()
	if _, _, ok := x.white.longest(p); ok {
		return true
	}
	_, _, ok := x.protected.longest(p)
	return ok
}
