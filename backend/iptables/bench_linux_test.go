package iptables

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// many are n blocks of IPv4 hosts.
func many(n int, a backend.Action) []backend.Block {
	out := make([]backend.Block, 0, n)
	for i := range n {
		b := fresh("192.0.2.1", a)
		if a == backend.RateLimit {
			b.Limit = backend.Limit{Rate: 10, Per: time.Second, Burst: 5}
		}
		b.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		out = append(out, b)
	}
	return out
}

// BenchmarkApply is one block added and removed again, on a chain with others:
// three runs of a program, for the removal looks at the counters first.
func BenchmarkApply(b *testing.B) {
	eachSize(b, []int{0, 1000, 10_000}, func(b *testing.B, v string, n int) {
		be, _ := start(b, Config{Variant: v, IPv4: true})
		apply(b, be, add(many(n, backend.Drop)...))
		one := fresh("192.0.2.1", backend.Drop)
		for b.Loop() {
			apply(b, be, add(one))
			apply(b, be, remove(one))
		}
	})
}

// BenchmarkBulk is n blocks in one change, taken over by another process (with
// the memory that it then has), looked up, extended and flushed: medians.
func BenchmarkBulk(b *testing.B) {
	for _, a := range []backend.Action{backend.Drop, backend.RateLimit} {
		b.Run(a.String(), func(b *testing.B) {
			sizes := []int{1000, 10_000, 100_000}
			if a == backend.RateLimit {
				sizes = sizes[:2]
			}
			eachSize(b, sizes, func(b *testing.B, v string, n int) { bulk(b, v, many(n, a)) })
		})
	}
}

func bulk(b *testing.B, v string, all []backend.Block) {
	be, _ := start(b, Config{Variant: v, IPv4: true})
	took := map[string][]time.Duration{}
	timed := func(what string, f func() error) {
		begin := time.Now()
		if err := f(); err != nil {
			b.Fatal(what, err)
		}
		took[what] = append(took[what], time.Since(begin))
	}
	var heap uint64
	for b.Loop() {
		timed("add", func() error { return be.Apply(b.Context(), add(all...)) })
		next, _ := newBackend(b, Config{Variant: v, IPv4: true})
		before := inUseBytes()
		timed("adopt", func() error { return next.Init(b.Context()) })
		heap += inUseBytes() - before
		timed("lookup", func() error {
			_, err := next.Lookup(b.Context(), []backend.Key{all[0].Key})
			return err
		})
		longer := all
		for i := range longer {
			longer[i].ExpiresAt = longer[i].ExpiresAt.Add(time.Minute)
		}
		timed("extend", func() error { return next.Apply(b.Context(), add(longer...)) })
		timed("flush", func() error { return next.Flush(b.Context()) })
		be = next
	}
	for what, d := range took {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, what+"-ms")
	}
	b.ReportMetric(float64(heap)/float64(b.N)/float64(len(all)), "heap-B/block")
	b.ReportMetric(0, "ns/op")
}

// inUseBytes is what the program keeps.
func inUseBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// eachSize runs a benchmark with both variants and several sizes.
func eachSize(b *testing.B, sizes []int, f func(b *testing.B, v string, n int)) {
	for _, v := range variants() {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", v, n), func(b *testing.B) {
				ownLock(b)
				f(b, v, n)
			})
		}
	}
}
