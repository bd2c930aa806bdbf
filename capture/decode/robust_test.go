package decode_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

func raw(b []byte) gopacket.Payload { return b }

func TestLinkTypes(t *testing.T) {
	v4 := build(t, ip4(layers.IPProtocolTCP), syn())
	v6 := build(t, ip6(layers.IPProtocolTCP), syn())
	null := func(family uint32, order binary.AppendByteOrder) []byte { return order.AppendUint32(nil, family) }
	sll := func(hardware, proto uint16) []byte {
		b := make([]byte, 16)
		binary.BigEndian.PutUint16(b[2:], hardware)
		binary.BigEndian.PutUint16(b[14:], proto)
		return b
	}
	sll2 := func(hardware, proto uint16) []byte {
		b := make([]byte, 20)
		binary.BigEndian.PutUint16(b, proto)
		binary.BigEndian.PutUint16(b[8:], hardware)
		return b
	}
	snap := append(make([]byte, 12), 0, 100, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0)
	for _, tt := range []struct {
		name string
		link uint32
		head []byte
		v6   bool
	}{
		{"raw", 101, nil, false}, {"raw IPv6", 101, nil, true}, {"raw of BSD", 12, nil, false}, {"raw of OpenBSD", 14, nil, true},
		{"IPv4", 228, nil, false}, {"IPv6", 229, nil, true},
		{"null, little endian", 0, null(2, binary.LittleEndian), false}, {"null, big endian", 0, null(2, binary.BigEndian), false},
		{"null of Darwin", 0, null(30, binary.LittleEndian), true}, {"null of FreeBSD", 0, null(28, binary.LittleEndian), true},
		{"loop of OpenBSD", 108, null(24, binary.BigEndian), true}, {"loop", 108, null(2, binary.BigEndian), false},
		{"cooked", 113, sll(1, 0x0800), false}, {"cooked IPv6", 113, sll(772, 0x86dd), true},
		{"cooked VLAN", 113, append(sll(1, 0x8100), 0, 5, 8, 0), false},
		{"cooked 2", 276, sll2(1, 0x0800), false}, {"cooked 2 IPv6", 276, sll2(1, 0x86dd), true},
		{"802.2 SNAP", 1, snap, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body, want := v4, record.Of(record.TypeIPv4, record.TypeTCP)
			if tt.v6 {
				body, want = v6, record.Of(record.TypeIPv6, record.TypeTCP)
			}
			set := decoded(t, tt.link, append(bytes.Clone(tt.head), body...))
			if set.Have != want || set.TCP.DstPort != 22 || !set.TCP.SYN {
				t.Errorf("records %b: %+v", set.Have, set.TCP)
			}
			for n := range tt.head { // cut inside the link header
				if set, err := try(tt.link, append(bytes.Clone(tt.head), body...)[:n], 100); set.Have != 0 || err == nil && n < 4 {
					t.Errorf("cut at %d: %b, %v", n, set.Have, err)
				}
			}
		})
	}
	// Netlink on a cooked capture, and families and protocols without IP.
	for link, data := range map[uint32][]byte{113: append(sll(824, 0x0800), v4...), 276: append(sll2(824, 0x0800), v4...), 0: null(7, binary.LittleEndian)} {
		if set, err := try(link, data, len(data)); set.Have != 0 || err != nil {
			t.Errorf("link %d: %b, %v", link, set.Have, err)
		}
	}
}

// Both packages have a list of link types, because neither may import the
// other.
func TestLinkTypesOfCapture(t *testing.T) {
	for link := range uint32(400) {
		_, err := try(link, nil, 0)
		var e *decode.Error
		if !errors.As(err, &e) {
			t.Fatalf("link type %d: %v", link, err)
		}
		if known := e.Why != "unsupported link type"; known != capture.LinkType(link).Supported() {
			t.Errorf("link type %d: decoded %v, opened %v", link, known, !known)
		}
	}
}

