package firewall

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// covers must agree with looking at every single address, on random sets of
// prefixes inside one /24.
func TestPrefixSetCoversEveryAddress(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var s prefixSet[int]
		for range 1 + rng.IntN(12) {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(256))})
			s.set(netip.PrefixFrom(a, 25+rng.IntN(8)).Masked(), 0)
		}
		probe := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(256))}), 24+rng.IntN(9)).Masked()
		want := true
		for a := probe.Addr(); probe.Contains(a); a = a.Next() {
			if _, _, ok := s.longest(netip.PrefixFrom(a, 32)); !ok {
				want = false
				break
			}
		}
		if got := s.covers(probe); got != want {
			t.Fatalf("%v covers %v: %v, want %v", s.keys(), probe, got, want)
		}
	}
}

func TestPrefixSetLongest(t *testing.T) {
	var s prefixSet[string]
	for _, p := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "::/0", "2001:db8::/32"} {
		s.set(netip.MustParsePrefix(p), p)
	}
	for in, want := range map[string]string{
		"10.1.2.3/32": "10.1.2.0/24", "10.1.9.0/24": "10.1.0.0/16", "10.9.9.9/32": "10.0.0.0/8",
		"11.0.0.0/8": "", "0.0.0.0/0": "", "2001:db8::1/128": "2001:db8::/32", "fe80::1/128": "::/0",
	} {
		_, got, ok := s.longest(netip.MustParsePrefix(in))
		if got != want || ok != (want != "") {
			t.Errorf("longest(%s) = %q, want %q", in, got, want)
		}
	}
	if !s.remove(netip.MustParsePrefix("10.1.0.0/16")) || s.remove(netip.MustParsePrefix("10.1.0.0/16")) {
		t.Error("remove does not say what was there")
	}
	if _, got, _ := s.longest(netip.MustParsePrefix("10.1.9.0/24")); got != "10.0.0.0/8" {
		t.Errorf("after remove: %q", got)
	}
}
