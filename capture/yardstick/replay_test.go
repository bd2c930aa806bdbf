package yardstick_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/record"
)

const (
	replayPackets = 500_000
	replayRounds  = 5
)

// contestant is one way to go through the yardstick's file.
type contestant struct {
	name string
	run  func(path string) (cpu, wall time.Duration, err error)

	cpu, wall []float64 // ns a packet, one entry a round
}

// BenchmarkReplay goes through one file with netcap-guard -r and all shipped
// rules, with tcpdump -r and a SYN filter, and with the reader and the decoder
// alone, in turns, and prints the medians in nanoseconds a packet:
//
//	make build && go test -run '^$' -bench '^BenchmarkReplay$' -benchtime 1x ./capture/yardstick
//
// YARDSTICK_PACKETS sets the number of packets (500,000). A program that is
// not there is named and left out.
func BenchmarkReplay(b *testing.B) {
	packets := replayPackets
	if s := os.Getenv("YARDSTICK_PACKETS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			b.Fatalf("YARDSTICK_PACKETS=%s is no number of packets", s)
		}
		packets = n
	}
	path := filepath.Join(b.TempDir(), "yardstick.pcap")
	writeFile(b, path, packets)
	field := contestants(b)
	for b.Loop() {
		for range replayRounds {
			for _, c := range field {
				cpu, wall, err := c.run(path)
				if err != nil {
					b.Fatalf("%s: %v", c.name, err)
				}
				c.cpu = append(c.cpu, float64(cpu.Nanoseconds())/float64(packets))
				c.wall = append(c.wall, float64(wall.Nanoseconds())/float64(packets))
			}
		}
	}
	text := fmt.Sprintf("%d packets, medians of %d interleaved rounds, ns a packet\n", packets, len(field[0].wall))
	for _, c := range field {
		text += fmt.Sprintf("  %-44s CPU %6.0f   wall %6.0f\n", c.name, median(c.cpu), median(c.wall))
	}
	b.Log(text)
	b.ReportMetric(median(field[0].cpu), "cpu-ns/packet")
	b.ReportMetric(0, "ns/op")
}

func writeFile(b testing.TB, path string, packets int) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := yardstick.Write(f, 1, packets); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}

// contestants are those whose program is there; the reader and decoder, in
// this process, always are.
func contestants(b *testing.B) []*contestant {
	b.Helper()
	root := filepath.Join("..", "..")
	guard := filepath.Join(root, "bin", "netcap-guard")
	var field []*contestant
	program := func(name, path string, args ...string) {
		found, err := exec.LookPath(path)
		if err != nil {
			b.Logf("left out: %s (%v)", name, err)
			return
		}
		field = append(field, &contestant{name: name, run: func(file string) (time.Duration, time.Duration, error) {
			return process(b, found, append([]string{"-r", file}, args...)...)
		}})
	}
	program("netcap-guard -r, shipped rules", guard, "-q", "-o", "json", "--rules", filepath.Join(root, "configs", "firewall-rules.yml"))
	program("tcpdump -r -w /dev/null, SYN filter", "tcpdump", "-w", os.DevNull, "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn")
	return append(field, &contestant{name: "reader and decoder alone, TCP and DNS", run: inProcess})
}

// process runs a program to its end, its output thrown away.
func process(b *testing.B, path string, args ...string) (cpu, wall time.Duration, err error) {
	cmd := exec.CommandContext(b.Context(), path, args...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	wall = time.Since(began)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %.300s", err, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), wall, nil
}

// inProcess reads and decodes the file here; its CPU time is its wall time.
func inProcess(path string) (cpu, wall time.Duration, err error) {
	var want record.Want
	want.Add(record.TypeTCP)
	want.Add(record.TypeDNS, "Questions")
	began := time.Now()
	if _, err := readAndDecode(path, want); err != nil {
		return 0, 0, err
	}
	wall = time.Since(began)
	return wall, wall, nil
}

func readAndDecode(path string, want record.Want) (packets int, err error) {
	src, err := capture.OpenFile(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = src.Close() }()
	var p capture.Packet
	var set record.Set
	dec := decode.New(want)
	for ; ; packets++ {
		if err := src.Next(&p); errors.Is(err, io.EOF) {
			return packets, nil
		} else if err != nil {
			return packets, err
		}
		set.Time, set.Packet = p.Time, p.Number
		if err := dec.Decode(uint32(p.Link), p.Data, p.Length, &set); err != nil {
			return packets, err
		}
	}
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}
