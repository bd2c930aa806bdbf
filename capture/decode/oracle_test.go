package decode_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/record"
)

// differences compares what we decoded of an Ethernet frame with what gopacket
// did: every layer that gopacket finds must be in the set and say the same.
// Layers that gopacket refuses (it takes no first fragment and no option of
// length two) are not compared.
func differences(data []byte, set *record.Set) []string {
	var all diff
	packet := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
	next := func(i int) gopacket.Layer { // the transport behind network layer i
		list := packet.Layers()
		_, v6 := list[i].(*layers.IPv6)
		for i++; i < len(list); i++ {
			if !v6 {
				return list[i]
			}
			switch list[i].(type) {
			case *layers.IPv6HopByHop, *layers.IPv6Routing, *layers.IPv6Destination, *layers.IPSecAH:
			default:
				return list[i]
			}
		}
		return nil
	}
	for i, l := range packet.Layers() {
		switch l := l.(type) {
		case *layers.Ethernet, *layers.Dot1Q:
			continue
		case *layers.IPv4:
			if at := cap(data) - cap(l.Contents); l.Version != 4 || l.IHL < 5 || u16(data[at+2:]) == 0 {
				return nil // gopacket replaces a length of 0
			}
			all.ipv4(l, set, packet.ErrorLayer() == nil)
		case *layers.IPv6:
			if l.Version != 6 || l.Length == 0 {
				return nil
			}
			all.ipv6(l, set)
			if at := cap(data) - cap(l.Contents); l.NextHeader == layers.IPProtocolIPv6HopByHop && at+40+int(l.Length) != len(data) {
				// gopacket counts link padding as payload behind this header.
				return all
			}
		default:
			return nil
		}
		all.transport(next(i), set)
		all.dns(packet, set)
		return all
	}
	return nil
}

func u16(b []byte) int { return int(b[0])<<8 | int(b[1]) }

// diff collects what differs.
type diff []string

func (d *diff) equal(name string, got, want any) {
	if g, ok := got.([]byte); ok {
		if w, ok := want.([]byte); ok && bytes.Equal(g, w) {
			return
		}
	} else if got == want {
		return
	}
	*d = append(*d, fmt.Sprintf("%s = %v, gopacket %v", name, got, want))
}

func (d *diff) have(set *record.Set, t record.Type) bool {
	if !set.Have.Has(t) {
		*d = append(*d, "no "+t.String()+" record")
		return false
	}
	return true
}

// ipv4 compares a header; whole says that gopacket could read its options (it
// refuses those of length two).
func (d *diff) ipv4(l *layers.IPv4, set *record.Set, whole bool) {
	if !d.have(set, record.TypeIPv4) {
		return
	}
	r := &set.IPv4
	src, _ := netip.AddrFromSlice(l.SrcIP)
	dst, _ := netip.AddrFromSlice(l.DstIP)
	d.equal("Src", set.Src, src)
	d.equal("Dst", set.Dst, dst)
	d.equal("SrcIP", r.SrcIP, src.String())
	d.equal("DstIP", r.DstIP, dst.String())
	d.equal("Version", r.Version, int32(l.Version))
	d.equal("IHL", r.IHL, int32(l.IHL))
	d.equal("TOS", r.TOS, int32(l.TOS))
	d.equal("Length", r.Length, int32(l.Length))
	d.equal("Id", r.Id, int32(l.Id))
	d.equal("Flags", r.Flags, int32(l.Flags))
	d.equal("FragOffset", r.FragOffset, int32(l.FragOffset))
	d.equal("TTL", r.TTL, int32(l.TTL))
	d.equal("Protocol", r.Protocol, int32(l.Protocol))
	d.equal("Checksum", r.Checksum, int32(l.Checksum))
	if !whole {
		return
	}
	d.equal("Padding", r.Padding, l.Padding)
	d.equal("len(Options)", len(r.Options), len(l.Options))
	for i := range min(len(r.Options), len(l.Options)) {
		d.equal("OptionType", r.Options[i].OptionType, int32(l.Options[i].OptionType))
		d.equal("OptionLength", r.Options[i].OptionLength, int32(l.Options[i].OptionLength))
		d.equal("OptionData", r.Options[i].OptionData, l.Options[i].OptionData)
	}
}

func (d *diff) ipv6(l *layers.IPv6, set *record.Set) {
	if !d.have(set, record.TypeIPv6) {
		return
	}
	r := &set.IPv6
	src, _ := netip.AddrFromSlice(l.SrcIP)
	dst, _ := netip.AddrFromSlice(l.DstIP)
	d.equal("Src", set.Src, src)
	d.equal("Dst", set.Dst, dst)
	d.equal("TrafficClass", r.TrafficClass, int32(l.TrafficClass))
	d.equal("FlowLabel", r.FlowLabel, l.FlowLabel)
	d.equal("Length", r.Length, int32(l.Length))
	d.equal("NextHeader", r.NextHeader, int32(l.NextHeader))
	d.equal("HopLimit", r.HopLimit, int32(l.HopLimit))
	if l.HopByHop != nil { // an illegal one gopacket leaves out
		d.equal("has HopByHop", r.HopByHop != nil, true)
	}
}

