package nft_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// host is the i-th address of a range the benchmarks' prefill does not use.
func host(i int) netip.Prefix {
	return backend.Host(netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}))
}

func filled(b *testing.B, n int) *nft.Backend {
	b.Helper()
	one := start(b, nft.Config{Counters: true})
	apply(b, one, backend.Change{Add: append(many(b, n), block(b, "192.0.2.1", backend.Drop))})
	return one
}

func BenchmarkAddOne(b *testing.B) {
	for _, n := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("beside=%d", n), func(b *testing.B) {
			one := filled(b, n)
			blk := block(b, "192.0.2.2", backend.Drop)
			for i := 0; b.Loop(); i++ {
				blk.Prefix = host(i)
				apply(b, one, backend.Change{Add: []backend.Block{blk}})
			}
		})
		b.Run(fmt.Sprintf("nft-program/beside=%d", n), func(b *testing.B) {
			nstest.Tool(b, "nft")
			filled(b, n)
			for i := 0; b.Loop(); i++ {
				element := fmt.Sprintf(`{ %s timeout 1h comment "NETCAP: x; @1700000000000" }`, host(i).Addr())
				if err := exec.CommandContext(b.Context(), "nft", "add", "element", "inet", "NETCAP", "drop_src4_32", element).Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			one := filled(b, n)
			for b.Loop() {
				if got, err := one.List(b.Context()); err != nil || len(got) != n+1 {
					b.Fatalf("listed %d blocks: %v", len(got), err)
				}
			}
		})
	}
}
