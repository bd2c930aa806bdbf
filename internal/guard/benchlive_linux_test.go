package guard

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/evidence"
)

// BenchmarkLiveWorker is the way of one live packet of the benchmark's traffic
// with the shipped rules, from the ring on, in processor time of the worker's
// thread, medians of interleaved rounds: with counters that others see after
// every packet, with such that are published in batches as live capture does
// it, and this with evidence kept. Blocks are made in a firewall without a
// kernel:
//
//	go test -run '^$' -bench '^BenchmarkLiveWorker$' -benchtime 20x ./internal/guard
func BenchmarkLiveWorker(b *testing.B) {
	text, err := os.ReadFile(filepath.Join("..", "..", "configs", "firewall-rules.yml"))
	if err != nil {
		b.Fatal(err)
	}
	rs, report := engine.Load(engine.Bytes("shipped", text))
	if err := report.Err(); err != nil {
		b.Fatal(err)
	}
	kept, err := evidence.Open(evidence.Config{Directory: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = kept.Close(b.Context()) }()
	ways := []*liveWay{{name: "each-ns/packet", every: 1}, {name: "batches-ns/packet", every: publishEvery}, {name: "evidence-ns/packet", every: publishEvery}}
	for i, v := range ways {
		m, err := firewall.NewManager(&firewall.ManagerConfig{DryRun: true})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = m.Close() }()
		e := engine.New(rs, engine.Config{Forgeable: true})
		defer func() { _ = e.Close(b.Context()) }()
		e.SetFirewallManager(m)
		s := newShared(e)
		if i == 2 {
			s.evidence = kept
		}
		v.w = newWorker(s)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for round := uint64(1); b.Loop(); round++ {
		for _, v := range ways {
			v.took = append(v.took, v.round(b, round))
		}
	}
	for _, v := range ways {
		slices.Sort(v.took)
		b.ReportMetric(v.took[len(v.took)/2], v.name)
	}
	b.ReportMetric(0, "ns/op")
}

// liveWay is one way of a packet; round is its nanoseconds a packet on the
// traffic of a seed.
type liveWay struct {
	name  string
	every int
	w     *worker
	took  []float64
}

func (v *liveWay) round(b *testing.B, seed uint64) float64 {
	const packets = 200_000
	mix, sum, n := newLiveMix(seed), time.Duration(0), 0
	for n < packets {
		block := mix.block()
		before := threadTime(b)
		for j := range block {
			v.w.take(&block[j], 0)
			if v.w.tally.packets == uint64(v.every) {
				v.w.publish()
			}
		}
		sum += threadTime(b) - before
		n += len(block)
	}
	return float64(sum) / float64(n)
}

// liveMix is the benchmark's traffic in blocks, as a ring hands it over; no
// packet comes twice.
type liveMix struct {
	g       *yardstick.Generator
	later   int64 // than the traffic of the seed before
	mem     []byte
	packets []capture.Packet
}

func newLiveMix(seed uint64) *liveMix {
	const blockBytes = 128 << 10
	return &liveMix{g: yardstick.New(seed), later: int64(seed) * int64(time.Minute), mem: make([]byte, 0, blockBytes)}
}

// block is good until the next call.
func (m *liveMix) block() []capture.Packet {
	const largest = 2048
	m.mem, m.packets = m.mem[:0], m.packets[:0]
	for cap(m.mem)-len(m.mem) >= largest {
		data, at := m.g.Next()
		start := len(m.mem)
		m.mem = append(m.mem, data...)
		m.packets = append(m.packets, capture.Packet{
			Data: m.mem[start:], Time: at + m.later, Length: len(data), Link: capture.LinkEthernet, Iface: 2,
		})
	}
	return m.packets
}

// threadTime is the processor time of this thread: other programs on a busy
// machine do not count.
func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}
