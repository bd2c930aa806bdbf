package decode

import (
	"encoding/binary"

	"github.com/netcap-guard/netcap-guard/record"
)

// radiotap reads the header that describes how a frame was received
// (radiotap.org), little endian throughout. All that matters is its length and
// whether the frame's header is padded.
func (d *Decoder) radiotap(data []byte, wire int, set *record.Set) error {
	const (
		least    = 8
		hasTSFT  = 1 << 0
		hasFlags = 1 << 1
		more     = 1 << 31
		padded   = 0x20
	)
	if len(data) < least {
		return d.fail(errLinkShort)
	}
	size := int(binary.LittleEndian.Uint16(data[2:]))
	if size < least || size > len(data) {
		return d.fail(errLinkShort)
	}
	present, at := binary.LittleEndian.Uint32(data[4:]), least
	for word := present; word&more != 0; at += 4 {
		if at+4 > size {
			return d.fail(errLinkShort)
		}
		word = binary.LittleEndian.Uint32(data[at:])
	}
	if present&hasTSFT != 0 { // eight bytes, aligned
		at = (at+7)&^7 + 8
	}
	padding := present&hasFlags != 0 && at < size && data[at]&padded != 0
	return d.wifi(data[size:], wire-size, padding, set)
}

// wifi reads an 802.11 data frame. Other frames, encrypted ones and pieces of
// one have no IP to see.
func (d *Decoder) wifi(data []byte, wire int, padded bool, set *record.Set) error {
	const (
		least               = 24
		typeMask, typeData  = 0x0f, 0x08 // with the version, which is 0
		noData, qos         = 0x40, 0x80
		toFromDS            = 0x03
		moreFragments, lock = 0x04, 0x40
		order               = 0x80
		aggregated          = 0x80
	)
	if len(data) < 2 {
		return d.fail(errLinkShort)
	}
	kind, flags := data[0], data[1]
	if kind&typeMask != typeData || kind&noData != 0 || flags&(moreFragments|lock) != 0 {
		return nil
	}
	size, several := least, false
	if flags&toFromDS == toFromDS { // a fourth address
		size += 6
	}
	if kind&qos != 0 {
		if len(data) < size+2 {
			return d.fail(errLinkShort)
		}
		several = data[size]&aggregated != 0
		size += 2
		if flags&order != 0 {
			size += 4
		}
	}
	if padded {
		size = (size + 3) &^ 3
	}
	if len(data) < size {
		return d.fail(errLinkShort)
	}
	if u16(data[22:])&0x0f00 != 0 { // not the first fragment; the number is little endian
		return nil
	}
	data, wire = data[size:], wire-size
	if several { // several frames in one: the first is taken, behind two addresses and its length
		const header = 14
		if len(data) < header {
			return d.fail(errLinkShort)
		}
		n := int(u16(data[12:]))
		data, wire = data[header:], wire-header
		data, wire = data[:min(n, len(data))], min(n, wire)
	}
	return d.llc(data, wire, set)
}
