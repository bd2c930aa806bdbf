package guard

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// scene writes a capture, packet by packet, 10 ms apart.
type scene struct {
	t       *testing.T
	at      time.Time
	packets [][]byte
	times   []time.Time
}

func newScene(t *testing.T) *scene {
	t.Helper()
	return &scene{t: t, at: time.Unix(1_700_000_000, 0)}
}

// wait lets time pass.
func (s *scene) wait(d time.Duration) { s.at = s.at.Add(d) }

func (s *scene) add(src, dst string, proto layers.IPProtocol, rest ...gopacket.SerializableLayer) {
	s.t.Helper()
	from, to := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4}
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	if from.Is4() {
		v4 := &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
		ip, network = v4, v4
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
		ip, network = v6, v6
	}
	for _, l := range rest {
		if c, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := c.SetNetworkLayerForChecksum(network); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	buf := gopacket.NewSerializeBuffer()
	all := append([]gopacket.SerializableLayer{eth, ip}, rest...)
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		s.t.Fatal(err)
	}
	s.packets = append(s.packets, append([]byte(nil), buf.Bytes()...))
	s.times = append(s.times, s.at)
	s.wait(10 * time.Millisecond)
}

// tcp adds one segment; flags are letters of SAFRP.
func (s *scene) tcp(src, dst string, sport, dport uint16, flags string, payload []byte) {
	s.segment(src, dst, sport, dport, flags, 1000, 2000, payload)
}

func (s *scene) segment(src, dst string, sport, dport uint16, flags string, seq, ack uint32, payload []byte) {
	has := func(f string) bool { return strings.Contains(flags, f) }
	t := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: seq, Window: 64240,
		SYN: has("S"), ACK: has("A"), FIN: has("F"), RST: has("R"), PSH: has("P")}
	if t.ACK {
		t.Ack = ack
	}
	s.add(src, dst, layers.IPProtocolTCP, t, gopacket.Payload(payload))
}

// stream adds a connection in which the client sends data after the handshake.
func (s *scene) stream(src, dst string, sport, dport uint16, data string) {
	s.segment(src, dst, sport, dport, "S", 1000, 0, nil)
	s.segment(dst, src, dport, sport, "SA", 2000, 1001, nil)
	s.segment(src, dst, sport, dport, "A", 1001, 2001, nil)
	s.segment(src, dst, sport, dport, "PA", 1001, 2001, []byte(data))
}

func (s *scene) udp(src, dst string, sport, dport uint16, payload []byte) {
	s.add(src, dst, layers.IPProtocolUDP, &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}, gopacket.Payload(payload))
}

// dns adds a query or, with answer, what a resolver says to it.
func (s *scene) dns(src, dst, name string, kind layers.DNSType, answer bool) {
	msg := &layers.DNS{ID: 7, RD: true, QR: answer, Questions: []layers.DNSQuestion{{Name: []byte(name), Type: kind, Class: layers.DNSClassIN}}}
	u := &layers.UDP{SrcPort: 40000, DstPort: 53}
	if answer {
		u.SrcPort, u.DstPort = 53, 40000
	}
	s.add(src, dst, layers.IPProtocolUDP, u, msg)
}

// ping adds an ICMP message of that kind.
func (s *scene) ping(src, dst string, kind uint8, size int) {
	s.add(src, dst, layers.IPProtocolICMPv4, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0)}, gopacket.Payload(make([]byte, size)))
}

// write makes the file.
func (s *scene) write(path string) {
	s.t.Helper()
	f, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	w := pcapgo.NewWriter(f)
	err = w.WriteFileHeader(65535, layers.LinkTypeEthernet)
	for i, p := range s.packets {
		if err == nil {
			err = w.WritePacket(gopacket.CaptureInfo{Timestamp: s.times[i], CaptureLength: len(p), Length: len(p)}, p)
		}
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
