package netns

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// mutateEnv is how long each test of damaged frames sends them.
const mutateEnv = "NETCAP_GUARD_MUTATETIME"

func mutateTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(mutateEnv)
	if text == "" {
		return 500 * time.Millisecond
	}
	long, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", mutateEnv, err)
	}
	return long
}

// wire is two namespaces with one veth pair between them, and what sends
// frames from the one to the other.
type wire struct {
	from, to host
}

func newWire(t testing.TB) wire {
	t.Helper()
	lab := nstest.Lab(t)
	at := func(name, number string) host {
		return host{nstest.NS(t, lab, name), netip.MustParseAddr("192.0.2." + number), netip.MustParseAddr("2001:db8::" + number)}
	}
	w := wire{at("sender", "66"), at("guarded", "10")}
	w.connect(t, lab)
	return w
}

func (w wire) connect(t testing.TB, lab *netlab.Lab) {
	t.Helper()
	end := func(h host) netlab.End {
		return netlab.End{NS: h.NS, Iface: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(h.v4, 24), netip.PrefixFrom(h.v6, 64)}}
	}
	if err := lab.Link(t.Context(), end(w.from), end(w.to)); err != nil {
		t.Fatal(err)
	}
}

// sender opens what sends out of the wire's first end.
func (w wire) sender(t testing.TB) (s *nstest.Sender) {
	t.Helper()
	err := w.from.Do(func() (err error) {
		s, err = nstest.NewSender("eth0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (w wire) send(t testing.TB, frames ...[]byte) {
	t.Helper()
	if err := w.sender(t).Send(frames...); err != nil {
		t.Fatal(err)
	}
}

// synFrame is a SYN in a frame for nobody in particular: what a capture sees,
// and the host behind it lets lie.
func synFrame(t testing.TB, src, dst netip.Addr, number uint32) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 80, Seq: number, SYN: true, Window: 1024}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 9}, EthernetType: layers.EthernetTypeIPv4}, ip, tcp)
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()[:14+20+20] // without padding
}

// synRule is the port scan rule with another threshold.
func synRule(t *testing.T, threshold int) string {
	t.Helper()
	return write(t, "rules.yml", fmt.Sprintf(`rules:
  - name: %s
    type: TCP
    expression: SYN && !ACK && PayloadSize == 0
    threshold: %d
    threshold_window: 600
    actions: [{type: iptables_block, config: {duration: 10m}}]
`, scanRule, threshold))
}

// TestEveryPacketCounts: half a million numbered SYNs, as fast as they can be
// sent, are half a million matches.
func TestEveryPacketCounts(t *testing.T) {
	for _, workers := range []string{"1", "2"} {
		t.Run(workers+" workers", func(t *testing.T) {
			f := newFlavour(t, "nft")
			f.config = "ring_size: 128\n" // room for them all, however late the guard gets to run
			w := newWire(t)
			g := startGuard(t, f, w.to.NS, synRule(t, 100_000), "--workers", workers)
			const sent, batch = 500_000, 500
			frames := make([][]byte, batch)
			for i := range frames {
				frames[i] = synFrame(t, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), netip.AddrFrom4([4]byte{203, 0, 113, byte(i / 3)}), 0)
			}
			s := w.sender(t)
			for n := 0; n < sent; n += batch {
				for i, frame := range frames {
					binary.BigEndian.PutUint32(frame[14+20+4:], uint32(n+i)) // the checksum is nobody's business here
				}
				if err := s.Send(frames...); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "the guard has read them all", func() bool { return g.matches(t) >= sent })
			if got := g.end(t).Stats.Rules[scanRule].Matches; got != sent {
				t.Errorf("%d SYNs count as %d", sent, got)
			}
		})
	}
}

// TestScannerSpreadOverWorkers: a scanner whose packets come to all workers is
// found at exactly the packet that the rule names.
func TestScannerSpreadOverWorkers(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWire(t)
	const threshold = 200
	g := startGuard(t, f, w.to.NS, synRule(t, threshold), "--workers", "3")
	scanner := netip.MustParseAddr("198.51.100.7")
	var frames [][]byte
	for i := range threshold {
		frames = append(frames, synFrame(t, scanner, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), uint32(i)))
	}
	w.send(t, frames[:threshold-1]...)
	eventually(t, "the guard has read all but one", func() bool { return g.matches(t) >= threshold-1 })
	if early := g.said(t, "alert"); len(early) > 0 {
		t.Fatalf("too early: %+v", early)
	}
	w.send(t, frames[threshold-1])
	g.action(t, scanner.String(), "created")
	alerts := g.said(t, "alert")
	if len(alerts) != 1 || alerts[0].Alert.Count != threshold || alerts[0].Alert.Fields["SeqNum"] != float64(threshold-1) {
		t.Errorf("alerts %+v", alerts)
	}
	g.end(t)
}

