package nft

import (
	"net/netip"
	"slices"
)

// span is a range of addresses: from first up to but without end. Without an
// end (invalid) it reaches to the last address of the family.
type span struct {
	first, end netip.Addr
}

// spans turns prefixes, which may nest, overlap and repeat, into the fewest
// ranges that cover the same addresses of one family, in order. An interval
// set refuses anything that overlaps.
func spans(prefixes []netip.Prefix, v6 bool) []span {
	var mine []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().Is6() == v6 {
			mine = append(mine, p)
		}
	}
	slices.SortFunc(mine, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	var out []span
	for _, p := range mine {
		s := span{first: p.Addr(), end: after(p)}
		if len(out) == 0 {
			out = append(out, s)
			continue
		}
		last := &out[len(out)-1]
		switch {
		case !last.end.IsValid():
			return out
		case last.end.Less(s.first):
			out = append(out, s)
		case !s.end.IsValid() || last.end.Less(s.end):
			last.end = s.end
		}
	}
	return out
}

// after is the first address behind p, invalid where p reaches to the end of
// the family.
func after(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last.Next()
}
