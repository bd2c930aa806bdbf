package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/capture"
)

func at(n int) time.Time { return time.Unix(1_700_000_000, int64(n)*1000).UTC() }

// packet is the n-th packet; its data says so.
func packet(n int) *capture.Packet {
	return &capture.Packet{Data: fmt.Appendf(nil, "packet %d", n), Time: at(n).UnixNano(), Length: 100, Link: capture.LinkEthernet, Iface: 2}
}

func address4(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func host(s string) netip.Prefix {
	a := netip.MustParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen())
}

func keeper(t testing.TB, cfg Config) *Keeper {
	t.Helper()
	if cfg.Directory == "" {
		cfg.Directory = filepath.Join(t.TempDir(), "evidence")
	}
	k, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return k
}

// contents are the packets' data of a file.
func contents(t testing.TB, path string) []string {
	t.Helper()
	src, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	var out []string
	var p capture.Packet
	for {
		if err := src.Next(&p); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Length != 100 {
			t.Errorf("length on the wire %d, want 100", p.Length)
		}
		out = append(out, string(p.Data))
	}
}

func TestWhatAFileHolds(t *testing.T) {
	attacker, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	six, neighbour := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff")
	k := keeper(t, Config{Inline: true, Packets: 3, Application: "test 1"})
	one, two := k.NewTape(), k.NewTape()
	one.Packet(packet(1), attacker, other)
	two.Packet(packet(2), attacker, six)
	one.Packet(packet(3), other, attacker)
	one.Packet(packet(4), attacker, other)
	one.Matched(packet(4), attacker, other)
	one.Matched(packet(4), attacker, other) // for a second rule
	two.Packet(packet(5), attacker, other)
	one.Packet(packet(6), attacker, other) // after the block
	one.Packet(packet(7), six, other)
	one.Packet(packet(8), neighbour, other)
	one.Packet(packet(9), netip.Addr{}, netip.Addr{})
	for _, tt := range []struct {
		name string
		c    Case
		want string
		file string
	}{
		{"a source", Case{Prefix: host("192.0.2.1"), Rule: "Block SSH: Brute/Force!", At: at(5)}, "[packet 2 packet 4 packet 5]", "20231114T221320.000005Z_192.0.2.1_block-ssh-brute-force.pcapng"},
		{"a destination", Case{Prefix: host("192.0.2.1"), Destination: true, Rule: "x", At: at(9)}, "[packet 3]", "20231114T221320.000009Z_192.0.2.1_x.pcapng"},
		{"a prefix", Case{Prefix: netip.MustParsePrefix("2001:db8::/64"), Rule: "../..", At: at(9)}, "[packet 7 packet 8]", "20231114T221320.000009Z_2001-db8--p64_.pcapng"},
		{"one address of it", Case{Prefix: host("2001:db8::1"), Rule: "x", At: at(9)}, "[packet 7]", "20231114T221320.000009Z_2001-db8--1_x.pcapng"},
		{"all of IPv4", Case{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Rule: "x", At: at(3)}, "[packet 1 packet 2 packet 3]", "20231114T221320.000003Z_0.0.0.0p0_x.pcapng"},
		{"nothing left", Case{Prefix: host("203.0.113.1"), Rule: "x", At: at(9)}, "[]", "20231114T221320.000009Z_203.0.113.1_x.pcapng"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := k.Collect(tt.c)
			if filepath.Base(path) != tt.file {
				t.Errorf("file %s", path)
			}
			if got := fmt.Sprint(contents(t, path)); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if files, err := Files(filepath.Dir(path), tt.c.Prefix); err != nil || !strings.Contains(fmt.Sprint(files), path) {
				t.Errorf("files %v, %v", files, err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
		})
	}
	info, err := os.Stat(k.cfg.Directory)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory %v, %v", info.Mode(), err)
	}
	if s := k.Stats(); s.Written != 6 || s.Files != 6 || s.Failed+s.Lost+s.Missed+s.Evicted != 0 {
		t.Errorf("%+v", s)
	}
}

