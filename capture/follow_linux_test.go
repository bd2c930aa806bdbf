package capture_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/capture"
)

// lines gathers what a logger writes.
type lines struct {
	mu  sync.Mutex // guards all
	all strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), part)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// reader reads a source in a goroutine and hands on copies of what it gives. It
// goes on while nobody takes them: there is room for more than a test sends.
func reader(t testing.TB, src capture.Source) <-chan capture.Packet {
	t.Helper()
	packets, done := make(chan capture.Packet, 10_000), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		var p capture.Packet
		for src.Next(&p) == nil {
			q := p
			q.Data = append([]byte(nil), p.Data...)
			select {
			case packets <- q:
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		_ = src.Close()
		reading.Wait()
	})
	return packets
}

// shows calls repeat until a packet that holds the text comes, and returns it.
func shows(t testing.TB, packets <-chan capture.Packet, text string, repeat func()) capture.Packet {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case p := <-packets:
			if strings.Contains(string(p.Data), text) {
				return p
			}
		case <-tick.C:
			repeat()
		case <-deadline:
			t.Fatalf("no packet with %q came", text)
		}
	}
}

// tun makes a TUN device, up, and returns what puts packets into it.
func tun(t testing.TB, name string) (inject func(payload string), remove func()) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	remove = sync.OnceFunc(func() { _ = unix.Close(fd) }) // and with it goes the device
	t.Cleanup(remove)
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatal(err)
	}
	ip(t, "link", "set", name, "up")
	return func(payload string) {
		if _, err := unix.Write(fd, datagram(t, payload)); err != nil {
			t.Fatal(err)
		}
	}, remove
}

// datagram is a UDP datagram in an IPv4 packet, without link layer.
func datagram(t testing.TB, payload string) []byte {
	t.Helper()
	network := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: []byte{192, 0, 2, 7}, DstIP: []byte{192, 0, 2, 8}}
	transport := &layers.UDP{SrcPort: 1, DstPort: 9}
	buf := gopacket.NewSerializeBuffer()
	if err := transport.SetNetworkLayerForChecksum(network); err != nil {
		t.Fatal(err)
	}
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, options, network, transport, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestLiveTUN: packets of an interface without link header come in a Linux
// cooked one, on the interface and on any.
func TestLiveTUN(t *testing.T) {
	inject, _ := tun(t, "tun7")
	for _, name := range []string{"tun7", capture.AnyInterface} {
		t.Run(name, func(t *testing.T) {
			src := openLive(t, capture.LiveConfig{Interface: name, RingBytes: 1 << 20})
			inject("raw " + name)
			p, packet := await(t, src, "raw "+name)
			v4, ok := packet.NetworkLayer().(*layers.IPv4)
			if p.Link != capture.LinkLinuxSLL || p.Outgoing || p.Iface != index(t, "tun7") || !ok || v4.SrcIP.String() != "192.0.2.7" ||
				p.Length != len(p.Data) || binary.BigEndian.Uint16(p.Data[2:]) != unix.ARPHRD_NONE {
				t.Errorf("%+v: %v", p, packet)
			}
		})
	}
}

// TestLiveBridgePort: a port shows what goes through the bridge.
func TestLiveBridgePort(t *testing.T) {
	left, right := pair(t)
	ip(t, "link", "add", "br7", "type", "bridge")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "br7").Run() })
	ip(t, "link", "set", "br7", "up")
	ip(t, "link", "set", right, "master", "br7")
	packets := reader(t, openLive(t, capture.LiveConfig{Interface: right, RingBytes: 1 << 20}))
	p := shows(t, packets, "to the bridge", func() { sendTagged(t, left, "to the bridge") })
	if p.Outgoing || p.Iface != index(t, right) {
		t.Errorf("%+v", p)
	}
}

// TestLiveInterfaceComesBack: an interface that is removed and made again, be
// it of another kind, is captured on as before. Each change is one line,
// however many workers there are.
func TestLiveInterfaceComesBack(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			const name = "back0"
			inject, remove := tun(t, name)
			var log lines
			all, err := capture.OpenWorkers(capture.LiveConfig{Interface: name, Workers: workers, RingBytes: 2 << 20, Log: log.logger()})
			if err != nil {
				t.Fatal(err)
			}
			packets := merged(t, all)
			shows(t, packets, "first", func() { inject("first") })
			ip(t, "link", "set", name, "down")
			becomes(t, &log, "is down")
			ip(t, "link", "set", name, "up")
			becomes(t, &log, "is up again")
			remove()
			becomes(t, &log, "is gone")
			ip(t, "link", "add", "other0", "type", "veth", "peer", "name", name)
			t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "other0").Run() })
			becomes(t, &log, "is back, but down")
			ip(t, "link", "set", "other0", "up")
			ip(t, "link", "set", name, "up")
			if p := shows(t, packets, "second", func() { sendTagged(t, "other0", "second") }); p.Link != capture.LinkEthernet || p.Iface != index(t, name) {
				t.Errorf("%+v", p)
			}
			var got capture.Stats
			for _, s := range all {
				got.Received += s.Stats().Received
			}
			if got.Received < 2 {
				t.Errorf("counters %+v: the first interface's are lost", got)
			}
		})
	}
}

// becomes waits for a line, and checks that it is one.
func becomes(t testing.TB, log *lines, part string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); log.count(part) == 0; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no line %q", part)
		}
	}
	if n := log.count(part); n != 1 {
		t.Errorf("%d lines %q", n, part)
	}
}

