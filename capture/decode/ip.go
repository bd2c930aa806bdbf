package decode

import (
	"net/netip"

	"github.com/netcap-guard/netcap-guard/record"
)

// IP protocol numbers.
const (
	protoHopByHop = 0
	protoICMPv4   = 1
	protoTCP      = 6
	protoUDP      = 17
	protoDCCP     = 33
	protoRouting  = 43
	protoFragment = 44
	protoAuth     = 51
	protoICMPv6   = 58
	protoDestOpts = 60
	protoSCTP     = 132
	protoMobility = 135
	protoUDPLite  = 136
	protoHIP      = 139
	protoShim6    = 140
)

const (
	ipv4Header = 20
	ipv6Header = 40
	// maxExtensions bounds the extension headers of one packet.
	maxExtensions = 16
)

// ipv4 decodes an IPv4 packet (RFC 791) in data, of which there were wire
// bytes, link padding included.
func (d *Decoder) ipv4(data []byte, wire int, set *record.Set) error {
	if len(data) < ipv4Header {
		return d.fail(errIPv4Short)
	}
	if data[0]>>4 != 4 {
		return d.fail(errIPv4Version)
	}
	head := int(data[0]&15) * 4
	total := int(u16(data[2:]))
	if total == 0 {
		// Captured on the sending host before the card cut it into segments
		// (TSO): the length is what there is.
		total = wire
	}
	if head < ipv4Header || total < head {
		return d.fail(errIPv4Length)
	}
	set.Src = netip.AddrFrom4([4]byte(data[12:16]))
	set.Dst = netip.AddrFrom4([4]byte(data[16:20]))
	set.Proto = data[9]
	payload := data[min(head, len(data)):min(total, len(data))]

	var err error
	switch fragment := u16(data[6:]); {
	case len(data) < head:
		err = d.fail(errIPv4Short)
	case fragment&0x1fff == 0: // only the first fragment has the transport's header
		err = d.transport(set.Proto, payload, total-head, set, false)
	}
	if d.plan.ip4 {
		if optErr := d.fillIPv4(data[:min(head, len(data))], payload, total, set); err == nil {
			err = optErr
		}
	}
	return err
}

// ipv6 decodes an IPv6 packet (RFC 8200) and walks its extension headers.
func (d *Decoder) ipv6(data []byte, wire int, set *record.Set) error {
	if len(data) < ipv6Header {
		return d.fail(errIPv6Short)
	}
	if data[0]>>4 != 6 {
		return d.fail(errIPv6Version)
	}
	size := int(u16(data[4:]))
	if size == 0 && data[6] != 59 {
		// A jumbogram, or captured before the card cut it into segments.
		size = max(wire-ipv6Header, 0)
	}
	set.Src = netip.AddrFrom16([16]byte(data[8:24]))
	set.Dst = netip.AddrFrom16([16]byte(data[24:40]))
	payload := data[ipv6Header:min(ipv6Header+size, len(data))]

	exts, err := d.extensions(data[6], payload, size)
	set.Proto = exts.next
	if err == nil && exts.transport {
		err = d.transport(exts.next, payload[exts.size:], size-exts.size, set, true)
	}
	if d.plan.ip6 {
		d.fillIPv6(data, payload, size, &exts, set)
	}
	return err
}

// extensions is what the chain of extension headers says.
type extensions struct {
	next      uint8 // the protocol behind the last of them
	size      int   // their bytes
	hopByHop  []byte
	any       bool
	fragment  bool
	transport bool // the transport's header follows
}

// extensions walks the chain in payload, of which there were size bytes.
func (d *Decoder) extensions(next uint8, payload []byte, size int) (extensions, error) {
	e := extensions{next: next, transport: true}
	for range maxExtensions {
		rest := payload[e.size:]
		var length int
		switch e.next {
		case protoHopByHop, protoRouting, protoDestOpts, protoMobility, protoHIP, protoShim6:
			if len(rest) >= 2 {
				length = (int(rest[1]) + 1) * 8
			}
		case protoAuth: // RFC 4302: in words, minus two
			if len(rest) >= 2 {
				length = (int(rest[1]) + 2) * 4
			}
		case protoFragment:
			length = 8
		default:
			return e, nil
		}
		e.any = true
		if length == 0 || length > len(rest) || length > size-e.size {
			e.transport = false
			e.fragment = e.fragment || e.next == protoFragment
			return e, d.fail(errIPv6Ext)
		}
		switch e.next {
		case protoHopByHop:
			if e.hopByHop == nil {
				e.hopByHop = rest[:length]
			}
		case protoFragment:
			e.fragment = true
			if u16(rest[2:])&0xfff8 != 0 { // not the first
				e.next, e.transport = rest[0], false
				e.size += length
				return e, nil
			}
		}
		e.next = rest[0]
		e.size += length
	}
	e.transport = false
	return e, d.fail(errIPv6Exts)
}

// transport decodes what an IP header carries: payload is what was captured
// of it, size what the header says. Each version of IP has its own ICMP.
func (d *Decoder) transport(proto uint8, payload []byte, size int, set *record.Set, v6 bool) error {
	switch proto {
	case protoTCP:
		return d.tcp(payload, size, set)
	case protoUDP:
		return d.udp(payload, size, set)
	case protoICMPv4:
		if !v6 {
			return d.icmpv4(payload, size, set)
		}
	case protoICMPv6:
		if v6 {
			return d.icmpv6(payload, size, set)
		}
	case protoSCTP, protoDCCP, protoUDPLite: // ports stand in the same place
		ports(payload, set)
	}
	return nil
}

// ports reads the two ports that begin a transport's header.
func ports(payload []byte, set *record.Set) {
	if len(payload) >= 4 {
		set.SrcPort, set.DstPort = u16(payload), u16(payload[2:])
	}
}
