package decode

import (
	"net/netip"

	"github.com/netcap-guard/netcap-guard/record"
)

// IP protocol numbers.
const (
	protoHopByHop = 0
	protoICMPv4   = 1
	protoIPv4     = 4
	protoTCP      = 6
	protoUDP      = 17
	protoDCCP     = 33
	protoIPv6     = 41
	protoRouting  = 43
	protoFragment = 44
	protoGRE      = 47
	protoAuth     = 51
	protoICMPv6   = 58
	protoNoNext   = 59
	protoDestOpts = 60
	protoEtherIP  = 97
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

// enter begins an IP header: the innermost so far, whose addresses count. It
// comes before they are set, because the first header's are kept.
func (d *Decoder) enter(set *record.Set) {
	if d.depth++; d.depth == 2 {
		d.outer = outermost(set)
	}
	set.SrcPort, set.DstPort = 0, 0
}

// ipv4 decodes an IPv4 packet (RFC 791) in data, of which there were wire
// bytes, link padding included.
func (d *Decoder) ipv4(data []byte, wire int, set *record.Set) error {
	if len(data) < ipv4Header {
		return d.fail(errIPv4Short)
	}
	h := (*[ipv4Header]byte)(data)
	if h[0]>>4 != 4 {
		return d.fail(errIPv4Version)
	}
	head, total := int(h[0]&15)*4, int(u16(h[2:]))
	if total == 0 {
		// Captured on the sending host before the card cut it into segments
		// (TSO): the length is what there is.
		total = wire
	}
	if head < ipv4Header || total < head {
		return d.fail(errIPv4Length)
	}
	if d.depth == maxNesting {
		return d.fail(errTunnelNesting)
	}
	if total > wire {
		d.short = true
	}
	d.enter(set)
	set.Src = netip.AddrFrom4([4]byte(h[12:16]))
	set.Dst = netip.AddrFrom4([4]byte(h[16:20]))
	set.Proto = h[9]
	depth := d.depth
	payload := data[min(head, len(data)):min(total, len(data))]

	var err error
	switch frag := u16(h[6:]); {
	case len(data) < head:
		err = d.fail(errIPv4Short)
	case frag&0x3fff != 0:
		err = d.fragment4(data, payload, total-head, set)
	case h[9] == protoTCP: // what most packets are, without the call
		err = d.tcp(payload, total-head, set)
	default:
		err = d.transport(h[9], payload, total-head, set, false)
	}
	if d.plan.ip4 && d.depth == depth {
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
	if d.depth == maxNesting {
		return d.fail(errTunnelNesting)
	}
	size := int(u16(data[4:]))
	if size == 0 && data[6] != protoNoNext {
		// A jumbogram, or captured before the card cut it into segments.
		size = max(wire-ipv6Header, 0)
	}
	if ipv6Header+size > wire {
		d.short = true
	}
	d.enter(set)
	set.Src = netip.AddrFrom16([16]byte(data[8:24]))
	set.Dst = netip.AddrFrom16([16]byte(data[24:40]))
	set.Proto = data[6]
	depth := d.depth
	payload := data[ipv6Header:min(ipv6Header+size, len(data))]

	var err error
	exts := extensions{next: data[6], transport: true}
	if isExtension(data[6]) {
		exts, err = d.extensions(data[6], payload, size)
		set.Proto = exts.next
	}
	switch {
	case err != nil:
	case exts.transport:
		err = d.transport(exts.next, payload[exts.size:], size-exts.size, set, true)
	case exts.fragment:
		err = d.fragment6(&exts, payload[exts.size:], size-exts.size, set)
	}
	if d.plan.ip6 && d.depth == depth {
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
	// Of a fragment header that says there are other fragments.
	offset int
	more   bool
	id     uint32
}

func isExtension(next uint8) bool {
	switch next {
	case protoHopByHop, protoRouting, protoFragment, protoAuth, protoDestOpts, protoMobility, protoHIP, protoShim6:
		return true
	}
	return false
}

// extensions walks the chain in payload, of which there were size bytes. It
// ends at the header of a fragment that is not alone.
func (d *Decoder) extensions(next uint8, payload []byte, size int) (extensions, error) {
	e := extensions{next: next, transport: true}
	for range maxExtensions {
		if !isExtension(e.next) {
			return e, nil
		}
		rest := payload[e.size:]
		length := extensionLength(e.next, rest)
		e.any = true
		if length == 0 || length > len(rest) || length > size-e.size {
			e.transport = false
			e.fragment = e.fragment || e.next == protoFragment
			return e, d.fail(errIPv6Ext)
		}
		this := e.next
		e.next = rest[0]
		e.size += length
		switch this {
		case protoHopByHop:
			if e.hopByHop == nil {
				e.hopByHop = rest[:length]
			}
		case protoFragment:
			e.fragment = true
			// The only fragment of its datagram (RFC 6946) is none.
			if word := u16(rest[2:]); word&0xfff9 != 0 {
				e.transport = false
				e.offset, e.more, e.id = int(word&0xfff8), word&1 != 0, u32(rest[4:])
				return e, nil
			}
		}
	}
	e.transport = false
	return e, d.fail(errIPv6Exts)
}

// extensionLength is the length of the extension header that begins rest, 0
// where it is cut.
func extensionLength(kind uint8, rest []byte) int {
	switch {
	case kind == protoFragment:
		return 8
	case len(rest) < 2:
		return 0
	case kind == protoAuth: // RFC 4302: in words, minus two
		return (int(rest[1]) + 2) * 4
	}
	return (int(rest[1]) + 1) * 8
}

// transport decodes what an IP header carries: payload is what was captured
// of it, size what the header says. Each version of IP has its own ICMP.
func (d *Decoder) transport(proto uint8, payload []byte, size int, set *record.Set, v6 bool) error {
	if proto == protoUDP {
		return d.udp(payload, size, set)
	}
	switch proto {
	case protoTCP:
		return d.tcp(payload, size, set)
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
	case protoAuth: // IPv6 has taken it off with its other extensions
		if length := extensionLength(protoAuth, payload); !v6 && length > 0 && length <= len(payload) && payload[0] != protoAuth {
			set.Proto = payload[0]
			return d.transport(payload[0], payload[length:], size-length, set, v6)
		}
	default:
		if d.decap {
			return d.tunnel(proto, payload, size, set)
		}
	}
	return nil
}

// ports reads the two ports that begin a transport's header.
func ports(payload []byte, set *record.Set) {
	if len(payload) >= 4 {
		set.SrcPort, set.DstPort = u16(payload), u16(payload[2:])
	}
}

// hasPorts reports whether a transport's header begins with two ports.
func hasPorts(proto uint8) bool {
	switch proto {
	case protoTCP, protoUDP, protoSCTP, protoDCCP, protoUDPLite:
		return true
	}
	return false
}
