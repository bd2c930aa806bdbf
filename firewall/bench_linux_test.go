package firewall

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// nothing is a backend that takes everything: what is left is the Manager.
type nothing struct{ *backend.Memory }

func (nothing) Apply(context.Context, backend.Change) error { return nil }

// benchManager is a Manager on the kernel's nf_tables, on memory (as in a dry
// run), or on nothing.
func benchManager(b *testing.B, name string) *Manager {
	b.Helper()
	cfg := DefaultManagerConfig()
	cfg.Protect = hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true}
	open := (*Manager).open
	instead := map[string]backend.Backend{"nothing": nothing{backend.NewMemory(nil)}, "memory": backend.NewMemory(nil)}[name]
	if instead != nil {
		open = func(m *Manager, ctx context.Context) error {
			m.backend, m.cfg.MaxActiveBlocks = instead, maxBlocksNFT
			return m.backend.Init(ctx)
		}
	} else {
		cfg.Backend = name
	}
	m, err := newManager(cfg, open)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// benchRequest is the n-th of many blocks as a rule asks for them.
func benchRequest(n int) Request {
	a := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return Request{
		Prefix: backend.Host(a), Duration: time.Hour + time.Duration(n)*time.Millisecond,
		Rule: "Block SSH Brute Force", Reason: "50 in 10s",
	}
}

func benchFill(b *testing.B, m *Manager, n int) {
	b.Helper()
	reqs := make([]Request, n)
	for i := range reqs {
		reqs[i] = benchRequest(i)
	}
	for i, r := range m.BlockAll(b.Context(), reqs) {
		if r.Err != nil || r.Outcome != Created {
			b.Fatalf("block %d: %s, %v", i, r.Outcome, r.Err)
		}
	}
}

// BenchmarkBlock is one new block through the Manager, beside so many others.
// p50-us is the median, which a noisy machine does not move.
func BenchmarkBlock(b *testing.B) {
	for _, name := range []string{"nothing", "memory", BackendNFT} {
		for _, active := range []int{0, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", name, active), func(b *testing.B) {
				m := benchManager(b, name)
				benchFill(b, m, active)
				took := make([]time.Duration, 0, b.N)
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					began := time.Now()
					if _, err := m.Block(context.Background(), benchRequest(1<<20+i)); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
				}
				b.StopTimer()
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "p50-us")
				if err := m.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkBlockParallel is the same from many goroutines, which share changes.
func BenchmarkBlockParallel(b *testing.B) {
	for _, name := range []string{"nothing", BackendNFT} {
		b.Run(name, func(b *testing.B) {
			m := benchManager(b, name)
			var next atomic.Int64
			b.SetParallelism(32)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := m.Block(context.Background(), benchRequest(int(next.Add(1)))); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			if err := m.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// rss is the memory of this process that is in use, after what is free has
// gone back.
func rss(b *testing.B) float64 {
	b.Helper()
	debug.FreeOSMemory()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(data, []byte("VmRSS:"))
	kb, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
	if err != nil {
		b.Fatal(err)
	}
	return float64(kb) / 1024
}

// BenchmarkHundredThousand is the life of a Manager with 100,000 blocks: made
// in one go, held, adopted by the next one, closed.
func BenchmarkHundredThousand(b *testing.B) {
	const n = 100_000
	for _, name := range []string{"nothing", BackendNFT} {
		b.Run(name, func(b *testing.B) {
			var made, adopted, closed time.Duration
			var held, heldAdopted float64
			for range b.N {
				m := benchManager(b, name)
				idle := rss(b)
				began := time.Now()
				benchFill(b, m, n)
				made += time.Since(began)
				held += rss(b) - idle
				if name == BackendNFT {
					if err := m.Detach(); err != nil {
						b.Fatal(err)
					}
					m = nil
					idle = rss(b)
					began = time.Now()
					m = benchManager(b, name)
					adopted += time.Since(began)
					if got := m.Adopted(); got != n {
						b.Fatalf("adopted %d", got)
					}
					heldAdopted += rss(b) - idle
				}
				began = time.Now()
				if err := m.Close(); err != nil {
					b.Fatal(err)
				}
				closed += time.Since(began)
			}
			per := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
			b.ReportMetric(per(made), "make-ms")
			b.ReportMetric(per(adopted), "adopt-ms")
			b.ReportMetric(per(closed), "close-ms")
			b.ReportMetric(held/float64(b.N), "held-MB")
			b.ReportMetric(heldAdopted/float64(b.N), "adopted-MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}
