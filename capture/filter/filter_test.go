package filter_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/bpf"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/filter"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/record"
)

func oneOf(field string, mask int64, values ...int64) record.Test {
	return record.Test{Field: field, Mask: mask, Op: record.OneOf, Values: values}
}

func of(t record.Type, cases ...record.Case) record.Conditions {
	return record.Conditions{Type: t, Cases: cases}
}

// scan is SYN && !ACK, ssh the same to one port.
func scan() record.Case { return record.Case{oneOf(record.FieldFlags, 0x12, 2)} }
func ssh() record.Case {
	return record.Case{oneOf(record.FieldFlags, 0x12, 2), oneOf("DstPort", 0, 22)}
}

// frame serializes layers behind an Ethernet header of the type.
func frame(t testing.TB, kind layers.EthernetType, above ...gopacket.SerializableLayer) []byte {
	t.Helper()
	stack := append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: kind}}, above...)
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, stack...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func v4(p layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 9, Protocol: p, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}}
}

func v6(p layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 9, NextHeader: p, SrcIP: make([]byte, 16), DstIP: make([]byte, 16)}
}

func TestWhatIsKept(t *testing.T) {
	const tcp, udp = layers.IPProtocolTCP, layers.IPProtocolUDP
	const ip4, ip6 = layers.EthernetTypeIPv4, layers.EthernetTypeIPv6
	syn := func(port layers.TCPPort) *layers.TCP { return &layers.TCP{SrcPort: 40000, DstPort: port, SYN: true} }
	options := v4(tcp)
	options.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	first, rest := v4(tcp), v4(tcp)
	first.Flags, rest.FragOffset = layers.IPv4MoreFragments, 5
	frames := map[string][]byte{
		"SYN to 22":            frame(t, ip4, v4(tcp), syn(22)),
		"SYN to 22, options":   frame(t, ip4, options, syn(22)),
		"SYN to 22, IPv6":      frame(t, ip6, v6(tcp), syn(22)),
		"SYN to 80":            frame(t, ip4, v4(tcp), syn(80)),
		"data":                 frame(t, ip4, v4(tcp), &layers.TCP{DstPort: 22, ACK: true}, gopacket.Payload("x")),
		"data, IPv6":           frame(t, ip6, v6(tcp), &layers.TCP{DstPort: 22, ACK: true}, gopacket.Payload("x")),
		"query":                frame(t, ip4, v4(udp), &layers.UDP{SrcPort: 4444, DstPort: 53}, gopacket.Payload("x")),
		"query, IPv6":          frame(t, ip6, v6(udp), &layers.UDP{SrcPort: 4444, DstPort: 53}),
		"answer":               frame(t, ip4, v4(udp), &layers.UDP{SrcPort: 53, DstPort: 333}, gopacket.Payload("x")),
		"DNS over TCP":         frame(t, ip4, v4(tcp), &layers.TCP{SrcPort: 53, DstPort: 333, ACK: true}, gopacket.Payload("x")),
		"ping":                 frame(t, ip4, v4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: 0x800}),
		"ping, IPv6":           frame(t, ip6, v6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: 0x8000}),
		"first fragment":       frame(t, ip4, first, syn(80)),
		"other fragment":       frame(t, ip4, rest, gopacket.Payload("xxxxxxxxxxxxxxxxxxxxxxxxxxx")),
		"IPv6 extension":       frame(t, ip6, v6(layers.IPProtocolIPv6Destination), gopacket.Payload(make([]byte, 40))),
		"VLAN":                 frame(t, layers.EthernetTypeDot1Q, &layers.Dot1Q{Type: ip4}, v4(udp), &layers.UDP{}),
		"ARP":                  frame(t, layers.EthernetTypeARP, gopacket.Payload(make([]byte, 28))),
		"GRE":                  frame(t, ip4, v4(layers.IPProtocolGRE), gopacket.Payload("xxxx")),
		"short TCP":            frame(t, ip4, v4(tcp), gopacket.Payload("xxxxxxxx"))[:42],
		"another version":      frame(t, ip6, v4(udp), &layers.UDP{}),
		"UDP to a port in ten": frame(t, ip4, v4(udp), &layers.UDP{DstPort: 1909}),
	}
	always := []string{"first fragment", "other fragment", "IPv6 extension", "VLAN", "ARP", "GRE", "short TCP", "another version"}
	for _, tt := range []struct {
		name  string
		needs filter.Needs
		kept  []string // beside those that always are; nil = everything, and no program
	}{
		{"nothing", filter.Needs{}, []string{}},
		{"one never true", filter.Needs{Conditions: []record.Conditions{of(record.TypeUDP)}}, []string{}},
		{"SYN", filter.Needs{Conditions: []record.Conditions{of(record.TypeTCP, scan())}},
			[]string{"SYN to 22", "SYN to 22, options", "SYN to 22, IPv6", "SYN to 80"}},
		{"SYN to a port, or UDP to some", filter.Needs{Conditions: []record.Conditions{of(record.TypeTCP, ssh()),
			of(record.TypeUDP, record.Case{{Field: "DstPort", Op: record.Between, Values: []int64{1900, 1909}}}, record.Case{oneOf("SrcPort", 0, 1, 4444)})}},
			[]string{"SYN to 22", "SYN to 22, options", "SYN to 22, IPv6", "query", "query, IPv6", "UDP to a port in ten"}},
		{"none of, not between", filter.Needs{Conditions: []record.Conditions{of(record.TypeTCP, record.Case{
			{Field: "DstPort", Op: record.NoneOf, Values: []int64{80, 443}}, {Field: record.FieldFlags, Mask: 16, Op: record.NoneOf, Values: []int64{0}}}),
			of(record.TypeUDP, record.Case{{Field: "DstPort", Op: record.NotBetween, Values: []int64{50, 2000}}})}}, []string{"data", "data, IPv6", "DNS over TCP"}},
		{"ping", filter.Needs{Conditions: []record.Conditions{of(record.TypeICMPv4, record.Case{})}}, []string{"ping", "ping, IPv6"}},
		{"what the kernel cannot test", filter.Needs{Conditions: []record.Conditions{of(record.TypeUDP,
			record.Case{{Field: "Payload", Op: record.ContainsAny, Texts: []string{"x"}}})}}, []string{"query", "query, IPv6", "answer", "UDP to a port in ten"}},
		{"IPv6", filter.Needs{Conditions: []record.Conditions{of(record.TypeIPv6, record.Case{})}},
			[]string{"SYN to 22, IPv6", "data, IPv6", "query, IPv6", "ping, IPv6"}},
		{"streams", filter.Needs{Streams: true}, []string{"SYN to 22", "SYN to 22, options", "SYN to 22, IPv6", "SYN to 80", "data", "data, IPv6", "DNS over TCP"}},
		{"tunnels", filter.Needs{Decap: true}, []string{"query", "query, IPv6", "answer", "UDP to a port in ten"}},
		{"HTTP", filter.Needs{Conditions: []record.Conditions{of(record.TypeHTTP, record.Case{})}},
			[]string{"SYN to 22", "SYN to 22, options", "SYN to 22, IPv6", "SYN to 80", "data", "data, IPv6", "DNS over TCP"}},
		{"DNS", filter.Needs{Conditions: []record.Conditions{of(record.TypeDNS, record.Case{})}},
			[]string{"query", "query, IPv6", "answer", "DNS over TCP"}},
		{"SIP", filter.Needs{Conditions: []record.Conditions{of(record.TypeSIP, record.Case{})}}, nil},
		{"Ethernet", filter.Needs{Conditions: []record.Conditions{of(record.TypeEthernet, record.Case{})}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := filter.Compile(tt.needs)
			if (p == nil) != (tt.kept == nil) {
				t.Fatalf("program %v", p)
			}
			for name, data := range frames {
				kept, err := p.Keeps(data)
				if want := p == nil || slices.Contains(tt.kept, name) || slices.Contains(always, name); err != nil || kept != want {
					t.Errorf("%s: %v (%v), want %v of\n%s", name, kept, err, want, p)
				}
			}
		})
	}
}

