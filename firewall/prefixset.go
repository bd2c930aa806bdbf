package firewall

import (
	"maps"
	"net/netip"
	"slices"
)

// prefixSet is a set of canonical prefixes that may nest, with a value each.
// A lookup costs one map access for each prefix length in use, whatever the
// number of prefixes.
type prefixSet[V any] struct {
	m map[netip.Prefix]V
	// count holds how many prefixes of a family (IPv4, IPv6) have a length.
	count [2][129]int
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (s *prefixSet[V]) set(p netip.Prefix, v V) {
	if s.m == nil {
		s.m = make(map[netip.Prefix]V)
	}
	if _, ok := s.m[p]; !ok {
		s.count[familyOf(p.Addr())][p.Bits()]++
	}
	s.m[p] = v
}

func (s *prefixSet[V]) get(p netip.Prefix) (V, bool) {
	v, ok := s.m[p]
	return v, ok
}

func (s *prefixSet[V]) remove(p netip.Prefix) bool {
	if _, ok := s.m[p]; !ok {
		return false
	}
	delete(s.m, p)
	s.count[familyOf(p.Addr())][p.Bits()]--
	return true
}

// containing calls f for each prefix of the set that contains all of p, from
// the longest to the shortest, until f returns false.
func (s *prefixSet[V]) containing(p netip.Prefix, f func(netip.Prefix, V) bool) {
	counts := &s.count[familyOf(p.Addr())]
	for bits := p.Bits(); bits >= 0; bits-- {
		if counts[bits] == 0 {
			continue
		}
		outer := netip.PrefixFrom(p.Addr(), bits).Masked()
		if v, ok := s.m[outer]; ok && !f(outer, v) {
			return
		}
	}
}

// longest returns the longest prefix of the set that contains all of p.
func (s *prefixSet[V]) longest(p netip.Prefix) (outer netip.Prefix, v V, ok bool) {
	s.containing(p, func(o netip.Prefix, ov V) bool {
		outer, v, ok = o, ov, true
		return false
	})
	return outer, v, ok
}

// within lists the prefixes of the set that lie wholly inside p, p itself
// included, in order. It reads the whole set.
func (s *prefixSet[V]) within(p netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for q := range s.m {
		if q.Bits() >= p.Bits() && p.Contains(q.Addr()) {
			out = append(out, q)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// covers reports whether the set's prefixes together contain every address of
// p: one of them does, or the ones inside p leave no gap.
func (s *prefixSet[V]) covers(p netip.Prefix) bool {
	if _, _, ok := s.longest(p); ok {
		return true
	}
	return !p.IsSingleIP() && tiles(p, s.within(p))
}

// halves cuts a prefix of more than one address in two.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	upper, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(p.Addr(), p.Bits()+1), netip.PrefixFrom(upper, p.Bits()+1)
}

// tiles reports whether the prefixes, all inside p, leave no address of it out.
func tiles(p netip.Prefix, inside []netip.Prefix) bool {
	if len(inside) == 0 {
		return false
	}
	if slices.Contains(inside, p) {
		return true
	}
	low, high := halves(p)
	var left, right []netip.Prefix
	for _, q := range inside {
		if low.Contains(q.Addr()) {
			left = append(left, q)
		} else {
			right = append(right, q)
		}
	}
	if len(left) == 0 || len(right) == 0 {
		return false
	}
	return tiles(low, left) && tiles(high, right)
}

func (s *prefixSet[V]) keys() []netip.Prefix {
	out := make([]netip.Prefix, 0, len(s.m))
	for p := range s.m {
		out = append(out, p)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

func (s *prefixSet[V]) clone() prefixSet[V] {
	return prefixSet[V]{m: maps.Clone(s.m), count: s.count}
}
