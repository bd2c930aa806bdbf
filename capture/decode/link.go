package decode

import (
	"encoding/binary"
	"math/bits"

	"github.com/netcap-guard/netcap-guard/record"
)

// Link types as numbered in capture files. Package capture has the same list;
// a test holds both together.
const (
	linkNull       = 0
	linkEthernet   = 1
	linkSLIP       = 8
	linkPPP        = 9
	linkRawBSD     = 12
	linkRawOpenBSD = 14
	linkPPPHDLC    = 50
	linkPPPoE      = 51
	linkATM        = 100
	linkRaw        = 101
	linkCiscoHDLC  = 104
	linkWiFi       = 105
	linkFrameRelay = 107
	linkLoop       = 108
	linkSLL        = 113
	linkRadiotap   = 127
	linkIPv4       = 228
	linkIPv6       = 229
	linkNFLOG      = 239
	linkSLL2       = 276
)

// EtherTypes.
const (
	etherIPv4      = 0x0800
	etherARP       = 0x0806
	etherTEB       = 0x6558 // an Ethernet frame, in GRE and Geneve
	etherVLAN      = 0x8100 // 802.1Q
	etherIPv6      = 0x86dd
	etherPPP       = 0x880b
	etherMPLS      = 0x8847
	etherMPLSMulti = 0x8848
	etherPPPoE     = 0x8864
	etherQinQ      = 0x88a8 // 802.1ad
	etherPBB       = 0x88e7 // 802.1ah
	etherVNTag     = 0x8926
	etherETag      = 0x893f // 802.1BR
	etherNSH       = 0x894f // RFC 8300
	etherQinQ9100  = 0x9100 // before 802.1ad was a standard
	etherQinQ9200  = 0x9200
	// etherLeast is the least EtherType; below it the field is a length.
	etherLeast = 0x0600
)

const (
	ethernetHeader = 14
	vlanTag        = 4
)

// Limits of one packet: far more than is ever stacked.
const (
	maxLayers  = 16 // encapsulations below or between IP headers
	maxNesting = 8  // IP headers
)

// link decodes a packet of any link type but Ethernet.
func (d *Decoder) link(link uint32, data []byte, wire int, set *record.Set) error {
	switch link {
	case linkNull, linkLoop:
		return d.loopback(data, wire, set)
	case linkRawBSD, linkRawOpenBSD, linkRaw:
		return d.raw(data, wire, set)
	case linkSLL:
		return d.cooked(data, wire, set)
	case linkSLL2:
		return d.cooked2(data, wire, set)
	case linkIPv4:
		return d.ipv4(data, wire, set)
	case linkIPv6:
		return d.ipv6(data, wire, set)
	case linkPPP, linkPPPHDLC:
		return d.ppp(data, wire, set)
	case linkPPPoE:
		return d.pppoe(data, wire, set)
	case linkSLIP:
		return d.slip(data, wire, set)
	case linkCiscoHDLC:
		return d.ciscoHDLC(data, wire, set)
	case linkFrameRelay:
		return d.frameRelay(data, wire, set)
	case linkATM:
		return d.llc(data, wire, set)
	case linkNFLOG:
		return d.nflog(data, wire, set)
	case linkRadiotap:
		return d.radiotap(data, wire, set)
	case linkWiFi:
		return d.wifi(data, wire, false, set)
	}
	return d.fail(errLinkType)
}

func (d *Decoder) ethernet(data []byte, wire int, set *record.Set) error {
	if len(data) < ethernetHeader {
		return d.fail(errLinkShort)
	}
	if d.plan.ether {
		d.fillEthernet(data, wire, set)
	}
	return d.network(u16(data[12:]), data[ethernetHeader:], wire-ethernetHeader, set)
}

// network decodes what an EtherType says.
func (d *Decoder) network(ether uint16, data []byte, wire int, set *record.Set) error {
	switch ether {
	case etherIPv4:
		return d.ipv4(data, wire, set)
	case etherIPv6:
		return d.ipv6(data, wire, set)
	case etherVLAN:
		if len(data) >= vlanTag && d.layers < maxLayers {
			d.layers++
			return d.network(u16(data[2:]), data[vlanTag:], wire-vlanTag, set)
		}
	}
	return d.wrapped(ether, data, wire, set)
}