func TestLayersThatCannotBe(t *testing.T) {
	base := frames(t)["SYN"].data
	with := func(edit func(b []byte)) []byte { b := bytes.Clone(base); edit(b); return b }
	ip := record.Of(record.TypeIPv4)
	v6 := frames(t)["IPv6 TCP"].data
	deep := ip6(layers.IPProtocolIPv6Destination)
	chain := bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 20)
	tags := append(bytes.Clone(base[:12]), bytes.Repeat([]byte{0x81, 0, 0, 1}, 17)...)
	for _, tt := range []struct {
		name  string
		data  []byte
		layer decode.Layer
		have  record.Mask
	}{
		{"frame of 10 bytes", base[:10], decode.LayerLink, 0},
		{"17 VLAN tags", append(tags, base[12:]...), decode.LayerLink, 0},
		{"VLAN tag cut", append(bytes.Clone(base[:12]), 0x81, 0, 0), decode.LayerLink, 0},
		{"IP version 5", with(func(b []byte) { b[14] = 0x55 }), decode.LayerIPv4, 0},
		{"IHL 4", with(func(b []byte) { b[14] = 0x44 }), decode.LayerIPv4, 0},
		{"total length 19", with(func(b []byte) { b[17] = 19 }), decode.LayerIPv4, 0},
		{"IP option too long", with(func(b []byte) { b[14] = 0x46; b[34], b[35] = 7, 200; b[46+4] = 5 << 4 }), decode.LayerIPv4, ip | record.Of(record.TypeTCP)},
		{"segment of 12 bytes", with(func(b []byte) { b[17] = 32 }), decode.LayerTCP, ip},
		{"data offset 4", with(func(b []byte) { b[46] = 4 << 4 }), decode.LayerTCP, ip},
		{"data offset beyond", with(func(b []byte) { b[46] = 11 << 4 }), decode.LayerTCP, ip},
		{"TCP option of length 0", with(func(b []byte) { b[55] = 0 }), decode.LayerTCP, ip | record.Of(record.TypeTCP)},
		{"TCP option too long", with(func(b []byte) { b[55] = 41 }), decode.LayerTCP, ip | record.Of(record.TypeTCP)},
		{"IPv6 version 4", func() []byte { b := bytes.Clone(v6); b[14] = 0x45; return b }(), decode.LayerIPv6, 0},
		{"20 extension headers", build(t, eth(layers.EthernetTypeIPv6), deep, raw(chain)), decode.LayerIPv6, record.Of(record.TypeIPv6)},
		{"extension header cut", build(t, eth(layers.EthernetTypeIPv6), deep, raw([]byte{6, 9, 0, 0, 0, 0, 0, 0})), decode.LayerIPv6, record.Of(record.TypeIPv6)},
		{"UDP length 7", build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), raw([]byte{0, 1, 0, 2, 0, 7, 0, 0})), decode.LayerUDP, ip},
		{"UDP of 7 bytes", build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), raw([]byte{0, 1, 0, 2, 0, 7, 0})), decode.LayerUDP, ip},
		{"ICMP of 7 bytes", build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), raw(make([]byte, 7))), decode.LayerICMPv4, ip},
		{"ICMPv6 of 3 bytes", build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), raw(make([]byte, 3))), decode.LayerICMPv6, record.Of(record.TypeIPv6)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := &record.Set{}
			dec := decode.New(everything())
			err := dec.Decode(ethernet, tt.data, len(tt.data), set)
			var e *decode.Error
			if !errors.As(err, &e) || e.Layer != tt.layer || set.Have != tt.have {
				t.Errorf("error %v, records %b; want layer %v, records %b", err, set.Have, tt.layer, tt.have)
			}
			if n := dec.Errors(); n.Of(tt.layer) != 1 || n.Total() != 1 {
				t.Errorf("counted %v", n)
			}
		})
	}
}

