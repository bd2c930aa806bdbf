package decode_test

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

// arpFrame is an ARP packet over Ethernet.
func arpFrame(t testing.TB, operation uint16, from, to string) []byte {
	t.Helper()
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	frame := eth(layers.EthernetTypeARP)
	frame.DstMAC = []byte{255, 255, 255, 255, 255, 255}
	return build(t, frame, &layers.ARP{AddrType: 1, Protocol: 0x0800, HwAddressSize: 6, ProtAddressSize: 4, Operation: operation,
		SourceHwAddress: []byte{2, 0, 0, 0, 0, 1}, SourceProtAddress: src.AsSlice(),
		DstHwAddress: []byte{2, 0, 0, 0, 0, 2}, DstProtAddress: dst.AsSlice()})
}

// neighborFrame is a neighbour solicitation or advertisement for an address,
// with one option: a link-layer address.
func neighborFrame(t testing.TB, kind, flags byte) []byte {
	t.Helper()
	body := append([]byte{kind, 0, 0, 0, flags, 0, 0, 0}, src6.AsSlice()...)
	body = append(body, 1, 1, 2, 0, 0, 0, 0, 9)
	return build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), raw(body))
}

// local are frames for the records that stay on the link, and a broken DNS
// message.
func local(t testing.TB) [][]byte {
	t.Helper()
	return [][]byte{
		arpFrame(t, 1, "192.0.2.1", "192.0.2.2"), arpFrame(t, 2, "192.0.2.2", "192.0.2.2"),
		arpFrame(t, 1, "0.0.0.0", "192.0.2.2"), arpFrame(t, 1, "192.0.2.1", "192.0.2.1"),
		neighborFrame(t, 135, 0), neighborFrame(t, 136, 0xe0),
		message(t, question(63, 'c')),
	}
}

func TestARP(t *testing.T) {
	for _, tt := range []struct {
		name                            string
		operation                       uint16
		from, to                        string
		gratuitous, probe, announcement bool
	}{
		{"request", 1, "192.0.2.1", "192.0.2.2", false, false, false},
		{"reply", 2, "192.0.2.1", "192.0.2.2", false, false, false},
		{"probe", 1, "0.0.0.0", "192.0.2.2", false, true, false},
		{"announcement", 1, "192.0.2.2", "192.0.2.2", true, false, true},
		{"reply nobody asked for", 2, "192.0.2.2", "192.0.2.2", true, false, false},
	} {
		data := arpFrame(t, tt.operation, tt.from, tt.to)
		set := decoded(t, ethernet, append(data, make([]byte, 18)...)) // and link padding
		want := record.ARP{Timestamp: set.Time, AddrType: 1, Protocol: 0x0800, HwAddressSize: 6, ProtocolAddressSize: 4,
			Operation: int32(tt.operation), SrcHwAddress: "02:00:00:00:00:01", DstHwAddress: "02:00:00:00:00:02",
			SrcProtocolAddress: tt.from, DstProtocolAddress: tt.to, SrcIP: tt.from, DstIP: tt.to,
			IsGratuitous: tt.gratuitous, IsProbe: tt.probe, IsAnnouncement: tt.announcement,
			OperationName: map[uint16]string{1: "Request", 2: "Reply"}[tt.operation]}
		if set.Have != record.Of(record.TypeARP) || set.ARP != want || set.Src.String() != tt.from || set.Dst.String() != tt.to {
			t.Errorf("%s: records %b, %+v", tt.name, set.Have, set.ARP)
		}
		for n := ethernet; n < 28; n++ {
			if set, err := try(ethernet, data[:14+n], len(data)); err == nil || set.Have != 0 {
				t.Errorf("%s, cut to %d bytes: %b, %v", tt.name, n, set.Have, err)
			}
		}
	}
}

func TestEthernet(t *testing.T) {
	set := &record.Set{Header: record.Header{Time: 7}}
	data := arpFrame(t, 1, "192.0.2.1", "192.0.2.2")
	if err := decode.New(allOf(record.TypeEthernet)).Decode(ethernet, data, len(data), set); err != nil {
		t.Fatal(err)
	}
	r := set.Ethernet
	if want := (record.Ethernet{Timestamp: 7, SrcMAC: "02:00:00:00:00:01", DstMAC: "ff:ff:ff:ff:ff:ff", EthernetType: 0x806,
		PayloadSize: int32(len(data) - 14), EthernetTypeName: "ARP", IsBroadcast: true, IsMulticast: true,
		IsLocallyAdministered: true, PayloadEntropy: r.PayloadEntropy}); r != want || r.PayloadEntropy <= 0 {
		t.Errorf("%+v", r)
	}
}

func TestNeighbors(t *testing.T) {
	set := decoded(t, ethernet, neighborFrame(t, 135, 0))
	if s := set.NeighborSolicitation; s.TargetAddress != src6.String() || s.SrcIP != src6.String() || s.DstIP != dst6.String() ||
		len(s.Options) != 1 || s.Options[0].Type != 1 || len(s.Options[0].Data) != 6 || !set.Have.Has(record.TypeICMPv6) {
		t.Errorf("%+v", s)
	}
	set = decoded(t, ethernet, neighborFrame(t, 136, 0xe0))
	if a := set.NeighborAdvertisement; a.Flags != 0xe0 || a.TargetAddress != src6.String() || len(a.Options) != 1 {
		t.Errorf("%+v", a)
	}
	broken := neighborFrame(t, 135, 0)
	broken[len(broken)-7] = 0 // an option of no length
	if set, err := try(ethernet, broken, len(broken)); err == nil || set.NeighborSolicitation.TargetAddress != src6.String() {
		t.Errorf("%v, %+v", err, set.NeighborSolicitation)
	}
}