// wrapped takes one layer off that is not IP. Anything unknown is no error:
// there is nothing in it for a record.
func (d *Decoder) wrapped(ether uint16, data []byte, wire int, set *record.Set) error {
	if d.layers++; d.layers > maxLayers {
		return d.fail(errLinkLayers)
	}
	switch ether {
	case etherVLAN, etherQinQ, etherQinQ9100, etherQinQ9200:
		return d.tagged(vlanTag, data, wire, set)
	case etherVNTag:
		return d.tagged(6, data, wire, set)
	case etherETag:
		return d.tagged(8, data, wire, set)
	case etherARP:
		return d.arp(data, set)
	case etherMPLS, etherMPLSMulti:
		return d.mpls(data, wire, set)
	case etherPPPoE:
		return d.pppoe(data, wire, set)
	case etherPPP:
		return d.ppp(data, wire, set)
	case etherTEB:
		return d.ethernet(data, wire, set)
	case etherPBB: // the service's number, then the customer's frame
		if len(data) < 4 {
			return d.fail(errLinkShort)
		}
		return d.ethernet(data[4:], wire-4, set)
	case etherNSH:
		return d.nsh(data, wire, set)
	}
	if ether < etherLeast {
		size := int(ether)
		return d.llc(data[:min(size, len(data))], min(size, wire), set)
	}
	return nil
}

// tagged takes a tag of size bytes off, whose last two are the EtherType of
// what follows.
func (d *Decoder) tagged(size int, data []byte, wire int, set *record.Set) error {
	if len(data) < size {
		return d.fail(errLinkShort)
	}
	return d.network(u16(data[size-2:]), data[size:], wire-size, set)
}

// loopback reads the four-byte header of BSD's loopback interfaces: an address
// family in the byte order of the machine that captured (null), or in network
// order (loop). Families are small numbers, so the order shows by itself.
func (d *Decoder) loopback(data []byte, wire int, set *record.Set) error {
	const header = 4
	if len(data) < header {
		return d.fail(errLinkShort)
	}
	family := binary.LittleEndian.Uint32(data)
	if family > 0xffff {
		family = bits.ReverseBytes32(family)
	}
	return d.family(family, data[header:], wire-header, set)
}

// family decodes what an address family says, whatever system counted it.
func (d *Decoder) family(family uint32, data []byte, wire int, set *record.Set) error {
	switch family {
	case 2: // AF_INET everywhere
		return d.ipv4(data, wire, set)
	case 10, 23, 24, 28, 30: // AF_INET6 of Linux, Windows, NetBSD and OpenBSD, FreeBSD, Darwin
		return d.ipv6(data, wire, set)
	}
	return nil
}

// raw reads packets that begin with an IP header.
func (d *Decoder) raw(data []byte, wire int, set *record.Set) error {
	if len(data) == 0 {
		return d.fail(errLinkShort)
	}
	switch data[0] >> 4 {
	case 4:
		return d.ipv4(data, wire, set)
	case 6:
		return d.ipv6(data, wire, set)
	}
	return d.fail(errLinkVersion)
}

// hardwareNetlink is ARPHRD_NETLINK: the protocol field is then no EtherType.
const hardwareNetlink = 824

// cooked reads Linux's cooked header: packet type, hardware type, address
// length, address, protocol.
func (d *Decoder) cooked(data []byte, wire int, set *record.Set) error {
	const header = 16
	if len(data) < header {
		return d.fail(errLinkShort)
	}
	return d.cookedBody(u16(data[14:]), u16(data[2:]), data[header:], wire-header, set)
}

// cooked2 reads version 2 of it: protocol, reserved, interface index, hardware
// type, packet type, address length, address.
func (d *Decoder) cooked2(data []byte, wire int, set *record.Set) error {
	const header = 20
	if len(data) < header {
		return d.fail(errLinkShort)
	}
	return d.cookedBody(u16(data), u16(data[8:]), data[header:], wire-header, set)
}

// cookedBody decodes what either header says. Below the EtherTypes the
// protocol is no length but one of Linux's own numbers.
func (d *Decoder) cookedBody(proto, hardware uint16, data []byte, wire int, set *record.Set) error {
	const llc8022 = 4 // ETH_P_802_2
	switch {
	case hardware == hardwareNetlink:
		return nil
	case proto == llc8022:
		return d.llc(data, wire, set)
	case proto < etherLeast:
		return nil
	}
	return d.network(proto, data, wire, set)
}
