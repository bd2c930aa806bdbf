package capture_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// ip runs the program ip in the test's own namespace.
func ip(t testing.TB, args ...string) {
	t.Helper()
	nstest.Tool(t, "ip")
	if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// pair makes a veth pair whose left end reaches 10.99.0.2 at the right end's
// link address.
func pair(t testing.TB) (left, right string) {
	t.Helper()
	left, right = "left0", "right0"
	const mac = "02:00:00:00:00:02"
	ip(t, "link", "add", left, "type", "veth", "peer", "name", right, "address", mac)
	t.Cleanup(func() {
		_ = exec.Command("ip", "link", "del", left).Run() // a test may have removed it
	})
	ip(t, "link", "set", left, "up")
	ip(t, "link", "set", right, "up")
	ip(t, "addr", "add", "10.99.0.1/24", "dev", left)
	ip(t, "neigh", "add", "10.99.0.2", "lladdr", mac, "dev", left)
	return left, right
}

// sendTagged sends a UDP datagram in a frame with the VLAN tag 5 out of the
// interface. The kernel that receives it takes the tag off, as for a card that
// does so.
func sendTagged(t testing.TB, iface, payload string) {
	t.Helper()
	network := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{10, 99, 0, 1}, DstIP: net.IP{10, 99, 0, 2}}
	transport := &layers.UDP{SrcPort: 1, DstPort: 9}
	if err := transport.SetNetworkLayerForChecksum(network); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeDot1Q},
		&layers.Dot1Q{VLANIdentifier: 5, Priority: 3, Type: layers.EthernetTypeIPv4}, network, transport, gopacket.Payload(payload))
	if err != nil {
		t.Fatal(err)
	}
	blast(t, iface, buf.Bytes())
}

// blast sends frames as they are out of an Ethernet interface.
func blast(t testing.TB, iface string, frames ...[]byte) {
	t.Helper()
	s, err := nstest.NewSender(iface)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Send(frames...), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// send sends one UDP datagram for each payload, from a socket that no ICMP
// error comes back to.
func send(t testing.TB, to string, payloads ...string) {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, p := range payloads {
		if _, err := conn.WriteTo([]byte(p), addr); err != nil {
			t.Fatal(err)
		}
	}
}

// receive waits until the socket has received n datagrams.
func receive(t testing.TB, conn net.PacketConn, n int) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, _, err := conn.ReadFrom(make([]byte, 2000)); err != nil {
			t.Fatalf("datagram %d of %d: %v", i+1, n, err)
		}
	}
}

func openLive(t testing.TB, config capture.LiveConfig) capture.LiveSource {
	t.Helper()
	src, err := capture.OpenLive(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	return src
}

// await reads until a UDP datagram with the payload comes. A capture that
// never shows it is closed after ten seconds.
func await(t testing.TB, src capture.Source, payload string) (capture.Packet, gopacket.Packet) {
	t.Helper()
	alarm := time.AfterFunc(10*time.Second, func() { _ = src.Close() })
	defer alarm.Stop()
	for {
		var p capture.Packet
		if err := src.Next(&p); err != nil {
			t.Fatalf("waiting for %q: %v", payload, err)
		}
		first := gopacket.Decoder(layers.LayerTypeEthernet)
		if p.Link == capture.LinkLinuxSLL {
			first = layers.LayerTypeLinuxSLL
		}
		packet := gopacket.NewPacket(p.Data, first, gopacket.Default)
		if app := packet.ApplicationLayer(); app != nil && string(app.Payload()) == payload {
			return p, packet
		}
	}
}

func TestLiveLoopback(t *testing.T) {
	before := time.Now()
	src := openLive(t, capture.LiveConfig{Interface: "lo"})
	send(t, "127.0.0.1:9", "one", "two", "three")
	send(t, "[::1]:9", "four")
	var last uint64
	for i, want := range []string{"one", "two", "three", "four"} {
		p, _ := await(t, src, want)
		if p.Outgoing || p.Link != capture.LinkEthernet || p.Length != len(p.Data) || p.Number <= last {
			t.Errorf("packet %d: %+v", i, p)
		}
		if at := time.Unix(0, p.Time); at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("packet %d is from %v", i, at)
		}
		last = p.Number
	}
}

