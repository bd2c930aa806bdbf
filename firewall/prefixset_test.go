package firewall

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
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

// within must agree with looking at every prefix, also of clones that were
// changed since, and of whole families.
func TestPrefixSetWithin(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	prefix := func() netip.Prefix {
		if rng.IntN(3) == 0 {
			a := [16]byte{0x20, 1, 0xd, 0xb8, 15: byte(rng.IntN(8))}
			a[4] = byte(rng.IntN(2)) << 7
			return netip.PrefixFrom(netip.AddrFrom16(a), rng.IntN(129)).Masked()
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(rng.IntN(2)) << 7, byte(rng.IntN(16))}), rng.IntN(33)).Masked()
	}
	var sets [4]prefixSet[int]
	for step := range 20_000 {
		s := &sets[rng.IntN(len(sets))]
		switch n := rng.IntN(30); {
		case n < 3:
			s.set(prefix(), 0)
		case n < 5:
			s.remove(prefix())
		case n == 5:
			sets[rng.IntN(len(sets))] = s.clone()
		}
		p := prefix()
		var want []netip.Prefix
		for q := range s.m {
			if q.Bits() >= p.Bits() && p.Contains(q.Addr()) {
				want = append(want, q)
			}
		}
		slices.SortFunc(want, netip.Prefix.Compare)
		if got := s.within(p); !slices.Equal(got, want) {
			t.Fatalf("step %d: within %v are %v, want %v", step, p, got, want)
		}
	}
}

// BenchmarkExempt is the question whether a network may be blocked, beside a
// whitelist that lies elsewhere.
func BenchmarkExempt(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := &Manager{}
			for i := range n {
				m.white.all.set(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), nil)
			}
			k := backend.Key{Prefix: netip.MustParsePrefix("198.51.100.0/24")}
			for b.Loop() {
				if m.exempt(k, false) {
					b.Fatal("nothing of it is whitelisted")
				}
			}
		})
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
