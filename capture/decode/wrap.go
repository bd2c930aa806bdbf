package decode

import "github.com/netcap-guard/netcap-guard/record"

// Layers between the link and IP. All of them are taken off always: whoever
// can send them to us is on the same link.

// llc reads an 802.2 header: SNAP with an EtherType (RFC 1042), a bridged
// frame (RFC 2684), or IP by its own number.
func (d *Decoder) llc(data []byte, wire int, set *record.Set) error {
	const (
		snapHeader = 8
		snap       = "\xaa\xaa\x03"
		ip         = "\x06\x06\x03"
	)
	switch {
	case len(data) < 3:
		return d.fail(errLinkShort)
	case string(data[:3]) == ip:
		return d.ipv4(data[3:], wire-3, set)
	case string(data[:3]) == snap && len(data) >= snapHeader:
		return d.snap(data[3:], wire-3, set)
	}
	return nil
}

// snap reads the five bytes behind it: an organisation and its number for what
// follows.
func (d *Decoder) snap(data []byte, wire int, set *record.Set) error {
	const header = 5
	if len(data) < header {
		return d.fail(errLinkShort)
	}
	number := u16(data[3:])
	body, left := data[header:], wire-header
	switch oui := u32(data) >> 8; {
	case (oui == 0 || oui == 0x0000f8) && number >= etherLeast:
		return d.network(number, body, left, set)
	case oui == 0x0080c2 && (number == 1 || number == 7): // bridged Ethernet, RFC 2684, 5.2
		const padding = 2 // ATM's; frame relay has none, and no bridged frame begins with zeros
		if len(body) > padding && u16(body) == 0 {
			body, left = body[padding:], left-padding
		}
		return d.ethernet(body, left, set)
	}
	return nil
}

// mpls takes labels off (RFC 3032). What they carry is told by its first four
// bits, as routers do for load balancing: IP's version, or zero for a control
// word (RFC 4385), behind which a pseudowire has an Ethernet frame.
func (d *Decoder) mpls(data []byte, wire int, set *record.Set) error {
	const label, bottom = 4, 0x01
	for range maxLayers {
		if len(data) < label {
			return d.fail(errLinkShort)
		}
		last := data[2]&bottom != 0
		data, wire = data[label:], wire-label
		if !last {
			continue
		}
		if len(data) == 0 {
			return nil
		}
		switch data[0] >> 4 {
		case 4:
			return d.ipv4(data, wire, set)
		case 6:
			return d.ipv6(data, wire, set)
		case 0:
			if len(data) >= 4+ethernetHeader && d.known(u16(data[4+12:])) {
				return d.ethernet(data[4:], wire-4, set)
			}
		}
		return nil
	}
	return d.fail(errLinkLayers)
}

// known reports whether a number is an EtherType of something with IP in it.
func (d *Decoder) known(ether uint16) bool {
	switch ether {
	case etherIPv4, etherIPv6, etherARP, etherVLAN, etherQinQ, etherMPLS, etherPPPoE:
		return true
	}
	return false
}

// pppoe reads a session's header (RFC 2516); discovery has an EtherType of its
// own and no IP.
func (d *Decoder) pppoe(data []byte, wire int, set *record.Set) error {
	const header, version, session = 6, 0x11, 0
	if len(data) < header {
		return d.fail(errLinkShort)
	}
	if data[0] != version || data[1] != session {
		return nil
	}
	size := int(u16(data[4:]))
	data, wire = data[header:], wire-header
	return d.ppp(data[:min(size, len(data))], min(size, wire), set)
}

// Protocols of PPP (IANA).
const (
	pppIPv4      = 0x0021
	pppMultilink = 0x003d
	pppIPv6      = 0x0057
	pppMPLS      = 0x0281
	pppMPLSMulti = 0x0283
)

// ppp reads a frame (RFC 1661), with address and control (RFC 1662) or without
// them, its protocol in one byte or two.
func (d *Decoder) ppp(data []byte, wire int, set *record.Set) error {
	const cisco, ciscoMulti = 0x0f00, 0x8f00
	if len(data) >= 2 {
		switch u16(data) {
		case 0xff03:
			data, wire = data[2:], wire-2
		case cisco, ciscoMulti:
			return d.ciscoHDLC(data, wire, set)
		}
	}
	return d.pppBody(data, wire, set)
}

func (d *Decoder) pppBody(data []byte, wire int, set *record.Set) error {
	if len(data) == 0 {
		return d.fail(errLinkShort)
	}
	proto, size := uint16(data[0]), 1
	if proto&1 == 0 { // an odd byte ends the number
		if len(data) < 2 {
			return d.fail(errLinkShort)
		}
		proto, size = u16(data), 2
	}
	data, wire = data[size:], wire-size
	switch proto {
	case pppIPv4:
		return d.ipv4(data, wire, set)
	case pppIPv6:
		return d.ipv6(data, wire, set)
	case pppMPLS, pppMPLSMulti:
		return d.mpls(data, wire, set)
	case pppMultilink: // RFC 1990: a frame in one piece is looked into
		const header, whole = 4, 0xc0
		if len(data) > header && data[0]&whole == whole {
			if d.layers++; d.layers > maxLayers {
				return d.fail(errLinkLayers)
			}
			return d.pppBody(data[header:], wire-header, set)
		}
	}
	return nil
}

// ciscoHDLC reads address, control and an EtherType.
func (d *Decoder) ciscoHDLC(data []byte, wire int, set *record.Set) error {
	if len(data) < 4 {
		return d.fail(errLinkShort)
	}
	if ether := u16(data[2:]); ether >= etherLeast {
		return d.network(ether, data[4:], wire-4, set)
	}
	return nil
}

// nsh takes a service function chain's header off (RFC 8300).
func (d *Decoder) nsh(data []byte, wire int, set *record.Set) error {
	const least, ipv4, ipv6, ether, nsh, mpls = 8, 1, 2, 3, 4, 5
	if len(data) < least {
		return d.fail(errLinkShort)
	}
	size := int(data[1]&0x3f) * 4
	if size < least || size > len(data) {
		return d.fail(errLinkShort)
	}
	next := data[3]
	data, wire = data[size:], wire-size
	switch next {
	case ipv4:
		return d.ipv4(data, wire, set)
	case ipv6:
		return d.ipv6(data, wire, set)
	case ether:
		return d.ethernet(data, wire, set)
	case nsh:
		return d.wrapped(etherNSH, data, wire, set)
	case mpls:
		return d.mpls(data, wire, set)
	}
	return nil
}
