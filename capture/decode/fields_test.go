package decode_test

import (
	"math"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

// Over a handful of packets every field of every served type is filled at
// least once.
func TestEveryFieldIsFilled(t *testing.T) {
	filled := map[record.Type]map[string]bool{}
	note := func(set *record.Set) {
		have := set.Have
		for typ := have.Next(); typ != record.NoType; typ = have.Next() {
			if filled[typ] == nil {
				filled[typ] = map[string]bool{}
			}
			v := reflect.ValueOf(set.Record(typ)).Elem()
			for i := range v.NumField() {
				if !v.Field(i).IsZero() {
					filled[typ][v.Type().Field(i).Name] = true
				}
			}
		}
	}
	for _, f := range frames(t) {
		note(decoded(t, ethernet, f.data))
	}
	for _, data := range [][]byte{
		build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), syn(), payload(9)),                                                                                        // IsSYNWithData
		build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), tcp(func(l *layers.TCP) { l.SYN, l.ACK, l.Options = true, true, synOptions() })),                          // Ja4ts
		fragmented(t, false, 6, 1, payload(64), []piece{{0, 64, true}})[0],                                                                                                          // IsFragment
		build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolIPv6Fragment), payload6Fragment(0, false)),                                                                      // IPv6.IsFragment
		build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(53), query("a.b.example.com")),                                                                        // SubdomainCount
		fragmented(t, false, 6, 1, payload(128), []piece{{64, 128, false}})[0],                                                                                                      // FragOffset
		build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), tcp(func(l *layers.TCP) { l.ACK, l.Options = true, []layers.TCPOption{{OptionType: 0}} }), payload(1)),    // Padding
		build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 1)}, payload(28)),                              // Code
		build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(1, 4)}, payload(48)),                              // Code
		build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), tcp(func(l *layers.TCP) { l.RST, l.ACK, l.NS, l.CWR, l.URG = true, true, true, true, true }), payload(5)), // IsRSTWithData
	} {
		note(decoded(t, ethernet, data))
	}
	for _, data := range local(t) {
		set := &record.Set{Header: record.Header{Time: 1, Packet: 1}}
		_ = decode.New(allOf(packetTypes()...)).Decode(ethernet, data, len(data), set) // one of them is broken
		note(set)
	}
	for kind := range uint8(20) {
		note(decoded(t, ethernet, build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0)})))
	}
	for kind := uint8(128); kind < 140; kind++ {
		note(decoded(t, ethernet, build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, payload(20))))
	}
	for _, typ := range packetTypes() {
		for _, name := range fields(typ) {
			if !filled[typ][name] {
				t.Errorf("%v.%s is never filled", typ, name)
			}
		}
	}
}

