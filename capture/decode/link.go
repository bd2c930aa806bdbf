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
	linkRawBSD     = 12
	linkRawOpenBSD = 14
	linkRaw        = 101
	linkLoop       = 108
	linkSLL        = 113
	linkIPv4       = 228
	linkIPv6       = 229
	linkSLL2       = 276
)

// EtherTypes.
const (
	etherIPv4     = 0x0800
	etherIPv6     = 0x86dd
	etherVLAN     = 0x8100 // 802.1Q
	etherQinQ     = 0x88a8 // 802.1ad
	etherQinQ9100 = 0x9100 // before 802.1ad was a standard
	etherQinQ9200 = 0x9200
	// etherLeast is the least EtherType; below it the field is a length.
	etherLeast = 0x0600
)

const (
	ethernetHeader = 14
	vlanTag        = 4
	// maxTags bounds the VLAN tags taken off: twice what is ever stacked.
	maxTags = 8
	// llcSNAP begins the header that carries an EtherType behind a length
	// (RFC 1042).
	llcSNAP       = "\xaa\xaa\x03\x00\x00\x00"
	llcSNAPHeader = 8
)

func (d *Decoder) ethernet(data []byte, wire int, set *record.Set) error {
	if len(data) < ethernetHeader {
		return d.fail(errLinkShort)
	}
	return d.network(u16(data[12:]), data[ethernetHeader:], wire-ethernetHeader, set)
}

// network takes VLAN tags off and hands what they carry on. Anything but IP
// is no error: there is nothing in it for a record.
func (d *Decoder) network(ether uint16, data []byte, wire int, set *record.Set) error {
	for range maxTags {
		switch ether {
		case etherIPv4:
			return d.ipv4(data, wire, set)
		case etherIPv6:
			return d.ipv6(data, wire, set)
		case etherVLAN, etherQinQ, etherQinQ9100, etherQinQ9200:
			if len(data) < vlanTag {
				return d.fail(errLinkShort)
			}
			ether, data, wire = u16(data[2:]), data[vlanTag:], wire-vlanTag
		default:
			if ether >= etherLeast || len(data) < llcSNAPHeader || string(data[:len(llcSNAP)]) != llcSNAP {
				return nil
			}
			ether, data, wire = u16(data[6:]), data[llcSNAPHeader:], wire-llcSNAPHeader
			if ether < etherLeast {
				return nil
			}
		}
	}
	return d.fail(errLinkTags)
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
	data, wire = data[header:], wire-header
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
	if u16(data[2:]) == hardwareNetlink {
		return nil
	}
	return d.network(u16(data[14:]), data[header:], wire-header, set)
}

// cooked2 reads version 2 of it: protocol, reserved, interface index, hardware
// type, packet type, address length, address.
func (d *Decoder) cooked2(data []byte, wire int, set *record.Set) error {
	const header = 20
	if len(data) < header {
		return d.fail(errLinkShort)
	}
	if u16(data[8:]) == hardwareNetlink {
		return nil
	}
	return d.network(u16(data), data[header:], wire-header, set)
}
