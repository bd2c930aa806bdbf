package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

const (
	liveRounds = 5
	// liveTime is how long a round sends at the best rate.
	liveTime = time.Second
	// liveFrames is how many different ones: traffic that repeats itself opens
	// every connection again and again, and forges the same sources.
	liveFrames = 250_000
)

// receiver is one way to take packets off an interface.
type receiver struct {
	name string
	// start takes packets of the namespace's eth0.
	start func(b *testing.B, w wire) running
	seen  []taken
}

// running is a receiver at work.
type running struct {
	// cpu is the processor time that it has taken so far, once it has nothing
	// to do any more.
	cpu func() time.Duration
	// stop ends it, after waiting for what is on its way, and returns what it
	// took of all that was sent, cpu aside.
	stop func(sent uint64) taken
}

// taken is what a receiver took in one round.
type taken struct {
	received, lost, sent uint64
	cpu                  time.Duration // a packet
	rate                 float64       // of the sender, packets a second
	resident             int           // KB, 0 = not measured
}

// BenchmarkLive prints what live capture costs, and what it loses, beside two
// other programs on the same traffic, in turns; and how soon a source is
// blocked:
//
//	go test -run '^$' -bench '^BenchmarkLive$' -benchtime 1x ./integration/netns
func BenchmarkLive(b *testing.B) {
	shipped, err := filepath.Abs("../../configs/firewall-rules.yml")
	must(b, err)
	scans := filepath.Join(b.TempDir(), "rules.yml")
	must(b, os.WriteFile(scans, []byte("- {name: scan, type: TCP, expression: SYN && !ACK && PayloadSize == 0, threshold: 50}\n"+
		"- {name: ssh, type: TCP, expression: DstPort == 22 && SYN && !ACK, threshold: 10}\n"), 0o644))
	receivers := []*receiver{
		{name: "guard, shipped rules", start: startedGuard(shipped, "1")},
		{name: "guard, shipped rules, 2 workers", start: startedGuard(shipped, "2")},
		{name: "guard, two rules on SYNs (filtered)", start: startedGuard(scans, "1")},
		{name: "pcapgo.EthernetHandle, nothing done", start: startedHandle},
		{name: "tcpdump -w /dev/null", start: startedDump},
	}
	frames := mixedFrames(liveFrames)
	w := newWire(b)
	for b.Loop() {
		for range liveRounds {
			for _, r := range receivers {
				r.round(b, w, frames)
			}
		}
	}
	text := fmt.Sprintf("benchmark mix over a veth pair at the sender's best rate, medians of %d interleaved rounds\n", liveRounds)
	for _, r := range receivers {
		text += r.line()
	}
	b.Log(text)
	b.ReportMetric(0, "ns/op")
}

// mixedFrames are frames of the benchmark's traffic.
func mixedFrames(n int) [][]byte {
	g := yardstick.New(1)
	out := make([][]byte, n)
	var mem []byte // of many frames: half a million objects would keep the collector busy
	for i := range out {
		data, _ := g.Next()
		if cap(mem)-len(mem) < len(data) {
			mem = make([]byte, 0, 1<<20)
		}
		start := len(mem)
		mem = append(mem, data...)
		out[i] = mem[start:len(mem):len(mem)]
	}
	return out
}

// round sends twice as long as it measures: the first packets find tables that
// have no memory yet, and a guard runs for longer than a second.
func (r *receiver) round(b *testing.B, w wire, frames [][]byte) {
	b.Helper()
	s := w.sender(b)
	sent := uint64(0)
	send := func() (uint64, float64) {
		before, at := sent, time.Now()
		for time.Since(at) < liveTime {
			const some = 2500
			next := frames[sent%uint64(len(frames)):][:some]
			must(b, s.Send(next...))
			sent += uint64(len(next))
		}
		return sent - before, float64(sent-before) / time.Since(at).Seconds()
	}
	receiver := r.start(b, w)
	send()
	before := receiver.cpu()
	measured, rate := send()
	cpu := receiver.cpu() - before
	seen := receiver.stop(sent)
	seen.sent, seen.rate = sent, rate
	seen.cpu = time.Duration(float64(cpu) / (float64(measured) * float64(seen.received) / float64(sent)))
	r.seen = append(r.seen, seen)
}

// line sums the rounds up.
func (r *receiver) line() string {
	of := func(value func(taken) float64) float64 {
		var all []float64
		for _, s := range r.seen {
			all = append(all, value(s))
		}
		return middle(all)
	}
	line := fmt.Sprintf("  %-36s sent %5.2f M/s   lost %5.1f %%   CPU %6.0f ns a packet", r.name,
		of(func(s taken) float64 { return s.rate / 1e6 }),
		of(func(s taken) float64 { return 100 * (1 - float64(s.received)/float64(s.sent)) }),
		of(func(s taken) float64 { return float64(s.cpu) }))
	if rss := of(func(s taken) float64 { return float64(s.resident) }); rss > 0 {
		line += fmt.Sprintf("   RSS %3.0f MiB", rss/1024)
	}
	return line + "\n"
}

