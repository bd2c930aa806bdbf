package decode_test

import (
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

// A packet costs no allocation, whatever its kind, also where addresses are
// asked for as strings, as long as they have been seen lately.
func TestDecodeDoesNotAllocate(t *testing.T) {
	cheap := func(typ record.Type, more ...string) record.Want {
		var w record.Want
		w.Add(record.TypeIPv4)
		w.Add(record.TypeIPv6)
		w.Add(typ, more...)
		return w
	}
	for _, tt := range []struct {
		name, frame string
		want        record.Want
	}{
		{"TCP", "SYN", cheap(record.TypeTCP)},
		{"TCP with addresses", "data", cheap(record.TypeTCP, "SrcIP", "DstIP")},
		{"TCP over IPv6 with addresses", "IPv6 TCP", cheap(record.TypeTCP, "SrcIP", "DstIP")},
		{"TCP with options and flags", "SYN", cheap(record.TypeTCP, "Options", "MSS", "FlagsStr", "Ja4t", "OptionsFingerprint", "Payload", "PayloadEntropy")},
		{"UDP", "UDP", cheap(record.TypeUDP)},
		{"UDP with addresses", "UDP", cheap(record.TypeUDP, "SrcIP", "DstIP", "Payload", "PayloadEntropy")},
		{"VLAN", "VLAN", cheap(record.TypeTCP, "SrcIP")},
		{"ICMP", "ICMPv4", cheap(record.TypeICMPv4, "SrcIP", "TypeName", "Payload")},
		{"IPv4", "IPv4 options", cheap(record.TypeIPv4, "SrcIP", "Options", "ProtocolName", "FlagsStr")},
		{"DNS query", "DNS query", cheap(record.TypeDNS, "Questions", "QueryNameLength", "QueryNameTLD", "SrcIP")},
		{"everything but the flow's hash", "data", without(allOf(record.TypeTCP), record.TypeTCP, "CommunityID")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := frames(t)[tt.frame].data
			dec, set := decode.New(tt.want), &record.Set{}
			if n := testing.AllocsPerRun(1000, func() {
				if err := dec.Decode(ethernet, data, len(data), set); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%v allocations a packet", n)
			}
			if set.Have == 0 {
				t.Error("nothing was decoded")
			}
		})
	}
}

// What stays on the link, and what comes out of tunnels, costs none either.
func TestLocalAndTunnelsDoNotAllocate(t *testing.T) {
	want := allOf(record.TypeARP, record.TypeEthernet, record.TypeICMPv6NeighborSolicitation,
		record.TypeICMPv6NeighborAdvertisement, record.TypeTCP)
	want.Add(record.TypeHTTP) // the segment
	all := map[string][]byte{"ARP": arpFrame(t, 1, "192.0.2.1", "192.0.2.2"), "solicitation": neighborFrame(t, 135, 0),
		"advertisement": neighborFrame(t, 136, 0xe0)}
	inner := build(t, ip4(layers.IPProtocolTCP), tcp(func(l *layers.TCP) { l.ACK = true }), payload(8))
	for _, w := range wrappings() {
		if w.link == ethernet {
			all[w.name] = w.wrap(t, inner)
		}
	}
	for name, data := range all {
		dec, set := decode.New(without(want, record.TypeTCP, "CommunityID")), &record.Set{}
		dec.SetDecap(true)
		if n := testing.AllocsPerRun(500, func() {
			if err := dec.Decode(ethernet, data, len(data), set); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a packet", name, n)
		}
		if set.Have == 0 {
			t.Errorf("%s: nothing was decoded", name)
		}
	}
}

// A flood of broken packets costs nothing either.
func TestErrorsDoNotAllocate(t *testing.T) {
	data := frames(t)["SYN"].data[:40]
	dec, set := decode.New(everything()), &record.Set{}
	if n := testing.AllocsPerRun(1000, func() {
		if dec.Decode(ethernet, data, len(data), set) == nil {
			t.Fatal("no error")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
