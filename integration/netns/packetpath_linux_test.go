package netns

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

const (
	pathRounds = 5
	// pathTime is about how long one lane sends in a round.
	pathTime = 300 * time.Millisecond
)

// lane is a sender, a router and a sink of its own, so that rounds need not
// change a firewall in between.
type lane struct {
	name    string
	packets int
	send    *net.UDPConn
	sink    *netlab.NS
	arrived uint64
	cost    []float64 // ns a packet, one entry a round
}

// BenchmarkPacketPath prints what a forwarded packet costs with 100,000 blocks
// in nft's sets, with the chain of iptables at several lengths, with an ipset
// of the same addresses, and with no rules, in turns; the sender waits for the
// kernel to deliver each packet, so its time is the whole path's:
//
//	go test -run '^$' -bench '^BenchmarkPacketPath$' -benchtime 1x ./integration/netns
func BenchmarkPacketPath(b *testing.B) {
	lanes := []*lane{
		newLane(b, "no rules", nil),
		newLane(b, "nft, 100,000 blocks", guarded("nft", 100_000)),
		newLane(b, "nft, 100,000 blocks, blocked source", guarded("nft", 100_000), blockedSource),
		newLane(b, "ipset, 100,000 addresses", ipset(100_000)),
		newLane(b, "iptables, 100 blocks", guarded("iptables", 100)),
		newLane(b, "iptables, 1,000 blocks", guarded("iptables", 1000)),
		newLane(b, "iptables, 10,000 blocks", guarded("iptables", 10_000)),
	}
	for b.Loop() {
		for _, l := range lanes {
			l.packets = 1000
			l.packets = max(100, int(float64(pathTime)/l.round(b)*1000)) // as many as fit
			l.arrived = l.received(b)
		}
		for range pathRounds {
			for _, l := range lanes {
				l.cost = append(l.cost, l.round(b)/float64(l.packets))
			}
		}
	}
	none := middle(lanes[0].cost)
	text := fmt.Sprintf("one forwarded UDP packet over two veth pairs, medians of %d interleaved rounds\n", pathRounds)
	for _, l := range lanes {
		arrived := float64(l.received(b)-l.arrived) / float64(l.packets*len(l.cost))
		text += fmt.Sprintf("  %-38s %9.0f ns   %7.2f of no rules   %5.1f %% arrived\n", l.name, middle(l.cost), middle(l.cost)/none, 100*arrived)
	}
	b.Log(text)
	b.ReportMetric(middle(lanes[1].cost)/none, "nft/none")
	b.ReportMetric(0, "ns/op")
}

func middle(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}

// newLane builds a lane and lets each of prepare work on its router.
func newLane(b *testing.B, name string, prepare ...func(*testing.B, *netlab.NS)) *lane {
	b.Helper()
	lab := nstest.Lab(b)
	sender, router, sink := nstest.NS(b, lab, "sender"), nstest.NS(b, lab, "router"), nstest.NS(b, lab, "sink")
	net1, net2 := netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("198.51.100.1/24")
	from, to := netip.MustParseAddr("192.0.2.66"), netip.MustParseAddr("198.51.100.10")
	ctx := b.Context()
	must(b, lab.Link(ctx, netlab.End{NS: sender, Iface: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(from, 24)}},
		netlab.End{NS: router, Iface: "eth0", Addrs: []netip.Prefix{net1}}))
	must(b, lab.Link(ctx, netlab.End{NS: sink, Iface: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(to, 24)}},
		netlab.End{NS: router, Iface: "eth1", Addrs: []netip.Prefix{net2}}))
	must(b, sender.Default(ctx, net1.Addr()))
	must(b, sink.Default(ctx, net2.Addr()))
	must(b, router.Forward())
	for _, p := range prepare {
		if p != nil {
			p(b, router)
		}
	}
	return &lane{name: name, sink: sink, send: dialSink(b, sender, sink, to)}
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// dialSink opens a socket nobody reads (what does not fit is thrown away,
// always at the same cost) and one that sends to it.
func dialSink(b *testing.B, sender, sink *netlab.NS, to netip.Addr) *net.UDPConn {
	b.Helper()
	dst := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9))
	var out *net.UDPConn
	must(b, sink.Do(func() error {
		in, err := net.ListenUDP("udp", dst)
		if err == nil {
			b.Cleanup(func() { _ = in.Close() })
		}
		return err
	}))
	must(b, sender.Do(func() (err error) {
		out, err = net.DialUDP("udp", nil, dst)
		return err
	}))
	b.Cleanup(func() { _ = out.Close() })
	return out
}