func (d *diff) transport(layer gopacket.Layer, set *record.Set) {
	if layer == nil || len(layer.LayerContents()) == 0 {
		return // gopacket lists a layer that it could not decode, too, but empty
	}
	switch l := layer.(type) {
	case *layers.TCP:
		if len(l.Contents) < int(l.DataOffset)*4 {
			return // cut inside its options: gopacket gives up
		}
		if d.have(set, record.TypeTCP) {
			d.tcp(l, &set.TCP)
			d.equal("SrcPort", int(set.SrcPort), int(l.SrcPort))
			d.equal("DstPort", int(set.DstPort), int(l.DstPort))
		}
	case *layers.UDP:
		if d.have(set, record.TypeUDP) {
			r := &set.UDP
			d.equal("SrcPort", r.SrcPort, int32(l.SrcPort))
			d.equal("DstPort", r.DstPort, int32(l.DstPort))
			d.equal("Length", r.Length, int32(l.Length))
			d.equal("Checksum", r.Checksum, int32(l.Checksum))
			d.equal("Payload", r.Payload, l.Payload)
		}
	case *layers.ICMPv4:
		if set.Have.Has(record.TypeIPv4) && d.have(set, record.TypeICMPv4) {
			r := &set.ICMPv4
			d.equal("TypeCode", r.TypeCode, int32(l.TypeCode))
			d.equal("Checksum", r.Checksum, int32(l.Checksum))
			d.equal("Id", r.Id, int32(l.Id))
			d.equal("Seq", r.Seq, int32(l.Seq))
			d.equal("Payload", r.Payload, l.Payload)
		}
	case *layers.ICMPv6:
		if set.Have.Has(record.TypeIPv6) && d.have(set, record.TypeICMPv6) {
			r := &set.ICMPv6
			d.equal("TypeCode", r.TypeCode, int32(l.TypeCode))
			d.equal("Checksum", r.Checksum, int32(l.Checksum))
			d.equal("Payload", r.Payload, l.Payload)
		}
	}
}

func (d *diff) tcp(l *layers.TCP, r *record.TCP) {
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"SeqNum", r.SeqNum, l.Seq}, {"AckNum", r.AckNum, l.Ack}, {"DataOffset", r.DataOffset, int32(l.DataOffset)},
		{"FIN", r.FIN, l.FIN}, {"SYN", r.SYN, l.SYN}, {"RST", r.RST, l.RST}, {"PSH", r.PSH, l.PSH}, {"ACK", r.ACK, l.ACK},
		{"URG", r.URG, l.URG}, {"ECE", r.ECE, l.ECE}, {"CWR", r.CWR, l.CWR}, {"NS", r.NS, l.NS},
		{"Window", r.Window, int32(l.Window)}, {"Checksum", r.Checksum, int32(l.Checksum)},
		{"Urgent", r.Urgent, int32(l.Urgent)}, {"Padding", r.Padding, l.Padding}, {"Payload", r.Payload, l.Payload},
		{"len(Options)", len(r.Options), len(l.Options)},
	} {
		d.equal(f.name, f.got, f.want)
	}
	for i := range min(len(r.Options), len(l.Options)) {
		d.equal("OptionType", r.Options[i].OptionType, int32(l.Options[i].OptionType))
		d.equal("OptionLength", r.Options[i].OptionLength, int32(l.Options[i].OptionLength))
		d.equal("OptionData", r.Options[i].OptionData, l.Options[i].OptionData)
	}
}

// dns compares a message that both could read to its end.
func (d *diff) dns(packet gopacket.Packet, set *record.Set) {
	l, ok := packet.Layer(layers.LayerTypeDNS).(*layers.DNS)
	if !ok || !set.Have.Has(record.TypeDNS) || packet.Layer(layers.LayerTypeUDP) == nil || packet.ErrorLayer() != nil {
		return
	}
	r := &set.DNS
	d.equal("ID", r.ID, int32(l.ID))
	d.equal("flags", [5]bool{r.QR, r.AA, r.TC, r.RD, r.RA}, [5]bool{l.QR, l.AA, l.TC, l.RD, l.RA})
	d.equal("OpCode", r.OpCode, int32(l.OpCode))
	d.equal("Z", r.Z, int32(l.Z))
	d.equal("ResponseCode", r.ResponseCode, int32(l.ResponseCode))
	d.equal("counts", [4]int32{r.QDCount, r.ANCount, r.NSCount, r.ARCount},
		[4]int32{int32(l.QDCount), int32(l.ANCount), int32(l.NSCount), int32(l.ARCount)})
	for i := range min(len(r.Questions), len(l.Questions)) {
		d.name("question", r.Questions[i].Name, l.Questions[i].Name)
		d.equal("question type", r.Questions[i].Type, int32(l.Questions[i].Type))
	}
	for i := range min(len(r.Answers), len(l.Answers)) {
		got, want := r.Answers[i], l.Answers[i]
		d.name("answer", got.Name, want.Name)
		d.equal("answer type", got.Type, int32(want.Type))
		d.equal("answer TTL", got.TTL, want.TTL)
		d.equal("answer data", got.Data, want.Data)
	}
}

// name compares names where the way of writing them is the same: gopacket
// escapes nothing.
func (d *diff) name(what, got string, want []byte) {
	if strings.ContainsRune(got, '\\') {
		return
	}
	d.equal(what+" name", got, string(want))
}
