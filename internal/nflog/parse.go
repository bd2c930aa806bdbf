package nflog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// Attributes of a packet message, of linux/netfilter/nfnetlink_log.h.
const (
	attrPacketHeader = 1 // struct nfulnl_msg_packet_hdr
	attrMark         = 2
	attrTimestamp    = 3 // struct nfulnl_msg_packet_timestamp
	attrInDev        = 4
	attrOutDev       = 5
	attrPayload      = 9
	attrPrefix       = 10
	attrSequence     = 12
)

const (
	nfgenmsgLength   = 4
	attrHeaderLength = 4
	attrTypeMask     = 1<<14 - 1 // without the flags for nesting and byte order
	// maxPrefix is longer than what the kernel lets a rule have (127 bytes on
	// nft, 63 on iptables).
	maxPrefix = 128
	// maxExtensions bounds the chain of IPv6 extension headers.
	maxExtensions = 8
)

// errMalformed: a message that no kernel sends.
var errMalformed = errors.New("malformed NFLOG message")

// parse reads one message, from the nfgenmsg on. What p held before is gone.
// It keeps nothing of data.
func (p *Packet) parse(data []byte) error {
	*p = Packet{}
	if len(data) < nfgenmsgLength {
		return errMalformed
	}
	for rest := data[nfgenmsgLength:]; len(rest) > 0; {
		if len(rest) < attrHeaderLength {
			return errMalformed
		}
		length := int(binary.NativeEndian.Uint16(rest))
		if length < attrHeaderLength || length > len(rest) {
			return errMalformed
		}
		if err := p.attribute(binary.NativeEndian.Uint16(rest[2:])&attrTypeMask, rest[attrHeaderLength:length]); err != nil {
			return err
		}
		rest = rest[min((length+3)&^3, len(rest)):]
	}
	return nil
}

// attribute takes one attribute over; an unknown one is passed over.
func (p *Packet) attribute(kind uint16, value []byte) error {
	if len(value) < leastLength(kind) {
		return errMalformed
	}
	switch kind {
	case attrPacketHeader:
		p.Hook = value[2]
	case attrMark:
		p.Mark = binary.BigEndian.Uint32(value)
	case attrTimestamp:
		p.Time = stamp(binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:]))
	case attrInDev:
		p.InDev = binary.BigEndian.Uint32(value)
	case attrOutDev:
		p.OutDev = binary.BigEndian.Uint32(value)
	case attrSequence:
		p.sequence, p.hasSequence = binary.BigEndian.Uint32(value), true
	case attrPrefix:
		text, _, _ := bytes.Cut(value, []byte{0})
		if len(text) > maxPrefix {
			return errMalformed
		}
		p.Prefix = string(text)
	case attrPayload:
		p.payload(value)
	}
	return nil
}

// leastLength is the size of an attribute's value, 0 where it may have any.
func leastLength(kind uint16) int {
	switch kind {
	case attrPacketHeader, attrMark, attrInDev, attrOutDev, attrSequence:
		return 4
	case attrTimestamp:
		return 16
	}
	return 0
}

// stamp is the zero time for what no clock of a kernel shows.
func stamp(seconds, micros uint64) time.Time {
	if seconds > 1<<40 || micros >= 1_000_000 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), int64(micros)*1000).UTC()
}

// payload reads addresses and ports of an IP packet, as far as the copy goes.
func (p *Packet) payload(b []byte) {
	if len(b) == 0 {
		return
	}
	switch b[0] >> 4 {
	case 4:
		p.ipv4(b)
	case 6:
		p.ipv6(b)
	}
}

func (p *Packet) ipv4(b []byte) {
	const length = 20
	if len(b) < length {
		return
	}
	p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	p.Proto = b[9]
	header := int(b[0]&0x0f) * 4
	if later := binary.BigEndian.Uint16(b[6:])&0x1fff != 0; later || header < length || header > len(b) {
		return
	}
	p.ports(b[header:])
}

func (p *Packet) ipv6(b []byte) {
	const length = 40
	if len(b) < length {
		return
	}
	p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next, rest := b[6], b[length:]
	for range maxExtensions {
		size := 0
		switch next {
		case 0, 43, 60, 135, 139, 140: // hop-by-hop, routing, destination, mobility, HIP, shim6
			if len(rest) >= 2 {
				size = 8 + int(rest[1])*8
			}
		case 51: // authentication header, counted in 4 bytes
			if len(rest) >= 2 {
				size = 8 + int(rest[1])*4
			}
		case 44: // fragment
			size = 8
			if len(rest) >= 4 && binary.BigEndian.Uint16(rest[2:])&0xfff8 != 0 {
				p.Proto = rest[0]
				return
			}
		default:
			p.Proto = next
			p.ports(rest)
			return
		}
		if size == 0 || size > len(rest) {
			return
		}
		next, rest = rest[0], rest[size:]
	}
}

// ports reads the ports of the transports that begin with them.
func (p *Packet) ports(b []byte) {
	switch p.Proto {
	case 6, 17, 33, 132, 136: // TCP, UDP, DCCP, SCTP, UDP-Lite
		if len(b) >= 4 {
			p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		}
	}
}
