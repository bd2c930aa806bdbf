package guard

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestAddresses: the set says what the map says that it was made of, short or
// long, and of the invalid address, too.
func TestAddresses(t *testing.T) {
	t.Parallel()
	var all []netip.Addr
	for i := range 300 {
		all = append(all, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)))
	}
	all = append(all, netip.Addr{}, netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("fe80::1%eth0"))
	for _, n := range []int{0, 1, shortList, shortList + 1, 100} {
		set := map[netip.Addr]struct{}{}
		for _, a := range all[:n] {
			set[a] = struct{}{}
		}
		s := newAddresses(set)
		for _, a := range all {
			if _, want := set[a]; s.has(a) != want {
				t.Errorf("of %d addresses: %v is in the set: %v", n, a, !want)
			}
		}
	}
}