// A packet cut by the snap length gives what is there, and the sizes its
// headers state.
func TestCutBySnapLength(t *testing.T) {
	whole := build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), syn(), payload(1000))
	for _, tt := range []struct {
		name string
		snap int
		tcp  bool
		fail bool
		mss  int32
		data int
	}{
		{"in the payload", 14 + 20 + 40 + 100, true, false, 1460, 100},
		{"in the options", 14 + 20 + 20 + 4, true, false, 1460, 0},
		{"behind the header", 14 + 20 + 20, true, false, 0, 0},
		{"behind the flags", 14 + 20 + 14, true, false, 0, 0},
		{"before the flags", 14 + 20 + 13, false, true, 0, 0},
		{"in the IP header", 14 + 19, false, true, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := try(ethernet, whole[:tt.snap], len(whole))
			if (err != nil) != tt.fail || set.Have.Has(record.TypeTCP) != tt.tcp {
				t.Fatalf("records %b, %v", set.Have, err)
			}
			if !tt.tcp {
				return
			}
			r := set.TCP
			if !r.SYN || r.DstPort != 22 || r.PayloadSize != 1000 || r.MSS != tt.mss || len(r.Payload) != tt.data || set.IPv4.PayloadSize != 1040 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestSizesAgainstPaddingAndOffload(t *testing.T) {
	small := append(build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), tcp(func(l *layers.TCP) { l.SYN = true })), make([]byte, 6)...)
	if set := decoded(t, ethernet, small); set.TCP.PayloadSize != 0 || len(set.TCP.Payload) != 0 {
		t.Errorf("Ethernet padding counts as payload: %+v", set.TCP)
	}
	big := build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), syn(), payload(3000))
	big[16], big[17] = 0, 0 // the total length of a segment not yet cut
	if set := decoded(t, ethernet, big); set.TCP.PayloadSize != 3000 || set.IPv4.Length != 0 || set.IPv4.PayloadSize != 3040 {
		t.Errorf("total length 0: %+v", set.TCP)
	}
	six := build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolTCP), syn(), payload(3000))
	six[18], six[19] = 0, 0
	if set := decoded(t, ethernet, six); set.TCP.PayloadSize != 3000 {
		t.Errorf("IPv6 payload length 0: %+v", set.TCP)
	}
	datagram := build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(9999), payload(300))
	datagram[38], datagram[39] = 0, 0
	if set := decoded(t, ethernet, datagram); set.UDP.PayloadSize != 300 || set.UDP.Length != 0 {
		t.Errorf("UDP length 0: %+v", set.UDP)
	}
}

// The segment that an ICMP error quotes is not traffic.
func TestQuotedSegmentIsNoTraffic(t *testing.T) {
	quoted := build(t, ip4(layers.IPProtocolTCP), syn())
	data := build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, raw(quoted))
	if set := decoded(t, ethernet, data); set.Have != record.Of(record.TypeIPv4, record.TypeICMPv4) || set.DstPort != 0 {
		t.Errorf("records %b, header %+v", set.Have, set.Header)
	}
}

// What one packet filled must not show in the next.
func TestNothingIsLeftOver(t *testing.T) {
	all := frames(t)
	for first, a := range all {
		for second, b := range all {
			dec, set := decode.New(everything()), &record.Set{Header: record.Header{Time: 1700000000123456789, Packet: 5}}
			for _, data := range [][]byte{a.data, b.data} {
				if err := dec.Decode(ethernet, data, len(data), set); err != nil {
					t.Fatal(err)
				}
			}
			want := decoded(t, ethernet, b.data)
			if set.Header != want.Header || set.Have != want.Have {
				t.Errorf("%s after %s: header %+v", second, first, set.Header)
			}
			for have := set.Have; have != 0; {
				typ := have.Next()
				if diff := compare(set.Record(typ), want.Record(typ)); diff != "" {
					t.Errorf("%s after %s: %v: %s", second, first, typ, diff)
				}
			}
		}
	}
}
