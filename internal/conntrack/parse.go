package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	attrOrig  = 1 // CTA_TUPLE_ORIG
	attrReply = 2 // CTA_TUPLE_REPLY
	attrID    = 12
	attrZone  = 18

	tupleIP = 1 // CTA_TUPLE_IP

	ipv4Src = 1
	ipv6Dst = 4
)

const (
	nfgenmsgLength   = 4
	attrHeaderLength = 4
	attrTypeMask     = 1<<14 - 1 // without the flags for nesting and byte order
)

// errMalformed: a message that no kernel sends.
var errMalformed = errors.New("malformed conntrack message")

// entry is one entry of the table, as far as it is needed to find and to name
// it. Its slices are those of the message.
type entry struct {
	family byte // AF_INET, AF_INET6
	// ends are source and destination of the original and of the reply
	// direction.
	ends [4]netip.Addr
	// orig, id and zone name the entry, and nothing that took its place, to the
	// kernel; zone is empty in the default zone.
	orig, id, zone []byte
}

// parse reads one message, from the nfgenmsg on.
func (e *entry) parse(data []byte) error {
	*e = entry{}
	if len(data) < nfgenmsgLength {
		return errMalformed
	}
	e.family = data[0]
	return eachAttr(data[nfgenmsgLength:], func(kind uint16, value []byte) error {
		switch kind {
		case attrOrig:
			e.orig = value
			return e.tuple(value, 0)
		case attrReply:
			return e.tuple(value, 2)
		case attrID:
			e.id = value
		case attrZone:
			e.zone = value
		}
		return nil
	})
}

// tuple reads the addresses of one direction into ends, from at on.
func (e *entry) tuple(b []byte, at int) error {
	return eachAttr(b, func(kind uint16, value []byte) error {
		if kind != tupleIP {
			return nil
		}
		return eachAttr(value, func(kind uint16, value []byte) error {
			if kind < ipv4Src || kind > ipv6Dst {
				return nil
			}
			a, ok := netip.AddrFromSlice(value)
			if !ok || a.Is4() != (kind <= 2) {
				return errMalformed
			}
			e.ends[at+int(kind-1)%2] = a
			return nil
		})
	})
}

// eachAttr calls f for each attribute of a list.
func eachAttr(b []byte, f func(kind uint16, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < attrHeaderLength {
			return errMalformed
		}
		length := int(binary.NativeEndian.Uint16(b))
		if length < attrHeaderLength || length > len(b) {
			return errMalformed
		}
		if err := f(binary.NativeEndian.Uint16(b[2:])&attrTypeMask, b[attrHeaderLength:length]); err != nil {
			return err
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return nil
}