func TestTCPFields(t *testing.T) {
	set := decoded(t, ethernet, frames(t)["SYN"].data)
	want := record.TCP{
		Timestamp: 1700000000123456789, SrcPort: 40000, DstPort: 22, SeqNum: 0x01020304, DataOffset: 10, SYN: true,
		Window: 64240, Checksum: set.TCP.Checksum, SrcIP: "192.0.2.1", DstIP: "198.51.100.2",
		OptionsFingerprint: "2-4-8-1-3", FlagsStr: "SYN", Ja4t: "64240_2-4-8-1-3_1460_7", MSS: 1460, WindowScale: 7,
		HasSACK: true, TSval: 256, TSecr: 512, CommunityID: set.TCP.CommunityID,
		Options: []*record.TCPOption{
			{OptionType: 2, OptionLength: 4, OptionData: []byte{5, 0xb4}}, {OptionType: 4, OptionLength: 2},
			{OptionType: 8, OptionLength: 10, OptionData: []byte{0, 0, 1, 0, 0, 0, 2, 0}},
			{OptionType: 1, OptionLength: 1}, {OptionType: 3, OptionLength: 3, OptionData: []byte{7}}},
		Payload: []byte{},
	}
	if !reflect.DeepEqual(set.TCP, want) {
		t.Errorf("\n got %+v\nwant %+v", set.TCP, want)
	}
	for name, tt := range map[string]struct {
		segment             *layers.TCP
		flags, ja4t, ja4ts  string
		print               string
		rstWithData, synHas bool
	}{
		"no options":     {tcp(func(l *layers.TCP) { l.SYN = true }), "SYN", "64240_00_00_00", "", "", false, true},
		"answer":         {tcp(func(l *layers.TCP) { l.SYN, l.ACK, l.Options = true, true, synOptions()[:1] }), "SYN,ACK", "", "64240_2_1460_00", "2", false, true},
		"data":           {tcp(func(l *layers.TCP) { l.PSH, l.ACK = true, true }), "PSH,ACK", "", "", "", false, false},
		"reset":          {tcp(func(l *layers.TCP) { l.RST = true }), "RST", "", "", "", true, false},
		"padded options": {tcp(func(l *layers.TCP) { l.SYN, l.Options = true, []layers.TCPOption{{OptionType: 0}} }), "SYN", "64240_0-0-0-0_00_00", "", "0-0-0-0", false, true},
		"Christmas tree": {tcp(func(l *layers.TCP) { l.FIN, l.PSH, l.URG = true, true, true }), "FIN,PSH,URG", "", "", "", false, false},
	} {
		r := &decoded(t, ethernet, build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), tt.segment, payload(4))).TCP
		if r.FlagsStr != tt.flags || r.Ja4t != tt.ja4t || r.Ja4ts != tt.ja4ts || r.OptionsFingerprint != tt.print ||
			r.IsRSTWithData != tt.rstWithData || r.IsSYNWithData != tt.synHas || r.PayloadSize != 4 || len(r.Payload) != 4 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// The values are those of the specification's reference implementation
// (github.com/corelight/community-id-spec, baseline for seed 0).
func TestCommunityID(t *testing.T) {
	for _, tt := range []struct {
		src, dst     string
		sport, dport layers.TCPPort
		want         string
	}{
		{"128.232.110.120", "66.35.250.204", 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{"66.35.250.204", "128.232.110.120", 80, 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		// Not in that baseline: with equal addresses the smaller port comes first.
		{"10.0.0.1", "10.0.0.1", 20000, 10000, "1:A1HBwZFIqnD3D8o4PcAKUP7PnVg="},
		{"10.0.0.1", "10.0.0.1", 10000, 20000, "1:A1HBwZFIqnD3D8o4PcAKUP7PnVg="},
	} {
		ip := ip4(layers.IPProtocolTCP)
		ip.SrcIP, ip.DstIP = netip.MustParseAddr(tt.src).AsSlice(), netip.MustParseAddr(tt.dst).AsSlice()
		segment := tcp(func(l *layers.TCP) { l.SrcPort, l.DstPort, l.ACK = tt.sport, tt.dport, true })
		if got := decoded(t, ethernet, build(t, eth(layers.EthernetTypeIPv4), ip, segment)).TCP.CommunityID; got != tt.want {
			t.Errorf("%s -> %s: %s, want %s", tt.src, tt.dst, got, tt.want)
		}
	}
}

func TestEntropy(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for name, tt := range map[string]struct {
		data []byte
		want float64
	}{
		"nothing":         {nil, 0},
		"one byte":        {[]byte("aaaa"), 0},
		"two equally":     {[]byte("abab"), 1},
		"one in four":     {[]byte("aaab"), 0.8112781244591328},
		"every byte once": {all, 8},
	} {
		p := udp(9999)
		set := decoded(t, ethernet, build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), p, raw(tt.data)))
		if got := set.UDP.PayloadEntropy; math.Abs(got-tt.want) > 1e-12 || math.Signbit(got) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestICMPFields(t *testing.T) {
	r := decoded(t, ethernet, frames(t)["ICMPv4"].data).ICMPv4
	if r.TypeCode != 2048 || r.Type != 8 || r.Code != 0 || r.Id != 3 || r.Seq != 4 || r.PayloadSize != 56 || !r.IsEchoRequest ||
		r.IsEchoReply || r.TypeName != "EchoRequest" || r.SrcIP != "192.0.2.1" {
		t.Errorf("ICMPv4 %+v", r)
	}
	r6 := decoded(t, ethernet, frames(t)["ICMPv6"].data).ICMPv6
	if r6.TypeCode != 32768 || r6.Type != 128 || r6.PayloadSize != 60 || !r6.IsEchoRequest || r6.IsEchoReply ||
		r6.TypeName != "EchoRequest" || r6.SrcIP != "2001:db8::1" {
		t.Errorf("ICMPv6 %+v", r6)
	}
	for kind, name := range map[uint8]string{0: "EchoReply", 3: "DestinationUnreachable", 5: "Redirect", 11: "TimeExceeded", 13: "TimestampRequest", 17: "AddressMaskRequest", 99: "99", 200: "200"} {
		r := decoded(t, ethernet, build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 1)})).ICMPv4
		is := map[uint8]bool{0: r.IsEchoReply, 3: r.IsDestUnreachable, 5: r.IsRedirect, 11: r.IsTimeExceeded, 13: r.IsTimestampRequest, 17: r.IsAddressMaskRequest}
		for k, set := range is {
			if set != (k == kind) {
				t.Errorf("type %d: flag of %d is %v", kind, k, set)
			}
		}
		if r.TypeName != name || r.Code != 1 || r.TypeCode != int32(kind)<<8|1 {
			t.Errorf("type %d: %+v", kind, r)
		}
	}
}