// TestInterfaceMadeAnew: a guard goes on when its interface is removed and one
// of the same name is made.
func TestInterfaceMadeAnew(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	lab := nstest.Lab(t)
	w := wire{host{nstest.NS(t, lab, "sender"), netip.MustParseAddr("192.0.2.66"), netip.MustParseAddr("2001:db8::66")},
		host{nstest.NS(t, lab, "guarded"), netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")}}
	w.connect(t, lab)
	g := startGuard(t, f, w.to.NS, rules(t, "iptables_block", "duration: 10m"), "--workers", "2")
	nstest.Run(t, w.to.NS, "ip", "link", "del", "eth0")
	eventually(t, "the guard has noticed", func() bool { return g.warnings("eth0 is gone") > 0 })
	w.connect(t, lab)
	eventually(t, "the guard captures again", func() bool { return g.warnings("eth0 is back") > 0 })
	eventually(t, "the scanner is blocked", func() bool {
		scan(t, w.from, w.to.v4)
		return len(g.said(t, "action")) > 0
	})
	g.action(t, w.from.v4.String(), "created")
	for _, line := range []string{"eth0 is gone", "eth0 is back"} {
		if n := g.warnings(line); n != 1 {
			t.Errorf("%d lines %q", n, line)
		}
	}
	g.end(t)
}

// TestMutatedFrames: whatever comes over the wire, the guard goes on, and
// blocks the scan that follows.
func TestMutatedFrames(t *testing.T) {
	t.Parallel()
	long := mutateTime(t)
	f := newFlavour(t, "nft")
	w := newWire(t)
	g := startGuard(t, f, w.to.NS, rules(t, "iptables_block", "duration: 10m"), "--workers", "2")
	s := w.sender(t)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	model := slices.Concat(synFrame(t, w.from.v4, w.to.v4, 0), []byte(strings.Repeat("GET / HTTP/1.1\r\n", 8)))
	sent := 0
	for end := time.Now().Add(long); time.Now().Before(end); {
		frames := make([][]byte, 100)
		for i := range frames {
			frames[i] = mutate(random, model)
		}
		if err := s.Send(frames...); err != nil {
			t.Fatal(err)
		}
		sent += len(frames)
	}
	// The scanner's own packets are no forgery: what was sent in its name may
	// have had it blocked.
	eventually(t, "the scanner is blocked", func() bool {
		scan(t, w.from, w.to.v4)
		return slices.ContainsFunc(g.said(t, "action"), func(e event) bool { return e.Action.IP == w.from.v4.String() })
	})
	mustNotReach(t, "scanner", w.from, w.to.v4)
	if got := g.end(t).Stats.Packets; got < uint64(sent)/2 {
		t.Errorf("%d frames sent, %d read", sent, got)
	}
}

// mutate is a damaged copy of a frame.
func mutate(random *rand.Rand, frame []byte) []byte {
	b := slices.Clone(frame)
	for range 1 + random.IntN(8) {
		b[12+random.IntN(len(b)-12)] = byte(random.UintN(256))
	}
	types := []uint16{0x0800, 0x86dd, 0x8100, 0x88a8, 0x8847, 0x8864, 0x0806, 0x0800}
	binary.BigEndian.PutUint16(b[12:], types[random.IntN(len(types))])
	return b[:14+random.IntN(len(b)-13)]
}

// TestRingWithoutMemory: where the process may not map a ring of the size that
// was asked for, it takes a smaller one and says so.
func TestRingWithoutMemory(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	f.config = "ring_size: 1024\n"
	w := newWire(t)
	limited := f.command(t, w.to.NS, "sh", "-c", `ulimit -v 2000000; exec "$@"`, "sh", guardBinary(), "-i", "eth0", "--rules", synRule(t, 2))
	g := launch(t, f, w.to.NS, limited)
	w.send(t, synFrame(t, netip.MustParseAddr("198.51.100.7"), w.to.v4, 1), synFrame(t, netip.MustParseAddr("198.51.100.7"), w.to.v4, 2))
	g.action(t, "198.51.100.7", "created")
	if n := g.warnings("no memory for a ring of 1024 MiB"); n != 1 {
		t.Errorf("%d warnings", n)
	}
	g.end(t)
}

// TestEveryLossIsTold: what is lost less than a minute after a line about
// losses is told at the end.
func TestEveryLossIsTold(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	f.config = "ring_size: 1\n"
	w := newWire(t)
	g := startGuard(t, f, w.to.NS, synRule(t, 100_000))
	const burst = 20000
	overrun := func() {
		if err := g.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		w.send(t, slices.Repeat([][]byte{synFrame(t, netip.MustParseAddr("198.51.100.7"), w.to.v4, 1)}, burst)...)
		if err := g.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	overrun()
	eventually(t, "the loss is told", func() bool { return g.warnings("packets were lost") == 1 })
	overrun()
	stats := g.end(t).Stats
	eventually(t, "the rest is told", func() bool { return g.warnings("packets were lost") == 2 })
	if c := stats.Capture; c.Dropped == 0 || c.Received+c.Dropped < 2*burst {
		t.Errorf("%d received and %d lost of %d", c.Received, c.Dropped, 2*burst)
	}
}