// Each packet on lo is shown once.
func TestLiveLoopbackShowsEachPacketOnce(t *testing.T) {
	for _, name := range []string{"lo", capture.AnyInterface} {
		t.Run(name, func(t *testing.T) {
			src := openLive(t, capture.LiveConfig{Interface: name})
			send(t, "127.0.0.1:9", "once", "end")
			seen := 0
			for {
				var p capture.Packet
				if err := src.Next(&p); err != nil {
					t.Fatal(err)
				}
				// ICMP errors quote the datagram and are longer.
				if strings.HasSuffix(string(p.Data), "once") && len(p.Data) <= 16+20+8+len("once") {
					seen++
				}
				if strings.HasSuffix(string(p.Data), "end") {
					break
				}
			}
			if seen != 1 {
				t.Errorf("seen %d times", seen)
			}
		})
	}
}

func TestLiveDirectionAndVLAN(t *testing.T) {
	left, right := pair(t)
	for _, tt := range []struct {
		iface    string
		outgoing bool
		link     capture.LinkType
	}{
		{right, false, capture.LinkEthernet},
		{left, true, capture.LinkEthernet},
		{capture.AnyInterface, true, capture.LinkEthernet},
	} {
		t.Run(tt.iface, func(t *testing.T) {
			src := openLive(t, capture.LiveConfig{Interface: tt.iface, Promiscuous: true})
			send(t, "10.99.0.2:9", "untagged "+tt.iface)
			p, packet := await(t, src, "untagged "+tt.iface)
			if p.Outgoing != tt.outgoing || p.Link != tt.link || packet.Layer(layers.LayerTypeDot1Q) != nil {
				t.Errorf("untagged: %+v: %v", p, packet)
			}
			if tt.iface != capture.AnyInterface && p.Iface != index(t, tt.iface) {
				t.Errorf("interface %d", p.Iface)
			}
			sendTagged(t, left, "tagged "+tt.iface)
			for {
				p, packet = await(t, src, "tagged "+tt.iface)
				// On any, left's outgoing copy comes first; its tag is in its
				// place, so nothing is put back.
				if tt.iface != capture.AnyInterface || p.Iface == index(t, right) {
					break
				}
			}
			tag, ok := packet.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q)
			if !ok || tag.VLANIdentifier != 5 || tag.Priority != 3 || tag.Type != layers.EthernetTypeIPv4 || p.Length != len(p.Data) {
				t.Errorf("tagged: %+v: %v", p, packet)
			}
		})
	}
}

func index(t testing.TB, name string) int {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return i.Index
}

func TestLiveSnapLength(t *testing.T) {
	_, right := pair(t)
	src := openLive(t, capture.LiveConfig{Interface: right, SnapLen: 50})
	send(t, "10.99.0.2:9", strings.Repeat("x", 500))
	for {
		var p capture.Packet
		if err := src.Next(&p); err != nil {
			t.Fatal(err)
		}
		if p.Length == 14+20+8+500 {
			if len(p.Data) != 50 {
				t.Errorf("%d bytes kept", len(p.Data))
			}
			return
		}
	}
}

func TestLiveCloseEndsNext(t *testing.T) {
	left, _ := pair(t)
	src := openLive(t, capture.LiveConfig{Interface: left})
	done := make(chan error)
	go func() {
		for {
			if err := src.Next(new(capture.Packet)); err != nil {
				done <- err
				return
			}
		}
	}()
	if err := errors.Join(src.Close(), src.Close()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Next still waits")
	}
	_ = src.Stats() // after Close, too
}

