package yardstick_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/record"
)

// TestRulesAreNative: no generated rule needs the expression VM, none is
// warned of but for what its record type lacks, and 1,000 of them load.
func TestRulesAreNative(t *testing.T) {
	rs, report := engine.Load(engine.Bytes("rules.yml", []byte(yardstick.Rules(1000))))
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	if n := len(rs.Rules()); n != 1000 {
		t.Errorf("%d rules", n)
	}
	for _, r := range rs.Rules() {
		if !r.Native() || !r.Runs() {
			t.Errorf("%s: native %v, runs %v: %s", r.Name, r.Native(), r.Runs(), r.Expression)
		}
	}
}

// TestRulesCountTheSame: on the yardstick's own packets the three ways of
// evaluation count the same for every rule.
func TestRulesCountTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "yardstick.pcap")
	writeFile(t, path, 20_000)
	var want map[string]engine.RuleStats
	for _, way := range []engine.Evaluation{engine.EvaluateVM, engine.EvaluateNative, engine.EvaluateIndexed} {
		p := newPipeline(t, yardstick.Rules(200), way)
		if err := p.replay(path); err != nil {
			t.Fatal(err)
		}
		got := p.engine.Stats().Rules
		if want == nil {
			want = got
			if want["rule 0"].Matches == 0 || want["rule 4"].Matches == 0 {
				t.Errorf("the first rules match nothing: %+v", want)
			}
			continue
		}
		for name, s := range want {
			if g := got[name]; g.Matches != s.Matches || g.Alerts != s.Alerts || g.Errors != s.Errors {
				t.Errorf("way %d, %s: %+v, the VM counts %+v", way, name, g, s)
			}
		}
	}
}

// pipeline is reader, decoder and rules, in this process.
type pipeline struct {
	engine *engine.Engine
	worker *engine.Worker
	dec    *decode.Decoder
}

func newPipeline(tb testing.TB, rules string, way engine.Evaluation) *pipeline {
	tb.Helper()
	rs, report := engine.Load(engine.Bytes("rules.yml", []byte(rules)))
	if err := report.Err(); err != nil {
		tb.Fatal(err)
	}
	e := engine.New(rs, engine.Config{Lossless: true, Evaluation: way})
	tb.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return &pipeline{e, e.NewWorker(), decode.New(e.Want())}
}