// startedGuard is a guard with the rules. What its filter hides is not lost:
// received is then what was sent, less what the kernel says it dropped.
func startedGuard(rules, workers string) func(*testing.B, wire) running {
	return func(b *testing.B, w wire) running {
		b.Helper()
		config := filepath.Join(b.TempDir(), "config.yaml")
		must(b, os.WriteFile(config, fmt.Appendf(nil, "control: %s\nwhitelist_dir: %s\n", filepath.Join(b.TempDir(), "s"), b.TempDir()), 0o644))
		flags := []string{"-i", "eth0", "--rules", rules, "--config", config, "--workers", workers}
		p, err := netlab.Start(w.to.Command(b.Context(), guardBinary(), append(flags, "--events", filepath.Join(b.TempDir(), "events"))...))
		must(b, err)
		b.Cleanup(p.Kill)
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		defer cancel()
		_, err = p.Await(ctx, func(l netlab.Line) bool { return l.Stderr && strings.HasPrefix(l.Text, "guarding ") })
		must(b, err)
		stop := func(sent uint64) taken {
			out, err := w.to.Exec(b.Context(), guardBinary(), "stats", "-o", "json", "--config", config)
			must(b, err)
			counted := regexp.MustCompile(`"capture":\{"received":(\d+),"dropped":(\d+)`).FindStringSubmatch(out)
			if counted == nil {
				b.Fatalf("no counters in %s", out)
			}
			lost, err := strconv.ParseUint(counted[2], 10, 64)
			must(b, err)
			t := taken{received: sent - min(lost, sent), lost: lost, resident: residentOf(b, p.PID())}
			must(b, p.Stop(b.Context()))
			return t
		}
		return running{cpu: func() time.Duration { return idle(b, p.PID()) }, stop: stop}
	}
}

// startedDump is tcpdump, which throws away what it reads.
func startedDump(b *testing.B, w wire) running {
	b.Helper()
	nstest.Tool(b, "tcpdump")
	p, err := netlab.Start(w.to.Command(b.Context(), "tcpdump", "-i", "eth0", "-n", "-w", "/dev/null"))
	must(b, err)
	b.Cleanup(p.Kill)
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	_, err = p.Await(ctx, func(l netlab.Line) bool { return strings.Contains(l.Text, "listening on") })
	must(b, err)
	stop := func(uint64) taken {
		var t taken
		_ = p.Stop(b.Context()) // some versions end with an error code
		for _, l := range p.Lines() {
			for text, into := range map[string]*uint64{" packets captured": &t.received, " packets dropped by kernel": &t.lost} {
				if number, ok := strings.CutSuffix(l.Text, text); ok {
					*into, err = strconv.ParseUint(number, 10, 64)
					must(b, err)
				}
			}
		}
		return t
	}
	return running{cpu: func() time.Duration { return idle(b, p.PID()) }, stop: stop}
}

// startedHandle reads with gopacket's own socket and does nothing else.
func startedHandle(b *testing.B, w wire) running {
	b.Helper()
	var h *pcapgo.EthernetHandle
	must(b, w.to.Do(func() (err error) {
		h, err = pcapgo.NewEthernetHandle("eth0")
		return err
	}))
	var got atomic.Uint64
	thread := make(chan int, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread <- unix.Gettid()
		for {
			if _, _, err := h.ZeroCopyReadPacketData(); err != nil {
				return
			}
			got.Add(1)
		}
	})
	path := fmt.Sprintf("/proc/self/task/%d/schedstat", <-thread)
	return running{
		cpu: func() time.Duration {
			for last := uint64(1); got.Load() != last; {
				last = got.Load()
				<-time.After(100 * time.Millisecond)
			}
			return ranFor(b, path)
		},
		stop: func(uint64) taken {
			h.Close()
			w.send(b, []byte(strings.Repeat("x", 60))) // its read sees only a packet that the socket is closed
			reading.Wait()
			return taken{received: got.Load()}
		},
	}
}

// cpuTime is what all threads of a process have run so far.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	must(b, err)
	var sum time.Duration
	for _, path := range tasks {
		sum += ranFor(b, path)
	}
	return sum
}

// ranFor is what the thread with this schedstat has run; 0 when it has ended.
func ranFor(b *testing.B, path string) time.Duration {
	b.Helper()
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0
	}
	must(b, err)
	ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
	must(b, err)
	return time.Duration(ns)
}

// idle waits until a process has nothing to do any more and returns its cpuTime.
func idle(b *testing.B, pid int) time.Duration {
	b.Helper()
	const rest, little = 200 * time.Millisecond, 10 * time.Millisecond
	for last := time.Duration(-1); ; <-time.After(rest) {
		now := cpuTime(b, pid)
		if last >= 0 && now-last < little {
			return now
		}
		last = now
	}
}

func residentOf(b *testing.B, pid int) int {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(b, err)
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	must(b, err)
	return kb
}
