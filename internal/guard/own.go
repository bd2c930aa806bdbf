package guard

import "net/netip"

// addresses is a set of addresses, immutable. It is asked twice for every
// packet: most of those that are not in it are told by one bit, and a short
// list is read faster than a map.
type addresses struct {
	last uint64 // the lowest six bits that occur, one bit each
	list []netip.Addr
	many map[netip.Addr]struct{} // nil while the list does
}

// shortList is how many addresses are compared one by one.
const shortList = 4

func newAddresses(set map[netip.Addr]struct{}) *addresses {
	s := &addresses{}
	for a := range set {
		s.last |= lastBits(a)
		s.list = append(s.list, a)
	}
	if len(s.list) > shortList {
		s.many = set
	}
	return s
}

func lastBits(a netip.Addr) uint64 {
	b := a.As16()
	return 1 << (b[15] & 63)
}

// has reports whether a is in the set.
func (s *addresses) has(a netip.Addr) bool {
	if s.last&lastBits(a) == 0 {
		return false
	}
	if s.many != nil {
		_, in := s.many[a]
		return in
	}
	for _, b := range s.list {
		if a == b {
			return true
		}
	}
	return false
}
