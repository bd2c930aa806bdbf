package decode

import "github.com/netcap-guard/netcap-guard/record"

// ipv4FlagNames spells the three flag bits.
var ipv4FlagNames = [8]string{"", "MF", "DF", "DF,MF", "RB", "RB,MF", "RB,DF", "RB,DF,MF"}

// fillIPv4 fills the record from the header with its options, as far as it was
// captured. Ports come from the set's header, so the transport goes first.
func (d *Decoder) fillIPv4(head, payload []byte, total int, set *record.Set) error {
	r, h := &set.IPv4, (*[ipv4Header]byte)(head)
	tos, frag, size := h[1], u16(h[6:]), int(h[0]&15)*4
	set.Have |= 1 << record.TypeIPv4
	r.Timestamp = set.Time
	r.Version, r.IHL = 4, int32(h[0]&15)
	r.TOS, r.DSCP, r.ECN = int32(tos), int32(tos>>2), int32(tos&3)
	r.Length = int32(u16(h[2:]))
	r.Id = int32(u16(h[4:]))
	r.Flags, r.FragOffset = int32(frag>>13), int32(frag&0x1fff)
	r.TTL, r.Protocol = int32(h[8]), int32(h[9])
	r.Checksum = int32(u16(h[10:]))
	r.PayloadSize = int32(total - size)
	r.SrcPort, r.DstPort = int32(set.SrcPort), int32(set.DstPort)
	r.IsFragment = frag&0x3fff != 0
	r.HasOptions = size > ipv4Header
	more := d.plan.ip4More
	if more == 0 {
		return nil
	}
	d.addresses(more, set, &r.SrcIP, &r.DstIP)
	if more&moreFlags != 0 {
		r.FlagsStr = ipv4FlagNames[frag>>13]
	}
	if more&moreName != 0 {
		r.ProtocolName = record.ProtocolName(r.Protocol)
	}
	if more&moreEntropy != 0 {
		r.PayloadEntropy = entropy(payload)
	}
	if more&moreOptions != 0 {
		return d.ipv4Options(head[ipv4Header:], r)
	}
	return nil
}

// Types of IPv4 options (RFC 791, 3.1).
const (
	optEnd         = 0
	optNop         = 1
	optRecordRoute = 7
	optLooseRoute  = 131
	optStrictRoute = 137
)

func (d *Decoder) ipv4Options(opts []byte, r *record.IPv4) error {
	d.ipOpts.reset()
	r.Padding = nil
	r.HasLooseSourceRoute, r.HasStrictSourceRoute, r.HasRecordRoute = false, false, false
	var err error
	for len(opts) > 0 {
		kind, length := opts[0], 1
		if kind != optEnd && kind != optNop {
			if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
				err = d.fail(errIPv4Option)
				break
			}
			length = int(opts[1])
		}
		o := d.ipOpts.add()
		o.OptionType, o.OptionLength = int32(kind), int32(length)
		if length > 2 {
			o.OptionData = opts[2:length]
		}
		opts = opts[length:]
		switch kind {
		case optLooseRoute:
			r.HasLooseSourceRoute = true
		case optStrictRoute:
			r.HasStrictSourceRoute = true
		case optRecordRoute:
			r.HasRecordRoute = true
		}
		if kind == optEnd {
			r.Padding = opts
			break
		}
	}
	r.Options = d.ipOpts.used()
	return err
}

func (d *Decoder) fillIPv6(head, payload []byte, size int, e *extensions, set *record.Set) {
	r, first := &set.IPv6, u32(head)
	set.Have |= 1 << record.TypeIPv6
	r.Timestamp = set.Time
	r.Version = 6
	class := first >> 20 & 0xff
	r.TrafficClass, r.DSCP, r.ECN = int32(class), int32(class>>2), int32(class&3)
	r.FlowLabel = first & 0xfffff
	r.Length = int32(u16(head[4:]))
	r.NextHeader, r.HopLimit = int32(head[6]), int32(head[7])
	r.PayloadSize = int32(size)
	r.SrcPort, r.DstPort = int32(set.SrcPort), int32(set.DstPort)
	r.HasExtensionHeaders, r.IsFragment = e.any, e.fragment
	more := d.plan.ip6More
	if more == 0 {
		return
	}
	d.addresses(more, set, &r.SrcIP, &r.DstIP)
	if more&moreName != 0 {
		r.NextHeaderName = record.ProtocolName(r.NextHeader)
	}
	if more&moreEntropy != 0 {
		r.PayloadEntropy = entropy(payload)
	}
	if more&moreOptions != 0 {
		r.HopByHop = d.hopByHop(e.hopByHop)
	}
}

// hopByHop takes a hop-by-hop options header apart (RFC 8200, 4.2); nil
// without one. An option that does not fit ends the list.
func (d *Decoder) hopByHop(head []byte) *record.IPv6HopByHop {
	if head == nil {
		return nil
	}
	d.hopOpts.reset()
	for opts := head[2:]; len(opts) > 0; {
		o := d.hopOpts.add()
		o.OptionType = int32(opts[0])
		if opts[0] == 0 { // Pad1 is a byte alone
			o.ActualLength = 1
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || 2+int(opts[1]) > len(opts) {
			d.hopOpts.drop()
			break
		}
		length := int(opts[1])
		o.OptionLength, o.ActualLength = int32(length), int32(length+2)
		o.OptionData = opts[2 : 2+length]
		opts = opts[2+length:]
	}
	d.hop.Options = d.hopOpts.used()
	return &d.hop
}

// addresses fills a record's address fields where they are asked for.
func (d *Decoder) addresses(more more, set *record.Set, src, dst *string) {
	if more&moreSrc != 0 {
		*src = d.addr(set.Src)
	}
	if more&moreDst != 0 {
		*dst = d.addr(set.Dst)
	}
}
