package decode

import (
	"net/netip"

	"github.com/netcap-guard/netcap-guard/record"
)

// What stays on its link: Ethernet's own header, and ARP.

const hexDigits = "0123456789abcdef"

// hardware spells a link-layer address.
func (d *Decoder) hardware(address []byte) string {
	b := d.text[:0]
	for i, c := range address {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	d.text = b
	return d.strings.get(b)
}

// fillEthernet fills the record from a frame's header; inside a tunnel the
// inner frame's takes its place. PayloadSize is what was sent behind the
// header, link padding included.
func (d *Decoder) fillEthernet(data []byte, wire int, set *record.Set) {
	r := &set.Ethernet
	set.Have |= 1 << record.TypeEthernet
	r.Timestamp = set.Time
	ether := u16(data[12:])
	r.EthernetType = int32(ether)
	r.PayloadSize = int32(wire - ethernetHeader)
	r.IsMulticast, r.IsLocallyAdministered = data[0]&1 != 0, data[0]&2 != 0
	r.IsBroadcast = string(data[:6]) == "\xff\xff\xff\xff\xff\xff"
	more := d.plan.etherMore
	if more&moreSrc != 0 {
		r.SrcMAC = d.hardware(data[6:12])
	}
	if more&moreDst != 0 {
		r.DstMAC = d.hardware(data[:6])
	}
	if more&moreName != 0 {
		r.EthernetTypeName = etherName(ether)
	}
	if more&moreEntropy != 0 {
		r.PayloadEntropy = entropy(data[ethernetHeader:])
	}
}

// etherName is an EtherType's name; empty for one without.
func etherName(ether uint16) string {
	switch ether {
	case etherIPv4:
		return "IPv4"
	case etherARP:
		return "ARP"
	case etherIPv6:
		return "IPv6"
	case etherVLAN:
		return "Dot1Q"
	case etherQinQ, etherQinQ9100, etherQinQ9200:
		return "QinQ"
	case etherMPLS, etherMPLSMulti:
		return "MPLS"
	case etherPPPoE:
		return "PPPoESession"
	case 0x8863:
		return "PPPoEDiscovery"
	case 0x88cc:
		return "LLDP"
	case 0x888e:
		return "EAPOL"
	}
	if ether < etherLeast {
		return "LLC"
	}
	return ""
}

// arp decodes an ARP packet (RFC 826). The header's addresses are those that
// the packet speaks of, so that rules count who sent it.
func (d *Decoder) arp(data []byte, set *record.Set) error {
	const header = 8
	if len(data) < header {
		return d.fail(errARPShort)
	}
	hw, proto := int(data[4]), int(data[5])
	if len(data) < header+2*(hw+proto) {
		return d.fail(errARPShort)
	}
	from, to := data[header+hw:], data[header+2*hw+proto:]
	d.enter(set)
	set.Src, set.Dst, set.Proto = protocolAddress(from[:proto]), protocolAddress(to[:proto]), 0
	if d.plan.arp {
		set.Have |= 1 << record.TypeARP
		d.fillARP(data, hw, proto, set)
	}
	return nil
}

// protocolAddress is an address of ARP's, not valid unless it is one of IP's.
func protocolAddress(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// fillARP fills the record. The addresses are in the header already.
func (d *Decoder) fillARP(data []byte, hw, proto int, set *record.Set) {
	r, src, dst := &set.ARP, set.Src, set.Dst
	r.Timestamp = set.Time
	r.AddrType, r.Protocol = int32(u16(data)), int32(u16(data[2:]))
	r.HwAddressSize, r.ProtocolAddressSize = int32(hw), int32(proto)
	r.Operation = int32(u16(data[6:]))
	r.IsGratuitous, r.IsProbe, r.IsAnnouncement = false, false, false
	if src.IsValid() {
		// RFC 5227, 1.1: a probe comes from nobody, an announcement says who
		// has the address, as a request; an answer nobody asked for says the same.
		r.IsGratuitous = src == dst
		r.IsProbe = r.Operation == 1 && src.IsUnspecified() && !dst.IsUnspecified()
		r.IsAnnouncement = r.Operation == 1 && r.IsGratuitous && !src.IsUnspecified()
	}
	more := d.plan.arpMore
	if more&moreSrc != 0 {
		r.SrcIP = d.validAddr(src)
		r.SrcProtocolAddress = r.SrcIP
	}
	if more&moreDst != 0 {
		r.DstIP = d.validAddr(dst)
		r.DstProtocolAddress = r.DstIP
	}
	if more&moreHardware != 0 {
		r.SrcHwAddress, r.DstHwAddress = d.hardware(data[8:8+hw]), d.hardware(data[8+hw+proto:8+2*hw+proto])
	}
	if more&moreName != 0 {
		r.OperationName = arpName(r.Operation)
	}
}

// validAddr is addr for an address that may be none.
func (d *Decoder) validAddr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return d.addr(a)
}

// arpName is an operation's name (IANA); empty for one without.
func arpName(operation int32) string {
	names := [...]string{1: "Request", 2: "Reply", 3: "ReverseRequest", 4: "ReverseReply", 8: "InverseRequest", 9: "InverseReply"}
	if operation >= 0 && int(operation) < len(names) {
		return names[operation]
	}
	return ""
}
