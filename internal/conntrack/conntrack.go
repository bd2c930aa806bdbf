// Package conntrack deletes entries of the kernel's connection tracking: what
// is left there of an address that was just blocked. Without it a connection
// that was established before the block goes on when the block has ended, and
// offloaded flows may pass a block by.
//
// An entry belongs to an address where any of its four ends does: source or
// destination, before or after NAT. That covers connections from the address
// and connections towards it alike: a source block stops the answers of the
// latter as well.
package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Sentinels of Kill and Probe.
var (
	// ErrUnsupported: this kernel or system has no connection tracking that
	// can be asked.
	ErrUnsupported = errors.New("connection tracking cannot be asked on this kernel (nf_conntrack_netlink)")
	// ErrPermission: CAP_NET_ADMIN is missing.
	ErrPermission = errors.New("permission denied (root or CAP_NET_ADMIN is needed)")
)

// Limit bounds how long one Kill may take.
const Limit = 5 * time.Second

// maxKept bounds the entries that a Kill keeps in memory at once: where there
// are more, it deletes those and reads the table again. The table itself holds
// 262,144 by default.
const maxKept = 1 << 20

// Kill deletes the entries of the calling thread's network namespace that
// belong to one of the prefixes (masked, as backend.Canonical leaves them) and
// says how many there were; none is a success. An entry one of whose ends is
// in a prefix and for which except says true there does not count; nil means
// that nothing is excepted. Kill reads the whole table of the prefixes'
// families: one call for many prefixes is better than many calls. It takes
// Limit at the most. An error wraps ErrUnsupported or ErrPermission where one
// fits; what was deleted before it is in the count.
//
// A table that nothing uses (no rule asks for the state of a connection, no
// NAT) is empty: the kernel tracks connections only in namespaces where
// something does (since Linux 4.10).
func Kill(ctx context.Context, prefixes []netip.Prefix, except func(netip.Addr) bool) (int, error) {
	if len(prefixes) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	m := newMatcher(prefixes, except)
	n, err := kill(ctx, m, maxKept)
	if err != nil {
		return n, fmt.Errorf("conntrack: %w", err)
	}
	return n, nil
}

// Probe says whether entries can be deleted here. Where connection tracking is
// a module that nobody has loaded, the kernel loads it.
func Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	if err := probe(ctx); err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	return nil
}

// matcher finds out whether an address is in one of many prefixes.
type matcher struct {
	// lengths are the prefixes by family (0 = IPv4) and length.
	lengths [2]map[int]map[netip.Prefix]struct{}
	except  func(netip.Addr) bool
}

func newMatcher(prefixes []netip.Prefix, except func(netip.Addr) bool) *matcher {
	m := &matcher{except: except}
	for _, p := range prefixes {
		f := familyOf(p.Addr())
		if m.lengths[f] == nil {
			m.lengths[f] = map[int]map[netip.Prefix]struct{}{}
		}
		if m.lengths[f][p.Bits()] == nil {
			m.lengths[f][p.Bits()] = map[netip.Prefix]struct{}{}
		}
		m.lengths[f][p.Bits()][p] = struct{}{}
	}
	return m
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (m *matcher) match(a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	for bits, set := range m.lengths[familyOf(a)] {
		p, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if _, ok := set[p]; ok {
			return m.except == nil || !m.except(a)
		}
	}
	return false
}

func (m *matcher) any(e *entry) bool {
	for _, a := range e.ends {
		if m.match(a) {
			return true
		}
	}
	return false
}