func (p *pipeline) replay(path string) error {
	src, err := capture.OpenFile(path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	var packet capture.Packet
	var set record.Set
	for {
		if err := src.Next(&packet); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		set.Header = record.Header{Time: packet.Time, Packet: packet.Number}
		if err := p.dec.Decode(uint32(packet.Link), packet.Data, packet.Length, &set); err != nil {
			return err
		}
		p.worker.Evaluate(&set)
	}
}

// cpuTime is what this process has used so far.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRules prints the CPU time a packet with 5, 100 and 1,000 generated
// rules: with the index, without it, in the expression VM alone (on a part of
// the packets), and that of the whole program less what it takes on an empty
// capture, beside tcpdump -r with one SYN filter on the same file, in turns:
//
//	make bench-rules
//
// YARDSTICK_PACKETS sets the number of packets (1,000,000), YARDSTICK_ROUNDS
// the rounds (5).
func BenchmarkRules(b *testing.B) {
	packets, rounds := fromEnvironment(b, "YARDSTICK_PACKETS", 1_000_000), fromEnvironment(b, "YARDSTICK_ROUNDS", 5)
	dir := b.TempDir()
	path, empty, few := filepath.Join(dir, "all.pcap"), filepath.Join(dir, "empty.pcap"), filepath.Join(dir, "few.pcap")
	writeFile(b, path, packets)
	writeFile(b, few, packets/50)
	writeFile(b, empty, 0)
	var field []*ruleContestant
	add := func(name string, goal float64, run func() (time.Duration, int)) {
		field = append(field, &ruleContestant{name: name, goal: goal, run: run})
	}
	filter := "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn"
	add("tcpdump -r -w /dev/null, SYN filter", 0, func() (time.Duration, int) {
		return program(b, "tcpdump", "-r", path, "-w", os.DevNull, filter), packets
	})
	guard := filepath.Join("..", "..", "bin", "netcap-guard")
	for n, goal := range map[int]float64{5: 1.0, 100: 1.2, 1000: 2.5} {
		rules := filepath.Join(dir, strconv.Itoa(n)+".yml")
		if err := os.WriteFile(rules, []byte(yardstick.Rules(n)), 0o600); err != nil {
			b.Fatal(err)
		}
		for _, way := range []struct {
			name string
			way  engine.Evaluation
			file string
			n    int
		}{
			{"native + index", engine.EvaluateIndexed, path, packets}, {"native", engine.EvaluateNative, few, packets / 50},
			{"VM only", engine.EvaluateVM, few, packets / 50},
		} {
			p := newPipeline(b, yardstick.Rules(n), way.way)
			if way.way != engine.EvaluateIndexed {
				goal = 0
			}
			add(fmt.Sprintf("%4d rules, %s", n, way.name), goal, func() (time.Duration, int) {
				before := cpuTime(b)
				if err := p.replay(way.file); err != nil {
					b.Fatal(err)
				}
				return cpuTime(b) - before, way.n
			})
		}
		args := []string{"-q", "-o", "json", "--rules", rules, "-r"}
		add(fmt.Sprintf("%4d rules, netcap-guard -r", n), 0, func() (time.Duration, int) {
			start := program(b, guard, append(args, empty)...)
			return program(b, guard, append(args, path)...) - start, packets
		})
	}
	for b.Loop() {
		for range rounds {
			for _, c := range field {
				cpu, n := c.run()
				c.cpu = append(c.cpu, float64(cpu.Nanoseconds())/float64(n))
			}
		}
	}
	report(b, field, packets, rounds)
}

type ruleContestant struct {
	name string
	goal float64 // times tcpdump, 0 = none
	run  func() (cpu time.Duration, packets int)
	cpu  []float64
}

// report prints a line for each contestant, with the median of the ratios to
// tcpdump's time of the same round.
func report(b *testing.B, field []*ruleContestant, packets, rounds int) {
	text := fmt.Sprintf("%d packets, medians of %d interleaved rounds, CPU ns a packet\n", packets, rounds)
	for _, name := range []string{"tcpdump", "   5 rules", " 100 rules", "1000 rules"} {
		for _, c := range field {
			if len(c.name) < len(name) || c.name[:len(name)] != name {
				continue
			}
			ratios := make([]float64, rounds)
			for i := range ratios {
				ratios[i] = c.cpu[len(c.cpu)-rounds+i] / field[0].cpu[len(c.cpu)-rounds+i]
			}
			goal := ""
			if c.goal > 0 {
				goal = fmt.Sprintf("   goal %.1f", c.goal)
			}
			text += fmt.Sprintf("  %-36s %8.0f   %6.2f x%s\n", c.name, median(c.cpu), median(ratios), goal)
		}
	}
	fmt.Print("\n", text) // the log of a benchmark is cut short
	b.ReportMetric(0, "ns/op")
}

// program runs one to its end and returns its CPU time.
func program(b *testing.B, name string, args ...string) time.Duration {
	b.Helper()
	found, err := exec.LookPath(name)
	if err != nil {
		b.Fatal(err)
	}
	cpu, _, err := process(b, found, args...)
	if err != nil {
		b.Fatal(err)
	}
	return cpu
}

func fromEnvironment(b *testing.B, name string, otherwise int) int {
	b.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		b.Fatalf("%s=%s is no number", name, s)
	}
	return n
}

// BenchmarkPipeline is reader, decoder and rules, for profiles.
func BenchmarkPipeline(b *testing.B) {
	const packets = 300_000
	path := filepath.Join(b.TempDir(), "yardstick.pcap")
	writeFile(b, path, packets)
	for _, n := range []int{5, 100, 1000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			p := newPipeline(b, yardstick.Rules(n), engine.EvaluateIndexed)
			for b.Loop() {
				if err := p.replay(path); err != nil {
					b.Fatal(err)
				}
			}
			perPacket(b, packets)
		})
	}
}

// BenchmarkLoad1000 reads, checks and compiles 1,000 rules and makes their
// index.
func BenchmarkLoad1000(b *testing.B) {
	text := yardstick.Rules(1000)
	for b.Loop() {
		newPipeline(b, text, engine.EvaluateIndexed)
	}
}
