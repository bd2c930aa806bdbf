package decode

import (
	"encoding/binary"

	"github.com/netcap-guard/netcap-guard/record"
)

// slip reads BSD's pseudo header: direction, and 15 bytes of what header
// compression saw. Compressed headers (RFC 1144) are not followed: their first
// byte is no version of IP.
func (d *Decoder) slip(data []byte, wire int, set *record.Set) error {
	const header = 16
	if len(data) <= header {
		return d.fail(errLinkShort)
	}
	return d.raw(data[header:], wire-header, set)
}

// frameRelay reads the address (Q.922) and RFC 2427's header: a control byte
// and a number for what follows; or Cisco's, an EtherType.
func (d *Decoder) frameRelay(data []byte, wire int, set *record.Set) error {
	const maxAddress, control, pad = 4, 0x03, 0
	size := 0
	for size < min(maxAddress, len(data)) && data[size]&1 == 0 { // the last byte is odd
		size++
	}
	size++
	if len(data) < size+3 {
		return d.fail(errLinkShort)
	}
	data, wire = data[size:], wire-size
	if data[0] != control {
		return d.network(u16(data), data[2:], wire-2, set)
	}
	data, wire = data[1:], wire-1
	if data[0] == pad {
		data, wire = data[1:], wire-1
	}
	number := data[0]
	data, wire = data[1:], wire-1
	switch number { // NLPID
	case 0xcc:
		return d.ipv4(data, wire, set)
	case 0x8e:
		return d.ipv6(data, wire, set)
	case 0x80:
		return d.snap(data, wire, set)
	case 0xcf:
		return d.ppp(data, wire, set)
	}
	return nil
}

// nflog reads what the kernel hands out of a log group: family, version,
// group, and attributes in the byte order of the machine, one of them the
// packet from its network header on.
func (d *Decoder) nflog(data []byte, wire int, set *record.Set) error {
	const (
		header    = 4
		attribute = 4
		payload   = 9 // NFULA_PAYLOAD
	)
	if len(data) < header {
		return d.fail(errLinkShort)
	}
	order := binary.ByteOrder(binary.LittleEndian)
	// The first attribute is short: the byte order shows by itself.
	if len(data) >= header+attribute && order.Uint16(data[header:]) > 0xff {
		order = binary.BigEndian
	}
	family, rest := uint32(data[0]), data[header:]
	wire -= header
	for len(rest) >= attribute {
		size, kind := int(order.Uint16(rest)), order.Uint16(rest[2:])
		if size < attribute {
			return d.fail(errLinkShort)
		}
		if kind == payload {
			body := rest[attribute:min(size, len(rest))]
			return d.family(family, body, min(size, wire)-attribute, set)
		}
		size = (size + 3) &^ 3
		if size > len(rest) {
			return d.fail(errLinkShort)
		}
		rest, wire = rest[size:], wire-size
	}
	return nil
}
