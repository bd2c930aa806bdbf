package decode_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

// wrapping is a way to carry a packet in another.
type wrapping struct {
	name string
	// tunnel: it is taken off only where that was asked for.
	tunnel bool
	link   uint32
	// wrap puts the IPv4 packet into a frame of the link type.
	wrap func(t testing.TB, inner []byte) []byte
}

// frame is the inner packet in an Ethernet frame.
func frame(t testing.TB, inner []byte) []byte {
	t.Helper()
	return build(t, eth(layers.EthernetTypeIPv4), raw(inner))
}

var outer4, outer6 = netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:ffff::1")

// carried is an IPv4 packet of another source that carries body.
func carried(t testing.TB, proto layers.IPProtocol, body []byte) []byte {
	t.Helper()
	head := ip4(proto)
	head.SrcIP = outer4.AsSlice()
	return build(t, eth(layers.EthernetTypeIPv4), head, raw(body))
}

// datagram is a UDP datagram to a port.
func datagram(t testing.TB, port layers.UDPPort, body ...[]byte) []byte {
	t.Helper()
	head := ip4(layers.IPProtocolUDP)
	head.SrcIP = outer4.AsSlice()
	return build(t, eth(layers.EthernetTypeIPv4), head, udp(port), raw(bytes.Join(body, nil)))
}

// behind puts bytes before the inner packet or frame.
func behind(head string, inner []byte) []byte { return append([]byte(head), inner...) }