// The rule's name stands on the section and on the packet that led to the
// block.
func TestComment(t *testing.T) {
	k := keeper(t, Config{Inline: true})
	tape := k.NewTape()
	for i := range 3 {
		tape.Packet(packet(i), address4(1), address4(2))
	}
	data, err := os.ReadFile(k.Collect(Case{Prefix: host("10.0.0.1"), Rule: "Block SSH Brute Force", At: at(2)}))
	if err != nil {
		t.Fatal(err)
	}
	name := []byte("Block SSH Brute Force")
	if n, last := bytes.Count(data, name), bytes.LastIndex(data, name); n != 2 || last < bytes.Index(data, []byte("packet 2")) {
		t.Errorf("%d comments, the last at %d", n, last)
	}
}

// What counted for a rule stays when much else has come since.
func TestMatchedPacketsStay(t *testing.T) {
	k := keeper(t, Config{Inline: true, Memory: 1})
	tape := k.NewTape()
	slow := netip.MustParseAddr("192.0.2.1")
	n := 0
	for range 5 {
		n++
		tape.Packet(packet(n), slow, address4(1))
		tape.Matched(packet(n), slow, address4(1))
		n++
		tape.Packet(packet(n), slow, address4(1)) // which did not count
		for range 10 * minSegments * segmentPackets {
			n++
			tape.Packet(packet(n), address4(n), address4(1))
		}
	}
	if got := contents(t, k.Collect(Case{Prefix: host("192.0.2.1"), Rule: "x", At: at(n)})); len(got) != 5 {
		t.Errorf("%d packets, want the 5 that counted: %v", len(got), got)
	}
}

// One worker may be ahead of another: what it counted before the packet that
// crossed the threshold belongs to the block, what came after does not.
func TestWorkersThatAreAhead(t *testing.T) {
	k := keeper(t, Config{Inline: true})
	slow, fast := k.NewTape(), k.NewTape()
	see := func(tape *Tape, n int) {
		tape.Packet(packet(n), address4(1), address4(2))
		tape.Matched(packet(n), address4(1), address4(2))
	}
	see(fast, 8)
	see(fast, 9)
	see(slow, 1)
	fast.Packet(packet(10), address4(1), address4(2)) // did not count
	see(slow, 2)                                      // crosses
	see(fast, 11)
	see(slow, 3)
	data, err := os.ReadFile(k.Collect(Case{Prefix: host("10.0.0.1"), Rule: "Scan", At: at(2)}))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile("(?s)Scan.*packet 1.*packet 2.*Scan.*packet 8.*packet 9").Match(data) ||
		bytes.Count(data, []byte("packet ")) != 4 {
		t.Errorf("%q", data)
	}
}

func TestLongPacketsAreCut(t *testing.T) {
	tape := newTape(1, new(atomic.Uint64))
	long := &capture.Packet{Data: make([]byte, 60_000), Time: 1, Length: 60_000, Link: capture.LinkEthernet}
	for range 1000 {
		tape.Packet(long, address4(1), address4(2))
	}
	all := lastOf([]*Tape{tape}, Case{Prefix: host("10.0.0.1"), At: at(1)}, 64)
	if len(all) != 64 || len(all[0].Data) != maxKept || all[0].Length != 60_000 {
		t.Errorf("%d packets of %d bytes", len(all), len(all[0].Data))
	}
}

func TestCopyingDoesNotAllocate(t *testing.T) {
	tape := newTape(1, new(atomic.Uint64))
	p, src, dst := packet(1), address4(1), address4(2)
	if n := testing.AllocsPerRun(10, func() {
		for range 5000 {
			tape.Packet(p, src, dst)
			tape.Matched(p, src, dst)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// While a tape is read, what comes is copied or counted, and never waits.
func TestReadingWhileCopying(t *testing.T) {
	k := keeper(t, Config{Memory: 1})
	tape := k.NewTape()
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					for _, f := range lastOf([]*Tape{tape}, Case{Prefix: netip.MustParsePrefix("10.0.0.0/8"), At: at(1 << 30)}, 100) {
						if !strings.HasPrefix(string(f.Data), "packet ") {
							t.Errorf("%q", f.Data)
						}
					}
				}
			}
		})
	}
	const packets = 50_000
	for n := range packets {
		tape.Packet(packet(n), address4(n), address4(0))
		tape.Matched(packet(n), address4(n), address4(0))
	}
	close(stop)
	readers.Wait()
	tape.recent.segments[0].mu.Lock()
	for range segmentPackets * (minSegments + 1) {
		tape.Packet(packet(1), address4(1), address4(0))
	}
	tape.recent.segments[0].mu.Unlock()
	if tape.missed.Load() == 0 {
		t.Error("nothing was counted though a segment was held all the time")
	}
}