// round sends the lane's packets from one processor, where the kernel also
// forwards them, and returns the nanoseconds it took.
func (l *lane) round(b *testing.B) float64 {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	must(b, unix.SchedGetaffinity(0, &all))
	one.Set(0)
	must(b, unix.SchedSetaffinity(0, &one))
	defer func() { _ = unix.SchedSetaffinity(0, &all) }()
	raw, err := l.send.SyscallConn()
	must(b, err)
	payload := make([]byte, 18) // the smallest frame of Ethernet
	before := threadTime(b)
	must(b, raw.Control(func(fd uintptr) {
		for range l.packets {
			_, _ = unix.Write(int(fd), payload) // what became of it is asked of the sink
		}
	}))
	return float64(threadTime(b) - before)
}

// received is how many packets have come to the sink.
func (l *lane) received(b *testing.B) uint64 {
	b.Helper()
	out := nstest.Run(b, l.sink, "cat", "/sys/class/net/eth0/statistics/rx_packets")
	n, err := strconv.ParseUint(strings.TrimSpace(out), 10, 64)
	must(b, err)
	return n
}

// threadTime is the processor time of this thread: other programs on a busy
// machine do not count.
func threadTime(b *testing.B) time.Duration {
	var now unix.Timespec
	must(b, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now))
	return time.Duration(now.Nano())
}

// other is the i-th address that is blocked and never sends.
func other(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, byte(64 + i>>16), byte(i >> 8), byte(i)})
}

// guarded blocks n addresses with the real program.
func guarded(backend string, n int) func(*testing.B, *netlab.NS) {
	return func(b *testing.B, router *netlab.NS) {
		b.Helper()
		var list strings.Builder
		for i := range n {
			fmt.Fprintln(&list, other(i))
		}
		feed(b, router, list.String(), guardBinary(), "block", "-", "--for", "1h", "--backend", backend, "-q")
	}
}

func blockedSource(b *testing.B, router *netlab.NS) {
	b.Helper()
	feed(b, router, "192.0.2.66\n", guardBinary(), "block", "-", "--for", "1h", "--force", "--backend", "nft", "-q")
}

// ipset is the way of tools that keep their addresses in an ipset.
func ipset(n int) func(*testing.B, *netlab.NS) {
	return func(b *testing.B, router *netlab.NS) {
		b.Helper()
		nstest.Tool(b, "ipset")
		var list strings.Builder
		fmt.Fprintf(&list, "create bench hash:ip timeout 3600 hashsize %d maxelem %d\n", n, n)
		for i := range n {
			fmt.Fprintf(&list, "add bench %s\n", other(i))
		}
		feed(b, router, list.String(), "ipset", "restore")
		nstest.Run(b, router, "iptables", "-I", "FORWARD", "-m", "set", "--match-set", "bench", "src", "-j", "DROP")
	}
}

// feed runs a program inside the namespace with the text on its standard
// input.
func feed(b *testing.B, ns *netlab.NS, text, name string, args ...string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	cmd := ns.Command(ctx, name, args...)
	cmd.Stdin = strings.NewReader(text)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s %v: %v: %.500s", name, args, err, out.String())
	}
}