func TestIPFields(t *testing.T) {
	r := decoded(t, ethernet, frames(t)["IPv4 options"].data).IPv4
	if r.ProtocolName != "TCP" || r.FlagsStr != "DF" || r.DSCP != 0x2e || r.ECN != 1 || !r.HasOptions || !r.HasRecordRoute ||
		!r.HasLooseSourceRoute || !r.HasStrictSourceRoute || r.IsFragment || r.SrcPort != 40000 || r.DstPort != 22 || r.PayloadSize != 40 {
		t.Errorf("IPv4 %+v", r)
	}
	r6 := decoded(t, ethernet, frames(t)["IPv6 hop-by-hop"].data).IPv6
	if r6.NextHeaderName != "HOPOPT" || !r6.HasExtensionHeaders || r6.IsFragment || r6.DSCP != 0x2e || r6.ECN != 1 || r6.Version != 6 ||
		r6.SrcPort != 40000 || r6.DstPort != 22 || r6.PayloadSize != 48 || len(r6.HopByHop.Options) != 1 ||
		r6.HopByHop.Options[0].OptionType != 5 || r6.HopByHop.Options[0].OptionLength != 4 || r6.HopByHop.Options[0].ActualLength != 6 {
		t.Errorf("IPv6 %+v, %+v", r6, r6.HopByHop)
	}
}

// With nothing but the types asked for, what costs is left out; and a decoder
// told to ask for less forgets what it filled before.
func TestOnlyWhatIsAskedFor(t *testing.T) {
	var bare record.Want
	for _, typ := range packetTypes() {
		if typ != record.TypeEthernet {
			bare.Add(typ)
		}
	}
	for name, f := range frames(t) {
		for _, before := range []bool{false, true} {
			var set record.Set
			dec := decode.New(bare)
			if before {
				dec = decode.New(everything())
				if err := dec.Decode(ethernet, f.data, len(f.data), &set); err != nil {
					t.Fatal(err)
				}
				dec.SetWant(bare)
			}
			if err := dec.Decode(ethernet, f.data, len(f.data), &set); err != nil {
				t.Fatal(err)
			}
			if set.Have != f.have {
				t.Errorf("%s: records %b", name, set.Have)
			}
			have := set.Have
			for typ := have.Next(); typ != record.NoType; typ = have.Next() {
				v := reflect.ValueOf(set.Record(typ)).Elem()
				for i := range v.NumField() {
					switch v.Field(i).Kind() {
					case reflect.String, reflect.Slice, reflect.Pointer, reflect.Float64:
						if !v.Field(i).IsZero() {
							t.Errorf("%s: %v.%s is filled unasked", name, typ, v.Type().Field(i).Name)
						}
					}
				}
			}
		}
		var set record.Set
		if err := decode.New(record.Want{}).Decode(ethernet, f.data, len(f.data), &set); err != nil || set.Have != 0 {
			t.Errorf("%s: with nothing wanted: %b, %v", name, set.Have, err)
		}
	}
}
