package firewall

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// prefixSet is a set of canonical prefixes that may nest, with a value each.
// A lookup costs one map access for each prefix length in use, whatever the
// number of prefixes; the prefixes inside another are found by halving. It may
// be read from several goroutines at once while nobody changes it. A copy that
// is changed must be a clone.
type prefixSet[V any] struct {
	m map[netip.Prefix]V
	// count holds how many prefixes of a family (IPv4, IPv6) have a length.
	count [2][129]int
	// sorted is shared with clones until one of them changes.
	sorted *order
}

// order is the prefixes of a set in their order, made when they are first asked
// for: whoever changes a set often and asks rarely does not pay for it.
type order struct {
	once sync.Once
	list []netip.Prefix
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
		s.sorted = &order{}
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
	s.sorted = &order{}
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
// included, in order. The slice is the set's: nobody may change it.
func (s *prefixSet[V]) within(p netip.Prefix) []netip.Prefix {
	list := s.inOrder()
	// In the order of first addresses, the shorter prefix before the longer one,
	// what lies inside p follows it without a gap.
	from, _ := slices.BinarySearchFunc(list, p, netip.Prefix.Compare)
	n, _ := slices.BinarySearchFunc(list[from:], p, func(q, p netip.Prefix) int {
		if p.Contains(q.Addr()) {
			return -1
		}
		return 1
	})
	return list[from : from+n : from+n]
}

// inOrder is every prefix in order. The slice is the set's.
func (s *prefixSet[V]) inOrder() []netip.Prefix {
	if s.sorted == nil {
		return nil
	}
	s.sorted.once.Do(func() {
		s.sorted.list = slices.SortedFunc(maps.Keys(s.m), netip.Prefix.Compare)
	})
	return s.sorted.list
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

// keys is every prefix in order. The caller owns the slice.
func (s *prefixSet[V]) keys() []netip.Prefix { return slices.Clone(s.inOrder()) }

func (s *prefixSet[V]) clone() prefixSet[V] {
	return prefixSet[V]{m: maps.Clone(s.m), count: s.count, sorted: s.sorted}
}