// What came before Finish is given after it, and nothing that came later.
func TestLiveFinish(t *testing.T) {
	src := openLive(t, capture.LiveConfig{Interface: "lo"})
	const sent = 50
	// What a socket has received, the capture has seen before: without waiting
	// for that, packets may still be on their way through lo.
	receiver, err := net.ListenPacket("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = receiver.Close() })
	payloads := slices.Repeat([]string{"before"}, sent)
	send(t, "127.0.0.1:9", payloads...)
	receive(t, receiver, sent)
	if err := errors.Join(src.Finish(), src.Finish()); err != nil {
		t.Fatal(err)
	}
	send(t, "127.0.0.1:9", "later")
	got := 0
	for {
		var p capture.Packet
		if err := src.Next(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		switch data := string(p.Data); {
		case strings.HasSuffix(data, "later"):
			t.Error("a later packet")
		case strings.HasSuffix(data, "before") && p.Data[14+9] == unix.IPPROTO_UDP:
			got++
		}
	}
	if err := src.Next(new(capture.Packet)); got != sent || !errors.Is(err, io.EOF) {
		t.Errorf("%d of %d packets, then %v", got, sent, err)
	}
}

func TestLiveFinishEndsNext(t *testing.T) {
	left, _ := pair(t)
	src := openLive(t, capture.LiveConfig{Interface: left})
	done := make(chan error)
	go func() {
		for {
			if err := src.Next(new(capture.Packet)); err != nil {
				done <- err
				return
			}
		}
	}()
	if err := src.Finish(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Next still waits")
	}
	if err := errors.Join(src.Close(), src.Finish()); err != nil {
		t.Error(err)
	}
}

func TestLiveInterfaceGoesDownAndUp(t *testing.T) {
	_, right := pair(t)
	src := openLive(t, capture.LiveConfig{Interface: right})
	ip(t, "link", "set", right, "down")
	ip(t, "link", "set", right, "up")
	// Once more and once more: what is sent before the link has its carrier
	// back, or the neighbour is known again, is lost on the way.
	conn, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	sending, stop := context.WithCancel(t.Context())
	var sender sync.WaitGroup
	sender.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); sending.Err() == nil; <-tick.C {
			_, _ = conn.WriteTo([]byte("up again"), &net.UDPAddr{IP: net.IP{10, 99, 0, 2}, Port: 9}) // refused until the link is up
		}
	})
	await(t, src, "up again")
	stop()
	sender.Wait()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestLiveErrors(t *testing.T) {
	for _, name := range []string{"nosuch0", "a-name-no-interface-can-have", ""} {
		_, err := capture.OpenLive(capture.LiveConfig{Interface: name})
		if !errors.Is(err, capture.ErrInterface) || !strings.Contains(fmt.Sprint(err), "lo, ") {
			t.Errorf("%q: %v", name, err)
		}
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies with its lack of privilege
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			failed <- err
			return
		}
		_, err := capture.OpenLive(capture.LiveConfig{Interface: "lo"})
		failed <- err
	}()
	if err := <-failed; !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_RAW") {
		t.Errorf("without privilege: %v", err)
	}
}

func TestLiveCountsDrops(t *testing.T) {
	src := openLive(t, capture.LiveConfig{Interface: "lo", RingBytes: 64 << 10})
	const sent = 500
	payloads := make([]string, sent)
	for i := range payloads {
		payloads[i] = strings.Repeat("x", 1000)
	}
	receiver, err := net.ListenPacket("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = receiver.Close() })
	for rest := payloads; len(rest) > 0; rest = rest[50:] { // no more than its buffer holds
		send(t, "127.0.0.1:9", rest[:50]...)
		receive(t, receiver, 50)
	}
	first := src.Stats()
	if first.Dropped == 0 || first.Received == 0 || first.Received+first.Dropped < sent {
		t.Errorf("stats %+v of %d packets", first, sent)
	}
	if second := src.Stats(); second.Dropped < first.Dropped || second.Received < first.Received {
		t.Errorf("stats went back from %+v to %+v", first, second)
	}
}

func TestLiveNextDoesNotAllocate(t *testing.T) {
	src := openLive(t, capture.LiveConfig{Interface: "lo"})
	const runs = 100
	payloads := make([]string, runs+10)
	for i := range payloads {
		payloads[i] = "x"
	}
	send(t, "127.0.0.1:9", payloads...)
	var p capture.Packet
	if n := testing.AllocsPerRun(runs, func() {
		if err := src.Next(&p); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