// merged reads several sources into one channel.
func merged(t testing.TB, all []capture.LiveSource) <-chan capture.Packet {
	t.Helper()
	out := make(chan capture.Packet, 10_000)
	done := make(chan struct{})
	var group sync.WaitGroup
	for _, s := range all {
		in := reader(t, s)
		group.Go(func() {
			for {
				select {
				case p := <-in:
					select {
					case out <- p:
					case <-done:
						return
					}
				case <-done:
					return
				}
			}
		})
	}
	t.Cleanup(func() { close(done); group.Wait() })
	return out
}

// TestWorkersShareByAddressPair: every packet comes to one worker, both ways
// between two addresses to the same one, tagged or not, and no worker is left
// without any.
func TestWorkersShareByAddressPair(t *testing.T) {
	left, right := pair(t)
	const workers, pairs = 3, 30
	all, err := capture.OpenWorkers(capture.LiveConfig{Interface: right, Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards home and came
	home, came := map[string]int{}, [workers]int{}
	var reading sync.WaitGroup
	for worker, s := range all {
		reading.Go(func() {
			for p := (capture.Packet{}); s.Next(&p) == nil; {
				_, mark, found := strings.Cut(string(p.Data), "pair ")
				if !found {
					continue
				}
				mu.Lock()
				if first, seen := home[mark]; seen && first != worker {
					t.Errorf("pair %s came to workers %d and %d", mark, first, worker)
				}
				home[mark] = worker
				came[worker]++
				mu.Unlock()
			}
		})
	}
	var frames [][]byte
	for i := range pairs {
		for kind := range 12 { // both families, no, one and two tags, both ways
			frames = append(frames, pairFrame(t, i, kind%2 == 0, kind/2%3, kind/6 == 0))
		}
	}
	sent := len(frames)
	blast(t, left, frames...)
	deadline := time.Now().Add(20 * time.Second)
	for total := 0; total < sent && time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		mu.Lock()
		total = came[0] + came[1] + came[2]
		mu.Unlock()
	}
	for _, s := range all {
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	reading.Wait()
	for _, s := range all {
		_ = s.Close()
	}
	if came[0]+came[1]+came[2] != sent || slices.Contains(came[:], 0) {
		t.Errorf("%d packets came as %v to the workers", sent, came)
	}
}

// pairFrame is a frame between the two addresses of a pair, one way or back,
// that names it.
func pairFrame(t testing.TB, number int, v6 bool, tags int, back bool) []byte {
	t.Helper()
	a, b := []byte{10, 1, 0, byte(number)}, []byte{10, 2, byte(number), 9}
	ether, kind := layers.EthernetTypeIPv4, "4"
	if v6 {
		a, b = append([]byte{0x20, 1, 13: 0, 14: byte(number)}, 1), append([]byte{0x20, 1, 13: 7, 14: 3}, byte(number))
		ether, kind = layers.EthernetTypeIPv6, "6"
	}
	if back {
		a, b = b, a
	}
	stack := []gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: ether}}
	for i := range tags {
		stack[0].(*layers.Ethernet).EthernetType = layers.EthernetTypeDot1Q
		tag := &layers.Dot1Q{VLANIdentifier: 5, Type: ether}
		if i > 0 {
			stack[len(stack)-1].(*layers.Dot1Q).Type = layers.EthernetTypeDot1Q
		}
		stack = append(stack, tag)
	}
	if v6 {
		stack = append(stack, &layers.IPv6{Version: 6, NextHeader: 253, HopLimit: 9, SrcIP: a, DstIP: b})
	} else {
		stack = append(stack, &layers.IPv4{Version: 4, Protocol: 253, TTL: 9, SrcIP: a, DstIP: b})
	}
	stack = append(stack, gopacket.Payload(fmt.Sprintf("pair %s %d", kind, number)))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestLiveFilter: a program is put in force, replaced and taken away while
// packets come, and a ring that is made anew has it, too.
func TestLiveFilter(t *testing.T) {
	left, right := pair(t)
	long, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen}, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 300, SkipFalse: 1},
		bpf.RetConstant{Val: 0x40000}, bpf.RetConstant{},
	})
	if err != nil {
		t.Fatal(err)
	}
	var log lines
	src := openLive(t, capture.LiveConfig{Interface: right, Filter: long, Log: log.logger()})
	packets := reader(t, src)
	padding := strings.Repeat("x", 400)
	filtered := func() {
		t.Helper()
		p := shows(t, packets, padding, func() { sendTagged(t, left, "short"); sendTagged(t, left, padding) })
		if p.Length < 400 {
			t.Errorf("%+v", p)
		}
		for {
			select {
			case p := <-packets:
				if strings.Contains(string(p.Data), "short") {
					t.Fatal("a packet came that the filter hides")
				}
				continue
			case <-time.After(20 * time.Millisecond):
			}
			break
		}
	}
	filtered()
	if err := src.SetFilter(nil); err != nil {
		t.Fatal(err)
	}
	shows(t, packets, "short", func() { sendTagged(t, left, "short") })
	if err := src.SetFilter(long); err != nil {
		t.Fatal(err)
	}
	ip(t, "link", "del", left)
	becomes(t, &log, "is gone")
	left, _ = pair(t)
	becomes(t, &log, "is back")
	for drained := false; !drained; {
		select {
		case <-packets: // of before the filter
		case <-time.After(50 * time.Millisecond):
			drained = true
		}
	}
	filtered()
	if err := errors.Join(src.Close(), src.SetFilter(nil)); err != nil {
		t.Error(err)
	}
}