func wrappings() []wrapping {
	ether := func(head string) func(testing.TB, []byte) []byte {
		return func(_ testing.TB, inner []byte) []byte {
			return behind("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01"+head, inner)
		}
	}
	etherFrame := func(head string) func(testing.TB, []byte) []byte {
		return func(t testing.TB, inner []byte) []byte { return ether(head)(t, frame(t, inner)) }
	}
	plain := func(head string) func(testing.TB, []byte) []byte {
		return func(_ testing.TB, inner []byte) []byte { return behind(head, inner) }
	}
	gre := func(head string) func(testing.TB, []byte) []byte {
		return func(t testing.TB, inner []byte) []byte { return carried(t, layers.IPProtocolGRE, behind(head, inner)) }
	}
	greFrame := func(head string) func(testing.TB, []byte) []byte {
		return func(t testing.TB, inner []byte) []byte { return gre(head)(t, frame(t, inner)) }
	}
	port := func(port layers.UDPPort, head string) func(testing.TB, []byte) []byte {
		return func(t testing.TB, inner []byte) []byte { return datagram(t, port, []byte(head), inner) }
	}
	portFrame := func(n layers.UDPPort, head string) func(testing.TB, []byte) []byte {
		return func(t testing.TB, inner []byte) []byte { return port(n, head)(t, frame(t, inner)) }
	}
	sized := func(head string, extra int) func(testing.TB, []byte) []byte { // a length before the packet
		return func(t testing.TB, inner []byte) []byte {
			n := binary.BigEndian.AppendUint16([]byte(head), uint16(len(inner)+extra))
			return ether("\x88\x64")(t, append(append(n, 0, 0x21), inner...))
		}
	}
	return []wrapping{
		{"802.1Q", false, 1, ether("\x81\x00\x00\x05\x08\x00")},
		{"802.1ad", false, 1, ether("\x88\xa8\x00\x05\x81\x00\x00\x06\x08\x00")},
		{"VN-tag", false, 1, ether("\x89\x26\x00\x00\x00\x00\x08\x00")},
		{"802.1BR", false, 1, ether("\x89\x3f\x00\x00\x00\x00\x00\x00\x08\x00")},
		{"802.1ah", false, 1, etherFrame("\x88\xe7\x00\x00\x00\x01")},
		{"MPLS", false, 1, ether("\x88\x47\x00\x01\x00\x40\x00\x02\x01\x40")},
		{"Ethernet over MPLS", false, 1, etherFrame("\x88\x47\x00\x01\x01\x40\x00\x00\x00\x00")},
		{"PPPoE", false, 1, sized("\x11\x00\x00\x07", 2)},
		{"NSH", false, 1, ether("\x89\x4f\x0f\xc2\x02\x01\x00\x00\x01\xff")},
		{"SNAP", false, 1, ether("\x01\x00\xaa\xaa\x03\x00\x00\x00\x08\x00")},
		{"PPP", false, 9, plain("\xff\x03\x00\x21")},
		{"PPP, protocol of one byte", false, 9, plain("\x21")},
		{"PPP multilink", false, 9, plain("\xff\x03\x00\x3d\xc0\x00\x00\x01\x21")},
		{"Cisco HDLC", false, 104, plain("\x0f\x00\x08\x00")},
		{"Cisco HDLC as PPP", false, 50, plain("\x0f\x00\x08\x00")},
		{"PPPoE as link", false, 51, func(t testing.TB, inner []byte) []byte { return sized("\x11\x00\x00\x07", 2)(t, inner)[14:] }},
		{"frame relay", false, 107, plain("\x18\x41\x03\xcc")},
		{"frame relay, SNAP", false, 107, plain("\x18\x41\x03\x00\x80\x00\x00\x00\x08\x00")},
		{"frame relay, Cisco", false, 107, plain("\x18\x41\x08\x00")},
		{"ATM", false, 100, plain("\xaa\xaa\x03\x00\x00\x00\x08\x00")},
		{"SLIP", false, 8, plain("\x01" + string(make([]byte, 15)))},
		{"NFLOG", false, 239, func(_ testing.TB, inner []byte) []byte {
			head := []byte("\x02\x00\x00\x4d\x05\x00\x0a\x00x\x00\x00\x00")
			return append(append(binary.LittleEndian.AppendUint16(head, uint16(len(inner)+4)), 9, 0), inner...)
		}},
		{"802.11", false, 105, plain("\x08\x02" + string(make([]byte, 22)) + "\xaa\xaa\x03\x00\x00\x00\x08\x00")},
		{"802.11 QoS, four addresses", false, 105, plain("\x88\x03" + string(make([]byte, 30)) + "\xaa\xaa\x03\x00\x00\x00\x08\x00")},
		{"radiotap, padded", false, 127, plain("\x00\x00\x09\x00\x02\x00\x00\x00\x20\x88\x02" + string(make([]byte, 26)) + "\xaa\xaa\x03\x00\x00\x00\x08\x00")},
		{"IP in IP", true, 1, func(t testing.TB, inner []byte) []byte { return carried(t, 4, inner) }},
		{"IPv4 in IPv6", true, 1, func(t testing.TB, inner []byte) []byte {
			head := ip6(4)
			head.SrcIP = outer6.AsSlice()
			return build(t, eth(layers.EthernetTypeIPv6), head, raw(inner))
		}},
		{"EtherIP", true, 1, func(t testing.TB, inner []byte) []byte { return carried(t, 97, behind("\x30\x00", frame(t, inner))) }},
		{"GRE", true, 1, gre("\x00\x00\x08\x00")},
		{"GRE, checksum, key and sequence", true, 1, gre("\xb0\x00\x08\x00" + string(make([]byte, 12)))},
		{"GRE, source routes", true, 1, gre("\x40\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x04\x01\x02\x03\x04\x00\x00\x00\x00")},
		{"GRE, Ethernet", true, 1, greFrame("\x00\x00\x65\x58")},
		{"PPTP", true, 1, gre("\x30\x81\x88\x0b" + string(make([]byte, 12)) + "\xff\x03\x00\x21")},
		{"ERSPAN I", true, 1, greFrame("\x00\x00\x88\xbe")},
		{"ERSPAN II", true, 1, greFrame("\x10\x00\x88\xbe" + string(make([]byte, 12)))},
		{"ERSPAN III", true, 1, greFrame("\x10\x00\x22\xeb" + string(make([]byte, 16)))},
		{"ERSPAN III, subheader", true, 1, greFrame("\x10\x00\x22\xeb" + string(make([]byte, 15)) + "\x01" + string(make([]byte, 8)))},
		{"VXLAN", true, 1, portFrame(4789, "\x08\x00\x00\x00\x00\x00\x07\x00")},
		{"VXLAN of old Linux", true, 1, portFrame(8472, "\x08\x00\x00\x00\x00\x00\x07\x01")},
		{"VXLAN-GPE", true, 1, port(4790, "\x0c\x00\x00\x01\x00\x00\x07\x00")},
		{"Geneve", true, 1, portFrame(6081, "\x02\x00\x65\x58\x00\x00\x07\x00"+string(make([]byte, 8)))},
		{"GTP", true, 1, port(2152, "\x30\xff\x00\x00\x00\x00\x00\x01")},
		{"GTP, extension", true, 1, port(2152, "\x34\xff\x00\x00\x00\x00\x00\x01\x00\x00\x00\x85\x01\x00\x00\x00")},
	}
}

// Whatever carries the segment, its own addresses count; where the carrier can
// come from anywhere, only if that was asked for.
func TestWrappings(t *testing.T) {
	inner := build(t, ip4(layers.IPProtocolTCP), syn(), payload(8))
	for _, tt := range wrappings() {
		t.Run(tt.name, func(t *testing.T) {
			data := tt.wrap(t, inner)
			for _, decap := range []bool{false, true} {
				dec, set := decode.New(everything()), &record.Set{}
				dec.SetDecap(decap)
				if err := dec.Decode(tt.link, data, len(data), set); err != nil {
					t.Fatalf("% x: %v", data, err)
				}
				outer := dec.Outer(set)
				if tt.tunnel && !decap {
					if set.Have.Has(record.TypeTCP) || set.Src == src4 || outer.Src != set.Src {
						t.Errorf("the tunnel was taken off: records %b of %v", set.Have, set.Src)
					}
					continue
				}
				if set.Have != record.Of(record.TypeIPv4, record.TypeTCP) || set.Src != src4 || set.Dst != dst4 || set.Proto != 6 ||
					set.SrcPort != 40000 || set.DstPort != 22 || set.TCP.PayloadSize != 8 || !bytes.Equal(set.TCP.Payload, payload(8)) {
					t.Errorf("records %b, header %+v, payload %d", set.Have, set.Header, set.TCP.PayloadSize)
				}
				if tt.tunnel != (outer.Src == outer4 || outer.Src == outer6) {
					t.Errorf("outer %+v", outer)
				}
			}
		})
	}
}