func TestTheOldestFilesGiveWay(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "20231114T221320.000000Z_notes.pcapng")
	for _, name := range []string{foreign, filepath.Join(dir, temporary+"1")} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	collect := func(cfg Config, from, to int) *Keeper {
		cfg.Directory, cfg.Inline = dir, true
		k := keeper(t, cfg)
		for n := from; n < to; n++ {
			if k.Collect(Case{Prefix: netip.PrefixFrom(address4(n), 32), Rule: "x", At: at(n)}) == "" {
				t.Fatal("not written")
			}
		}
		return k
	}
	names := func() int {
		list, err := filepath.Glob(filepath.Join(dir, "*_x.pcapng"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if s := collect(Config{Files: 10}, 0, 25).Stats(); s.Files != 10 || s.Evicted != 15 || names() != 10 {
		t.Errorf("%+v, %d files", s, names())
	}
	k := collect(Config{Files: 4}, 0, 0) // another run, with less
	if s := k.Stats(); s.Files != 4 || s.Evicted != 6 || names() != 4 || s.Bytes == 0 {
		t.Errorf("%+v, %d files", s, names())
	}
	each := int64(k.Stats().Bytes / 4)
	if s := collect(Config{Bytes: 2*each + 1}, 25, 30).Stats(); s.Files != 2 || int64(s.Bytes) > 2*each+1 || names() != 2 {
		t.Errorf("%+v, %d files", s, names())
	}
	if files, err := Files(dir, netip.PrefixFrom(address4(29), 32)); err != nil || len(files) != 1 {
		t.Errorf("the newest: %v, %v", files, err)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error("somebody else's file is gone")
	}
	if s := collect(Config{}, 29, 30).Stats(); s.Files != 2 { // the same case again replaces its file
		t.Errorf("%+v", s)
	}
}

func TestFailuresAreCountedAndTold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "evidence")
	var log bytes.Buffer
	k := keeper(t, Config{Directory: dir, Inline: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if file := k.Collect(Case{Prefix: host("192.0.2.1"), Rule: "x", At: at(1)}); file != "" {
			t.Errorf("file %s", file)
		}
	}
	if s := k.Stats(); s.Failed != 3 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("%+v, log %q", s, log.String())
	}
	if _, err := Open(Config{Directory: "/dev/null/evidence"}); err == nil {
		t.Error("a directory that cannot be")
	}
}

// More blocks than can be written: they are counted, and who blocks does not
// wait.
func TestTooManyCases(t *testing.T) {
	k := keeper(t, Config{})
	k.dir.mu.Lock() // a disk that does not answer
	named := 0
	for n := range maxWaiting + 100 {
		if k.Collect(Case{Prefix: netip.PrefixFrom(address4(n), 32), Rule: "x", At: at(n)}) != "" {
			named++
		}
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Close(done); !errors.Is(err, context.Canceled) {
		t.Errorf("closed: %v", err)
	}
	k.dir.mu.Unlock()
	if err := k.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if file := k.Collect(Case{Prefix: host("192.0.2.1"), At: at(1)}); file != "" {
		t.Errorf("after the end: %s", file)
	}
	if s := k.Stats(); named < maxWaiting || named > maxWaiting+1 || s.Written != uint64(named) || s.Lost != uint64(maxWaiting+101-named) {
		t.Errorf("%d named, %+v", named, s)
	}
}

// BenchmarkTape is what evidence costs a packet.
func BenchmarkTape(b *testing.B) {
	tape := newTape(defaultMemory, new(atomic.Uint64))
	p, src, dst := packet(1), address4(1), address4(2)
	p.Data = make([]byte, 532)
	b.ReportAllocs()
	for b.Loop() {
		tape.Packet(p, src, dst)
	}
}

// BenchmarkCollect is what it takes to find the packets of one source on a
// full tape.
func BenchmarkCollect(b *testing.B) {
	tape := newTape(defaultMemory, new(atomic.Uint64))
	for n := range 100_000 {
		tape.Packet(packet(n), address4(n%10_000), address4(0))
	}
	for b.Loop() {
		lastOf([]*Tape{tape}, Case{Prefix: host("10.0.0.1"), At: at(1 << 30)}, defaultPackets)
	}
}
