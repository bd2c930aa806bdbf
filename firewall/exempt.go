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

// Revision counts what makes earlier answers of Block void: blocks that were
// lifted before their end, by whomever, ends that others changed, damage that is
// put right, and changes of what is whitelisted or protected. While it is the
// same, a block that was in force is in force until its end, and who could be
// blocked still can. Read it before Block: what is lifted afterwards is counted.
// It is for every packet, as Exempt is.
func (m *Manager) Revision() uint64 { return m.revision.Load() }

// revise makes earlier answers void. With m.kernel held, it comes before the
// change of ours that is its reason, or as soon as one by others is known: a
// Block that was asked for after a look at the new number meets the change.
func (m *Manager) revise() { m.revision.Add(1) }

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
