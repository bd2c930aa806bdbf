package iptables

import (
	"net/netip"
	"slices"
)

// family is what differs between IPv4 and IPv6.
type family struct {
	index       int
	label       string
	tool        string // the program's name without a variant
	host        string // what -S prints behind a single address
	reject      string // the kernel module that rejects
	unreachable string // the plain answer of a reject
	never       string // no packet has this address for its source and its destination
	guards      []int  // ICMP types that pass before any block
	legacyNames string // below /proc/net: the legacy tables of this namespace
}

const numFamilies = 2

// families is the family table, indexed by family.index.
func families() [numFamilies]family {
	return [numFamilies]family{
		{
			index: 0, label: "IPv4", tool: "iptables", host: "/32", reject: "ipt_REJECT",
			unreachable: "icmp-port-unreachable", never: "255.255.255.255",
			legacyNames: "ip_tables_names",
		},
		{
			// Router and neighbour solicitation and advertisement, redirect
			// (RFC 4861): without them a blocked host's router or neighbour
			// goes dark for everybody on the link.
			index: 1, label: "IPv6", tool: "ip6tables", host: "/128", reject: "ip6t_REJECT",
			unreachable: "icmp6-port-unreachable", never: "ff02::1",
			guards:      []int{133, 134, 135, 136, 137},
			legacyNames: "ip6_tables_names",
		},
	}
}

// familyOf is the index of an address's family.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// span is a closed range of addresses of one family.
type span struct{ from, to netip.Addr }

func (s span) String() string { return s.from.String() + "-" + s.to.String() }

// spanOf is a prefix's first and last address. The prefix is masked.
func spanOf(p netip.Prefix) span {
	b := p.Addr().AsSlice()
	for i := range b {
		if host := p.Bits() - 8*i; host < 8 {
			b[i] |= 0xff >> max(host, 0)
		}
	}
	to, _ := netip.AddrFromSlice(b)
	return span{from: p.Addr(), to: to}
}

// holes returns the parts of a prefix that the allow list lets through:
// sorted, neither overlapping nor touching one another. covered reports that
// nothing of the prefix is left.
func holes(p netip.Prefix, allow []netip.Prefix) (out []span, covered bool) {
	for _, a := range allow {
		switch {
		case !a.Overlaps(p): // also: the other family
		case a.Bits() <= p.Bits():
			return nil, true
		default:
			out = append(out, spanOf(a))
		}
	}
	out = merge(out)
	return out, len(out) == 1 && out[0] == spanOf(p)
}

// merge sorts spans and joins those that overlap or touch. It reuses the slice
// it is given.
func merge(in []span) []span {
	if len(in) == 0 {
		return nil
	}
	slices.SortFunc(in, func(a, b span) int { return a.from.Compare(b.from) })
	out := in[:1]
	for _, s := range in[1:] {
		last := &out[len(out)-1]
		// Next of the very last address is the zero Addr, which compares
		// below every other: that span swallows all that follow.
		if next := last.to.Next(); next.IsValid() && next.Less(s.from) {
			out = append(out, s)
		} else if last.to.Less(s.to) {
			last.to = s.to
		}
	}
	return out
}
