package decode_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/record"
)

// frames are whole, well-formed Ethernet frames, and the records each has.
func frames(t testing.TB) map[string]struct {
	data []byte
	have record.Mask
} {
	t.Helper()
	type list = []gopacket.SerializableLayer
	v4, v6, vlan := layers.EthernetTypeIPv4, layers.EthernetTypeIPv6, layers.EthernetTypeDot1Q
	allFlags := tcp(func(l *layers.TCP) {
		l.FIN, l.RST, l.PSH, l.ACK, l.URG, l.ECE, l.CWR, l.NS = true, true, true, true, true, true, true, true
		l.Ack, l.Urgent = 0xfffefdfc, 99
		l.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindEndList}}
	})
	withOptions := ip4(layers.IPProtocolTCP)
	withOptions.Options = []layers.IPv4Option{
		{OptionType: 7, OptionLength: 7, OptionData: []byte{4, 0, 0, 0, 0}},
		{OptionType: 131, OptionLength: 7, OptionData: []byte{4, 0, 0, 0, 0}},
		{OptionType: 137, OptionLength: 3, OptionData: []byte{4}},
		{OptionType: 1, OptionLength: 1}, {OptionType: 0},
	}
	qinq := eth(layers.EthernetTypeQinQ)
	hop := &layers.IPv6HopByHop{}
	hop.NextHeader = layers.IPProtocolTCP
	hop.Options = []*layers.IPv6HopByHopOption{{OptionType: 5, OptionData: []byte{0, 0, 9, 9}}}
	behindHop := ip6(layers.IPProtocolIPv6HopByHop)
	behindHop.HopByHop = hop
	echo4 := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 3, Seq: 4}
	echo6 := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}

	of := record.Of
	all := map[string]struct {
		layers list
		have   record.Mask
	}{
		"SYN":               {list{eth(v4), ip4(layers.IPProtocolTCP), syn()}, of(record.TypeIPv4, record.TypeTCP)},
		"data":              {list{eth(v4), ip4(layers.IPProtocolTCP), allFlags, payload(700)}, of(record.TypeIPv4, record.TypeTCP)},
		"IPv4 options":      {list{eth(v4), withOptions, syn()}, of(record.TypeIPv4, record.TypeTCP)},
		"UDP":               {list{eth(v4), ip4(layers.IPProtocolUDP), udp(9999), payload(100)}, of(record.TypeIPv4, record.TypeUDP)},
		"VLAN":              {list{eth(vlan), &layers.Dot1Q{VLANIdentifier: 5, Type: v4}, ip4(layers.IPProtocolTCP), syn()}, of(record.TypeIPv4, record.TypeTCP)},
		"QinQ":              {list{qinq, &layers.Dot1Q{Type: vlan}, &layers.Dot1Q{Type: v6}, ip6(layers.IPProtocolTCP), syn()}, of(record.TypeIPv6, record.TypeTCP)},
		"IPv6 TCP":          {list{eth(v6), ip6(layers.IPProtocolTCP), syn(), payload(3)}, of(record.TypeIPv6, record.TypeTCP)},
		"IPv6 UDP":          {list{eth(v6), ip6(layers.IPProtocolUDP), udp(123), payload(48)}, of(record.TypeIPv6, record.TypeUDP)},
		"IPv6 hop-by-hop":   {list{eth(v6), behindHop, syn()}, of(record.TypeIPv6, record.TypeTCP)},
		"ICMPv4":            {list{eth(v4), ip4(layers.IPProtocolICMPv4), echo4, payload(56)}, of(record.TypeIPv4, record.TypeICMPv4)},
		"ICMPv6":            {list{eth(v6), ip6(layers.IPProtocolICMPv6), echo6, payload(60)}, of(record.TypeIPv6, record.TypeICMPv6)},
		"DNS query":         {list{eth(v4), ip4(layers.IPProtocolUDP), udp(53), query("www.example.com")}, of(record.TypeIPv4, record.TypeUDP, record.TypeDNS)},
		"DNS answer":        {list{eth(v6), ip6(layers.IPProtocolUDP), &layers.UDP{SrcPort: 53, DstPort: 50000}, answer()}, of(record.TypeIPv6, record.TypeUDP, record.TypeDNS)},
		"ARP":               {list{eth(layers.EthernetTypeARP), &layers.ARP{HwAddressSize: 6, ProtAddressSize: 4, SourceHwAddress: net.HardwareAddr{1, 2, 3, 4, 5, 6}, SourceProtAddress: net.IP{1, 2, 3, 4}, DstHwAddress: net.HardwareAddr{1, 2, 3, 4, 5, 6}, DstProtAddress: net.IP{1, 2, 3, 4}}}, of(record.TypeARP)},
		"SCTP has ports":    {list{eth(v4), ip4(layers.IPProtocolSCTP), gopacket.Payload{0x9c, 0x40, 0, 22, 1, 2, 3, 4, 5, 6, 7, 8}}, of(record.TypeIPv4)},
		"ICMPv6 over IPv4":  {list{eth(v4), ip4(layers.IPProtocolICMPv6), payload(8)}, of(record.TypeIPv4)},
		"nothing but IPv4":  {list{eth(v4), ip4(layers.IPProtocolOSPF), payload(44)}, of(record.TypeIPv4)},
		"UDP of length 0":   {list{eth(v4), ip4(layers.IPProtocolUDP), udp(53)}, of(record.TypeIPv4, record.TypeUDP)},
		"Ethernet of 0x88b": {list{eth(0x88b5), payload(60)}, 0},
	}
	built := map[string]struct {
		data []byte
		have record.Mask
	}{}
	for name, f := range all {
		built[name] = struct {
			data []byte
			have record.Mask
		}{build(t, f.layers...), f.have}
	}
	return built
}

func TestAgreesWithGopacket(t *testing.T) {
	for name, f := range frames(t) {
		t.Run(name, func(t *testing.T) {
			set := decoded(t, ethernet, f.data)
			if set.Have != f.have {
				t.Errorf("records %b, want %b", set.Have, f.have)
			}
			for _, d := range differences(f.data, set) {
				t.Error(d)
			}
		})
	}
}

func TestHeader(t *testing.T) {
	for name, want := range map[string]record.Header{
		"SYN":            {Src: src4, Dst: dst4, SrcPort: 40000, DstPort: 22, Proto: 6},
		"IPv6 UDP":       {Src: src6, Dst: dst6, SrcPort: 50000, DstPort: 123, Proto: 17},
		"QinQ":           {Src: src6, Dst: dst6, SrcPort: 40000, DstPort: 22, Proto: 6},
		"ICMPv4":         {Src: src4, Dst: dst4, Proto: 1},
		"ICMPv6":         {Src: src6, Dst: dst6, Proto: 58},
		"SCTP has ports": {Src: src4, Dst: dst4, SrcPort: 40000, DstPort: 22, Proto: 132},
		"ARP":            {Src: netip.MustParseAddr("1.2.3.4"), Dst: netip.MustParseAddr("1.2.3.4")},
	} {
		want.Time, want.Packet = 1700000000123456789, 5
		if got := decoded(t, ethernet, frames(t)[name].data).Header; got != want {
			t.Errorf("%s: header %+v, want %+v", name, got, want)
		}
	}
}
