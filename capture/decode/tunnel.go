package decode

import "github.com/netcap-guard/netcap-guard/record"

// Tunnels: IP packets that carry frames or packets of somebody else's. They
// are taken off in a replay, and live only where that was asked for.

// tunnel decodes what an IP packet carries, if that is a tunnel.
func (d *Decoder) tunnel(proto uint8, payload []byte, size int, set *record.Set) error {
	switch proto {
	case protoIPv4:
		return d.ipv4(payload, size, set)
	case protoIPv6:
		return d.ipv6(payload, size, set)
	case protoGRE:
		return d.gre(payload, size, set)
	case protoEtherIP: // RFC 3378: version 3, reserved
		if len(payload) >= 2 && payload[0]>>4 == 3 {
			return d.ethernet(payload[2:], size-2, set)
		}
	}
	return nil
}

// Protocols of GRE that are no EtherTypes of a link.
const (
	greERSPAN    = 0x88be // versions I and II
	greERSPAN3   = 0x22eb
	greChecksum  = 0x8000
	greRouting   = 0x4000
	greKey       = 0x2000
	greSequence  = 0x1000
	greAck       = 0x0080 // version 1
	greVersion   = 0x0007
	greHeader    = 4
	erspanHeader = 8
)

// gre reads a GRE header: version 0 (RFC 2784, RFC 2890), and version 1, which
// carries PPP (RFC 2637).
func (d *Decoder) gre(data []byte, wire int, set *record.Set) error {
	if len(data) < greHeader {
		return d.fail(errTunnelShort)
	}
	flags, proto := u16(data), u16(data[2:])
	size, version := greHeader, flags&greVersion
	optional := []uint16{greKey, greSequence, greAck}
	if version == 0 {
		optional = []uint16{greChecksum | greRouting, greKey, greSequence}
	} else if version != 1 || proto != etherPPP {
		return nil
	}
	for _, flag := range optional {
		if flags&flag != 0 {
			size += 4
		}
	}
	if version == 0 && flags&greRouting != 0 {
		size = greRoutes(data, size)
	}
	if size > len(data) {
		return d.fail(errTunnelShort)
	}
	data, wire = data[size:], wire-size
	switch proto {
	case greERSPAN:
		if flags&greSequence == 0 { // version I has no header of its own
			return d.ethernet(data, wire, set)
		}
		return d.frameBehind(erspanHeader, data, wire, set)
	case greERSPAN3:
		return d.erspan3(data, wire, set)
	case etherPPP:
		if len(data) == 0 { // an acknowledgement alone
			return nil
		}
	}
	if proto < etherLeast { // a keepalive
		return nil
	}
	return d.network(proto, data, wire, set)
}

// greRoutes returns where the source routes that begin at size end (RFC 1701);
// beyond the data where that cannot be told.
func greRoutes(data []byte, size int) int {
	for size+4 <= len(data) {
		length := int(data[size+3])
		end := length == 0 && u16(data[size:]) == 0
		size += 4 + length
		if end {
			return size
		}
	}
	return len(data) + 1
}

// frameBehind decodes an Ethernet frame behind a header of the given size.
func (d *Decoder) frameBehind(size int, data []byte, wire int, set *record.Set) error {
	if len(data) < size {
		return d.fail(errTunnelShort)
	}
	return d.ethernet(data[size:], wire-size, set)
}

// erspan3 reads the header of ERSPAN version III (draft-foschiano-erspan):
// twelve bytes, eight more where the last bit says so.
func (d *Decoder) erspan3(data []byte, wire int, set *record.Set) error {
	const header, subheader, frame, packet = 12, 8, 0, 2
	if len(data) < header {
		return d.fail(errTunnelShort)
	}
	size, kind := header, data[10]>>2&0x1f
	if data[11]&1 != 0 {
		size += subheader
	}
	if len(data) < size {
		return d.fail(errTunnelShort)
	}
	switch kind {
	case frame:
		return d.ethernet(data[size:], wire-size, set)
	case packet:
		return d.raw(data[size:], wire-size, set)
	}
	return nil
}

// Ports of tunnels over UDP.
const (
	portGTP       = 2152
	portTeredo    = 3544
	portVXLAN     = 4789
	portVXLANGPE  = 4790
	portAYIYA     = 5072
	portGeneve    = 6081
	portVXLANOld  = 8472 // Linux before IANA had a number
	vxlanHeader   = 8
	teredoLeast   = ipv6Header
	geneveHeader  = 8
	gtpHeader     = 8
	gtpOptional   = 4
	flagVXLAN     = 0x08
	flagGPE       = 0x04
	gtpVersion    = 0x30 // version 1, GTP
	gtpMore       = 0x07
	gtpExtensions = 0x04
	gtpData       = 255
)