// TestNothingNeededIsHidden: whatever a decoder makes of a frame, damaged ones
// too, a record that satisfies the conditions comes from a frame that is kept.
func TestNothingNeededIsHidden(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 7))
	frames := mix(random, 2000)
	var want record.Want
	for _, typ := range types() {
		want.Add(typ, "SrcPort", "DstPort", "Window", "Length")
	}
	dec := decode.New(want)
	hidden, needed := 0, 0
	for range 25 {
		var needs filter.Needs
		for range 1 + random.IntN(3) {
			needs.Conditions = append(needs.Conditions, randomConditions(random))
		}
		p := filter.Compile(needs)
		if p != nil && len(p.Instructions()) == 0 {
			t.Fatalf("not assembled: %s", p)
		}
		for _, f := range frames {
			var set record.Set
			_ = dec.Decode(1, f, len(f), &set) // a damaged frame may hold records all the same
			kept, err := p.Keeps(f)
			if err != nil {
				t.Fatal(err)
			}
			need := slices.ContainsFunc(needs.Conditions, func(c record.Conditions) bool { return set.Have.Has(c.Type) && c.Hold(&set) })
			if need && !kept {
				t.Fatalf("hidden by\n%s\nwanted by %v\n%x", p, needs.Conditions, f)
			}
			if need {
				needed++
			}
			if !kept {
				hidden++
			}
		}
	}
	if hidden < 1000 || needed < 1000 {
		t.Errorf("%d frames hidden, %d needed: the test tests little", hidden, needed)
	}
}

