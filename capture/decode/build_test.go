package decode_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

const ethernet = 1 // the link type

var (
	src4, dst4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	src6, dst6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

func eth(kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: kind}
}

func ip4(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 77, TOS: 0x2e<<2 | 1, Flags: layers.IPv4DontFragment, Protocol: proto,
		SrcIP: src4.AsSlice(), DstIP: dst4.AsSlice()}
}

func ip6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 63, TrafficClass: 0xb9, FlowLabel: 0x12345, NextHeader: next,
		SrcIP: src6.AsSlice(), DstIP: dst6.AsSlice()}
}

func synOptions() []layers.TCPOption {
	return []layers.TCPOption{
		{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 0xb4}},
		{OptionType: layers.TCPOptionKindSACKPermitted, OptionLength: 2},
		{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{0, 0, 1, 0, 0, 0, 2, 0}},
		{OptionType: layers.TCPOptionKindNop, OptionLength: 1},
		{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{7}},
	}
}

func tcp(set func(*layers.TCP)) *layers.TCP {
	l := &layers.TCP{SrcPort: 40000, DstPort: 22, Seq: 0x01020304, Window: 64240}
	set(l)
	return l
}

func syn() *layers.TCP {
	return tcp(func(l *layers.TCP) { l.SYN, l.Options = true, synOptions() })
}

func udp(dst layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: 50000, DstPort: dst} }

// build serializes layers with gopacket, lengths and checksums filled.
func build(t testing.TB, list ...gopacket.SerializableLayer) []byte {
	t.Helper()
	var network gopacket.NetworkLayer
	for _, l := range list {
		switch l := l.(type) {
		case *layers.IPv4:
			network = l
		case *layers.IPv6:
			network = l
		case interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}:
			if err := l.SetNetworkLayerForChecksum(network); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// payload is a gopacket payload of n bytes.
func payload(n int) gopacket.Payload {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i * 7)
	}
	return p
}

// decoded decodes one whole packet with everything asked for.
func decoded(t testing.TB, link uint32, data []byte) *record.Set {
	t.Helper()
	set, err := try(link, data, len(data))
	if err != nil {
		t.Fatalf("decode % x: %v", data, err)
	}
	return set
}

// try is decoded for packets that may be broken or cut.
func try(link uint32, data []byte, length int) (*record.Set, error) {
	set := &record.Set{Header: record.Header{Time: 1700000000123456789, Packet: 5}}
	err := decode.New(everything()).Decode(link, data, length, set)
	return set, err
}

// query is a DNS query for name.
func query(name string) *layers.DNS {
	return &layers.DNS{ID: 0x1234, RD: true, Questions: []layers.DNSQuestion{
		{Name: []byte(name), Type: layers.DNSTypeTXT, Class: layers.DNSClassIN}}}
}

// answer is a DNS answer with a record of every kind that has a field.
func answer() *layers.DNS {
	rr := func(kind layers.DNSType, set func(*layers.DNSResourceRecord)) layers.DNSResourceRecord {
		r := layers.DNSResourceRecord{Name: []byte("www.example.com"), Type: kind, Class: layers.DNSClassIN, TTL: 300}
		set(&r)
		return r
	}
	return &layers.DNS{ID: 0x4321, QR: true, AA: true, TC: true, RD: true, RA: true, Z: 2, OpCode: 4,
		ResponseCode: layers.DNSResponseCodeNXDomain,
		Questions:    []layers.DNSQuestion{{Name: []byte("www.example.com"), Type: layers.DNSTypeA, Class: layers.DNSClassIN}},
		Answers: []layers.DNSResourceRecord{
			rr(layers.DNSTypeA, func(r *layers.DNSResourceRecord) { r.IP = net.IP{192, 0, 2, 7} }),
			rr(layers.DNSTypeAAAA, func(r *layers.DNSResourceRecord) { r.IP = dst6.AsSlice() }),
			rr(layers.DNSTypeCNAME, func(r *layers.DNSResourceRecord) { r.CNAME = []byte("alias.example.net") }),
			rr(layers.DNSTypePTR, func(r *layers.DNSResourceRecord) { r.PTR = []byte("ptr.example.net") }),
			rr(layers.DNSTypeMX, func(r *layers.DNSResourceRecord) {
				r.MX = layers.DNSMX{Preference: 10, Name: []byte("mail.example.net")}
			}),
			rr(layers.DNSTypeSRV, func(r *layers.DNSResourceRecord) {
				r.SRV = layers.DNSSRV{Priority: 1, Weight: 2, Port: 5060, Name: []byte("sip.example.net")}
			}),
			rr(layers.DNSTypeTXT, func(r *layers.DNSResourceRecord) { r.TXTs = [][]byte{[]byte("v=spf1"), []byte("-all")} }),
		},
		Authorities: []layers.DNSResourceRecord{
			rr(layers.DNSTypeNS, func(r *layers.DNSResourceRecord) { r.NS = []byte("ns1.example.net") }),
			rr(layers.DNSTypeSOA, func(r *layers.DNSResourceRecord) {
				r.SOA = layers.DNSSOA{MName: []byte("ns1.example.net"), RName: []byte("admin.example.net"),
					Serial: 1, Refresh: 2, Retry: 3, Expire: 4, Minimum: 5}
			}),
		},
		Additionals: []layers.DNSResourceRecord{
			{Type: layers.DNSTypeOPT, Class: 1232},
		},
	}
}