// udpTunnel decodes what a datagram carries, if that is a tunnel. The header
// must be what it has to be: the port alone says little.
func (d *Decoder) udpTunnel(data []byte, wire int, set *record.Set) error {
	switch set.DstPort {
	case portVXLAN, portVXLANOld:
		if len(data) >= vxlanHeader && data[0]&flagVXLAN != 0 { // all else is reserved, and to be ignored
			return d.ethernet(data[vxlanHeader:], wire-vxlanHeader, set)
		}
	case portVXLANGPE:
		return d.vxlanGPE(data, wire, set)
	case portGeneve:
		return d.geneve(data, wire, set)
	case portGTP:
		return d.gtp(data, wire, set)
	}
	switch {
	case set.DstPort == portTeredo || set.SrcPort == portTeredo:
		return d.teredo(data, wire, set)
	case set.DstPort == portAYIYA || set.SrcPort == portAYIYA:
		return d.ayiya(data, wire, set)
	}
	return nil
}

// ayiya reads IPv6 in UDP (draft-massar-v6ops-ayiya): who it is and the
// signature have lengths of their own, operation 1 forwards a packet.
func (d *Decoder) ayiya(data []byte, wire int, set *record.Set) error {
	const fixed, forward = 8, 1
	if len(data) < fixed || data[2]&0x0f != forward || data[3] != protoIPv6 {
		return nil
	}
	size := fixed + 1<<(data[0]>>4) + int(data[1]>>4)*4
	if size > len(data) {
		return d.fail(errTunnelShort)
	}
	return d.ipv6(data[size:], wire-size, set)
}

// vxlanGPE reads draft-ietf-nvo3-vxlan-gpe: the last byte of the first word
// says what follows.
func (d *Decoder) vxlanGPE(data []byte, wire int, set *record.Set) error {
	const ipv4, ipv6, frame, nsh = 1, 2, 3, 4
	if len(data) < vxlanHeader || data[0]&flagVXLAN == 0 {
		return nil
	}
	next := data[3]
	if data[0]&flagGPE == 0 {
		next = frame
	}
	data, wire = data[vxlanHeader:], wire-vxlanHeader
	switch next {
	case ipv4:
		return d.ipv4(data, wire, set)
	case ipv6:
		return d.ipv6(data, wire, set)
	case frame:
		return d.ethernet(data, wire, set)
	case nsh:
		return d.wrapped(etherNSH, data, wire, set)
	}
	return nil
}

// geneve reads RFC 8926: version 0, options in words, an EtherType.
func (d *Decoder) geneve(data []byte, wire int, set *record.Set) error {
	if len(data) < geneveHeader || data[0]>>6 != 0 {
		return nil
	}
	size := geneveHeader + int(data[0]&0x3f)*4
	if size > len(data) {
		return d.fail(errTunnelShort)
	}
	return d.network(u16(data[2:]), data[size:], wire-size, set)
}

// gtp reads a user's packet of a mobile network (3GPP TS 29.281): version 1,
// message G-PDU, with extension headers.
func (d *Decoder) gtp(data []byte, wire int, set *record.Set) error {
	if len(data) < gtpHeader || data[0]&0xf0 != gtpVersion || data[1] != gtpData {
		return nil
	}
	size := gtpHeader
	if data[0]&gtpMore != 0 {
		size += gtpOptional
		if size > len(data) {
			return d.fail(errTunnelShort)
		}
		if data[0]&gtpExtensions != 0 {
			for next := data[size-1]; next != 0; {
				if size >= len(data) || data[size] == 0 || size+int(data[size])*4 > len(data) {
					return d.fail(errTunnelShort)
				}
				size += int(data[size]) * 4
				next = data[size-1]
			}
		}
	}
	if size >= len(data) || data[size]>>4 != 4 && data[size]>>4 != 6 { // a user's frames of other kinds
		return nil
	}
	return d.raw(data[size:], wire-size, set)
}

// teredo reads IPv6 in UDP (RFC 4380) behind the indications that may precede
// it: of authentication and of origin.
func (d *Decoder) teredo(data []byte, wire int, set *record.Set) error {
	const auth, origin = 0x0001, 0x0000
	const authFixed, originSize = 13, 8
	if len(data) >= 4 && u16(data) == auth {
		size := authFixed + int(data[2]) + int(data[3])
		if size > len(data) {
			return nil
		}
		data, wire = data[size:], wire-size
	}
	if len(data) >= originSize && u16(data) == origin {
		data, wire = data[originSize:], wire-originSize
	}
	if len(data) < teredoLeast || data[0]>>4 != 6 || ipv6Header+int(u16(data[4:])) > wire {
		return nil
	}
	return d.ipv6(data, wire, set)
}
