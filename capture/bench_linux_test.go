package capture_test

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
)

// BenchmarkNext takes packets that are in the ring already.
func BenchmarkNext(b *testing.B) {
	left, right := pair(b)
	const packets = 50_000
	frames := make([][]byte, packets)
	g := yardstick.New(1)
	for i := range frames {
		data, _ := g.Next()
		frames[i] = append([]byte(nil), data...)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	total, spent := 0, time.Duration(0)
	for b.Loop() {
		src := openLive(b, capture.LiveConfig{Interface: right})
		blast(b, left, frames...)
		before := threadTime(b)
		for p := (capture.Packet{}); total%packets != packets-1; total++ {
			if err := src.Next(&p); err != nil {
				b.Fatal(err)
			}
		}
		total++
		spent += threadTime(b) - before
		if err := src.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(total), "cpu-ns/packet")
}

// threadTime is the processor time of this thread: other programs on a busy
// machine do not count.
func threadTime(b *testing.B) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}
