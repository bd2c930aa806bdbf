package decode_test

import (
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

// FuzzDecode decodes anything as any link type, with everything asked for:
// no panic, sizes that cannot be negative, and agreement with gopacket.
func FuzzDecode(f *testing.F) {
	for _, frame := range frames(f) {
		f.Add(uint16(ethernet), frame.data)
		f.Add(uint16(101), frame.data[14:])
		f.Add(uint16(113), append(make([]byte, 14), frame.data[12:]...))
	}
	f.Add(uint16(ethernet), build(f, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolIPv6Fragment), payload6Fragment(0, false)))
	inner := build(f, ip4(layers.IPProtocolTCP), syn(), payload(8))
	for _, w := range wrappings() {
		f.Add(uint16(w.link), w.wrap(f, inner))
	}
	for _, data := range local(f) {
		f.Add(uint16(ethernet), data)
	}
	for _, v6 := range []bool{false, true} {
		for _, data := range fragmented(f, v6, 6, 1, segment(f, 100), pieces(140, 64)) {
			f.Add(uint16(ethernet), data)
		}
	}
	dec, set := decode.New(everything()), &record.Set{}
	full, other := decode.New(allOf(packetTypes()...)), &record.Set{}
	full.SetDecap(true)
	again := decode.Again(full, allOf(packetTypes()...))
	f.Fuzz(func(t *testing.T, link uint16, data []byte) {
		_ = full.Decode(uint32(link), data, len(data), other) // no panic, whatever it is
		first := other.Header
		if _ = again.Decode(uint32(link), data, len(data), other); other.Header != first {
			t.Errorf("again: header %+v, at first %+v", other.Header, first)
		}
		err := dec.Decode(uint32(link), data, len(data), set)
		for name, size := range map[string]int32{"TCP": set.TCP.PayloadSize, "UDP": set.UDP.PayloadSize, "IPv4": set.IPv4.PayloadSize,
			"IPv6": set.IPv6.PayloadSize, "ICMPv4": set.ICMPv4.PayloadSize, "ICMPv6": set.ICMPv6.PayloadSize} {
			if size < 0 {
				t.Errorf("%s has a payload of %d bytes", name, size)
			}
		}
		if set.Have&^record.Of(record.TypeARP) != 0 && !set.Src.IsValid() {
			t.Error("a record without an address")
		}
		if link == ethernet && err == nil {
			for _, d := range differences(data, set) {
				t.Error(d)
			}
		}
	})
}

// FuzzDNS decodes anything as a DNS message: no panic, and bounded records.
func FuzzDNS(f *testing.F) {
	for _, frame := range frames(f) {
		if frame.have.Has(record.TypeDNS) {
			f.Add(frame.data[42:])
		}
	}
	f.Add(question(3, 'c', 'o', 'm', 0xc0, 12, 0, 1, 0, 1))
	dec, set := decode.New(everything()), &record.Set{}
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) > 60000 {
			return
		}
		frame := message(t, msg)
		_ = dec.Decode(ethernet, frame, len(frame), set) // broken messages are the point
		if set.Have.Has(record.TypeDNS) != (len(msg) >= 12) {
			t.Errorf("%d bytes: records %b", len(msg), set.Have)
		}
		d := &set.DNS
		if n := len(d.Questions) + len(d.Answers) + len(d.Authorities) + len(d.Additionals); n > 1024 {
			t.Errorf("%d entries", n)
		}
		for _, q := range d.Questions {
			if len(q.Name) > 1024+4*64 {
				t.Errorf("a name of %d bytes", len(q.Name))
			}
		}
	})
}