// Cut anywhere, a wrapped packet is no panic, and no other addresses than
// those of its headers.
func TestWrappingsCut(t *testing.T) {
	inner := build(t, ip4(layers.IPProtocolTCP), syn(), payload(8))
	for _, tt := range wrappings() {
		data := tt.wrap(t, inner)
		dec, set := decode.New(everything()), &record.Set{}
		dec.SetDecap(true)
		for n := range data {
			err := dec.Decode(tt.link, data[:n:n], len(data), set)
			var e *decode.Error
			if err != nil && !errors.As(err, &e) {
				t.Fatalf("%s cut at %d: %v", tt.name, n, err)
			}
			if set.Src.IsValid() && set.Src != src4 && set.Src != outer4 && set.Src != outer6 {
				t.Errorf("%s cut at %d: from %v", tt.name, n, set.Src)
			}
		}
	}
}

// Tunnels in tunnels end: eight headers, then an error.
func TestNesting(t *testing.T) {
	for headers := 1; headers <= 12; headers++ {
		data := build(t, ip4(layers.IPProtocolTCP), syn())
		for range headers - 1 {
			data = build(t, ip4(4), raw(data))
		}
		dec, set := decode.New(everything()), &record.Set{}
		dec.SetDecap(true)
		err := dec.Decode(101, data, len(data), set)
		var e *decode.Error
		if tooMany := headers > 8; errors.As(err, &e) != tooMany || set.Have.Has(record.TypeTCP) == tooMany {
			t.Errorf("%d headers: %v, records %b", headers, err, set.Have)
		}
		if e != nil && e.Layer != decode.LayerTunnel {
			t.Errorf("%d headers: %v", headers, err)
		}
	}
}

// What looks like a tunnel and is none stays a datagram.
func TestNoTunnel(t *testing.T) {
	for name, data := range map[string][]byte{
		"VXLAN without its flag":     datagram(t, 4789, make([]byte, 8), make([]byte, 60)),
		"Geneve of version 1":        datagram(t, 6081, []byte{0x40, 0, 0x65, 0x58, 0, 0, 0, 0}, make([]byte, 60)),
		"GTP that is no user's data": datagram(t, 2152, []byte{0x30, 1, 0, 0, 0, 0, 0, 0}, make([]byte, 60)),
		"Teredo of other bytes":      datagram(t, 3544, make([]byte, 60)),
		"AYIYA of other bytes":       datagram(t, 5072, make([]byte, 60)),
		"VXLAN around nonsense":      datagram(t, 4789, []byte("\x08\x00\x00\x00\x00\x00\x07\x00"), make([]byte, 60)),
		"VXLAN around no packet":     datagram(t, 4789, []byte("\x08\x00\x00\x00\x00\x00\x07\x00"), []byte("\x01\x02")),
	} {
		dec, set := decode.New(everything()), &record.Set{}
		dec.SetDecap(true)
		_ = dec.Decode(1, data, len(data), set) // some of it may be broken
		if set.Have != record.Of(record.TypeIPv4, record.TypeUDP) || set.Src != outer4 || set.SrcPort != 50000 {
			t.Errorf("%s: records %b, header %+v", name, set.Have, set.Header)
		}
	}
}

// A fragmented tunnel whose inner packet comes in fragments, too.
func TestFragmentsInFragments(t *testing.T) {
	whole := segment(t, 3000)
	dec, set := decode.New(everything()), &record.Set{}
	dec.SetDecap(true)
	got := 0
	for i, inner := range fragmented(t, false, 6, 5, whole, pieces(len(whole), 1024)) {
		for _, data := range fragmented(t, true, 4, uint32(100+i), inner[14:], pieces(len(inner)-14, 512)) {
			if err := dec.Decode(ethernet, data, len(data), set); err != nil {
				t.Fatal(err)
			}
			if set.Have.Has(record.TypeTCP) {
				got++
				if !bytes.Equal(set.TCP.Payload, payload(3000)) || set.Src != src4 {
					t.Errorf("%d bytes from %v", len(set.TCP.Payload), set.Src)
				}
			}
		}
	}
	if got != 1 {
		t.Errorf("seen %d times", got)
	}
}

// The records of a tunnel's own packet do not stand beside those it carries.
func TestInnerTakesThePlace(t *testing.T) {
	data := datagram(t, 4789, []byte("\x08\x00\x00\x00\x00\x00\x07\x00"), arpFrame(t, 1, "192.0.2.7", "192.0.2.8"))
	dec, set := decode.New(everything()), &record.Set{}
	dec.SetDecap(true)
	if err := dec.Decode(1, data, len(data), set); err != nil || set.Have != record.Of(record.TypeARP) || set.DstPort != 0 {
		t.Errorf("records %b, %+v, %v", set.Have, set.Header, err)
	}
}
