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
	"github.com/netcap-guard/netcap-guard/internal/evidence"
)

// BenchmarkLiveWorker is the way of one live packet of the benchmark's traffic
// with the shipped rules, from the ring on, in processor time of the worker's
// thread, medians of interleaved rounds: with counters that others see after
// every packet, with such that are published in batches as live capture does
// it, and this with evidence kept:
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
	type way struct {
		name  string
		every int
		w     *worker
		took  []float64
	}
	ways := []*way{{name: "each-ns/packet", every: 1}, {name: "batches-ns/packet", every: publishEvery}, {name: "evidence-ns/packet", every: publishEvery}}
	for i, v := range ways {
		e := engine.New(rs, engine.Config{Forgeable: true})
		defer func() { _ = e.Close(b.Context()) }()
		s := newShared(e)
		if i == 2 {
			s.evidence = kept
		}
		v.w = newWorker(s)
	}
	packets := liveMix(20_000)
	span := packets[len(packets)-1].Time - packets[0].Time
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		for _, v := range ways {
			before := threadTime(b)
			for i := range packets {
				packets[i].Time += span
				v.w.take(&packets[i], 0)
				if v.w.tally.packets == uint64(v.every) {
					v.w.publish()
				}
			}
			v.took = append(v.took, float64(threadTime(b)-before)/float64(len(packets)))
		}
	}
	for _, v := range ways {
		slices.Sort(v.took)
		b.ReportMetric(v.took[len(v.took)/2], v.name)
	}
	b.ReportMetric(0, "ns/op")
}

// liveMix are packets of the benchmark's traffic.
func liveMix(n int) []capture.Packet {
	g := yardstick.New(1)
	out := make([]capture.Packet, n)
	for i := range out {
		data, at := g.Next()
		out[i] = capture.Packet{Data: slices.Clone(data), Time: at, Length: len(data), Link: capture.LinkEthernet, Iface: 2}
	}
	return out
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