func types() []record.Type {
	return []record.Type{record.TypeTCP, record.TypeUDP, record.TypeICMPv4, record.TypeICMPv6, record.TypeIPv4, record.TypeIPv6, record.TypeARP}
}

// mix is frames of the benchmark's traffic, half of them damaged.
func mix(random *rand.Rand, n int) [][]byte {
	g := yardstick.New(3)
	var out [][]byte
	for i := range n {
		data, _ := g.Next()
		f := slices.Clone(data)
		if i%2 == 0 {
			for range 1 + random.IntN(4) {
				f[random.IntN(min(len(f), 60))] = byte(random.UintN(256))
			}
			f = f[:14+random.IntN(len(f)-13)]
		}
		out = append(out, f)
	}
	return out
}

func randomConditions(random *rand.Rand) record.Conditions {
	c := record.Conditions{Type: types()[random.IntN(len(types()))]}
	for range 1 + random.IntN(3) {
		var k record.Case
		for range random.IntN(4) {
			k = append(k, randomTest(random, c.Type))
		}
		c.Cases = append(c.Cases, k)
	}
	return c
}

func randomTest(random *rand.Rand, t record.Type) record.Test {
	fields := []string{"SrcPort", "DstPort"}
	if t == record.TypeTCP {
		fields = append(fields, record.FieldFlags, record.FieldFlags, "Window")
	}
	if t == record.TypeUDP {
		fields = append(fields, "Length")
	}
	test := record.Test{Field: fields[random.IntN(len(fields))], Op: record.Operator(random.IntN(4))}
	if test.Field == record.FieldFlags {
		test.Mask = int64(1 + random.IntN(0x1ff))
	}
	n := 2
	if test.Op == record.OneOf || test.Op == record.NoneOf {
		n = random.IntN(120)
	}
	for range n {
		common := []int64{22, 53, 80, 443, 2, 16, 18, 24, -1, 70000, random.Int64N(65536), random.Int64N(1024)}
		test.Values = append(test.Values, common[random.IntN(len(common))])
	}
	return test
}

// TestNoProgramBeyondTheKernelsLimit: rules without end are no reason to fail.
func TestNoProgramBeyondTheKernelsLimit(t *testing.T) {
	var needs filter.Needs
	ports := record.Test{Field: "DstPort", Op: record.OneOf}
	for i := range int64(100) {
		ports.Values = append(ports.Values, i)
	}
	for range 150 {
		needs.Conditions = append(needs.Conditions, of(record.TypeTCP, record.Case{ports}))
	}
	if p := filter.Compile(needs); p != nil {
		t.Errorf("%d instructions", len(p.Instructions()))
	}
}

func TestProgramReadsAsText(t *testing.T) {
	p := filter.Compile(filter.Needs{Conditions: []record.Conditions{of(record.TypeTCP, ssh(), ssh())}})
	want := "TCP: Flags & 0x12 in [2] and DstPort in [22]\nUDP: none\nICMP: none\nfragments, VLANs, tunnels, everything else: all\n("
	if got := p.String(); !strings.HasPrefix(got, want) {
		t.Errorf("%s", got)
	}
	var none *filter.Program
	if none.Instructions() != nil || !strings.Contains(none.String(), "everything") {
		t.Errorf("%v", none)
	}
	raw := p.Instructions()
	if first, ok := bpf.Disassemble(raw); !ok || first[0] != (bpf.LoadExtension{Num: bpf.ExtLinkLayerType}) {
		t.Errorf("%v", first)
	}
}
