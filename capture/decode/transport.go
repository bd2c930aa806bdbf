package decode

import "github.com/netcap-guard/netcap-guard/record"

const (
	tcpHeader = 20
	// tcpFlagsEnd is as much of a TCP header as says something: all up to
	// its flags.
	tcpFlagsEnd = 14
	udpHeader   = 8
)

// tcp decodes a TCP segment (RFC 9293): payload is what was captured of it,
// size its bytes by the IP header.
func (d *Decoder) tcp(payload []byte, size int, set *record.Set) error {
	if len(payload) < tcpHeader {
		ports(payload, set)
		if size < tcpHeader || len(payload) < tcpFlagsEnd {
			return d.fail(errTCPShort)
		}
		// Cut by the snap length: what is missing reads as zero.
		n := copy(d.header[:], payload)
		clear(d.header[n:])
		return d.segment(&d.header, payload, size, set)
	}
	return d.segment((*[tcpHeader]byte)(payload), payload, size, set)
}

// segment decodes a segment whose header is head.
func (d *Decoder) segment(head *[tcpHeader]byte, payload []byte, size int, set *record.Set) error {
	set.SrcPort, set.DstPort = u16(head[0:]), u16(head[2:])
	offset := int(head[12]>>4) * 4
	if offset < tcpHeader || offset > size {
		return d.fail(errTCPOffset)
	}
	if d.plan.segment && !d.short {
		set.HasSegment = true
		set.Segment = record.Segment{Seq: u32(head[4:]), Ack: u32(head[8:]), Window: u16(head[14:]), Flags: head[13],
			Size: int32(size - offset), Payload: payload[min(offset, len(payload)):],
			Inner: d.depth > 1 || d.collected}
		if len(payload) == size {
			set.Segment.Whole = payload
		}
		if head[13]&record.FlagSYN != 0 {
			set.Segment.Scale = scaleOf(payload[min(tcpHeader, len(payload)):min(offset, len(payload))])
		}
	}
	if !d.plan.tcp {
		return nil
	}
	r, flags := &set.TCP, head[13]
	set.Have |= 1 << record.TypeTCP
	r.Timestamp = set.Time
	r.SrcPort, r.DstPort = int32(set.SrcPort), int32(set.DstPort)
	r.SeqNum, r.AckNum = u32(head[4:]), u32(head[8:])
	r.DataOffset = int32(head[12] >> 4)
	r.NS = head[12]&1 != 0
	r.FIN, r.SYN, r.RST, r.PSH = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags&8 != 0
	r.ACK, r.URG, r.ECE, r.CWR = flags&16 != 0, flags&32 != 0, flags&64 != 0, flags&128 != 0
	r.Window, r.Checksum, r.Urgent = int32(u16(head[14:])), int32(u16(head[16:])), int32(u16(head[18:]))
	r.PayloadSize = int32(size - offset)
	r.IsRSTWithData = r.RST && size > offset
	r.IsSYNWithData = r.SYN && size > offset
	if d.plan.tcpMore == 0 {
		return nil
	}
	data := payload[min(offset, len(payload)):]
	opts := payload[min(tcpHeader, len(payload)):min(offset, len(payload))]
	return d.fillTCP(opts, data, set)
}

// fillTCP fills what costs more than a load.
func (d *Decoder) fillTCP(opts, data []byte, set *record.Set) error {
	r, more := &set.TCP, d.plan.tcpMore
	d.addresses(more, set, &r.SrcIP, &r.DstIP)
	if more&morePayload != 0 {
		r.Payload = data
	}
	if more&moreEntropy != 0 {
		r.PayloadEntropy = entropy(data)
	}
	if more&moreFlags != 0 {
		r.FlagsStr = d.flags.of(r)
	}
	if more&moreCommunity != 0 {
		r.CommunityID = set.CommunityID()
	}
	switch {
	case more&(moreOptions|morePrint) != 0:
		return d.tcpOptions(opts, r)
	case more&moreValues != 0:
		return d.tcpValues(opts, r)
	}
	return nil
}

// Kinds of TCP options (IANA).
const (
	tcpEnd        = 0
	tcpNop        = 1
	tcpMSS        = 2
	tcpScale      = 3
	tcpSACKOK     = 4
	tcpSACK       = 5
	tcpTimestamps = 8
)

// tcpOptions reads the options, as far as they were captured.
func (d *Decoder) tcpOptions(opts []byte, r *record.TCP) error {
	d.tcpOpts.reset()
	all := opts
	r.Padding, r.MSS, r.WindowScale, r.HasSACK, r.TSval, r.TSecr = nil, 0, 0, false, 0, 0
	var err error
	for len(opts) > 0 {
		kind, length := opts[0], 1
		if kind != tcpEnd && kind != tcpNop {
			if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
				err = d.fail(errTCPOption)
				all = all[:len(all)-len(opts)]
				break
			}
			length = int(opts[1])
		}
		o := d.tcpOpts.add()
		o.OptionType, o.OptionLength = int32(kind), int32(length)
		if length > 2 {
			o.OptionData = opts[2:length]
			readTCPOption(kind, o.OptionData, r)
		}
		r.HasSACK = r.HasSACK || kind == tcpSACKOK || kind == tcpSACK
		opts = opts[length:]
		if kind == tcpEnd {
			r.Padding = opts
			break
		}
	}
	r.Options = d.tcpOpts.used()
	if d.plan.tcpMore&morePrint != 0 {
		d.fingerprint(all, r)
	}
	return err
}

// readTCPOption takes the values out of the options that have a field.
func readTCPOption(kind byte, data []byte, r *record.TCP) {
	switch {
	case kind == tcpMSS && len(data) == 2:
		r.MSS = int32(u16(data))
	case kind == tcpScale && len(data) == 1:
		r.WindowScale = int32(data[0])
	case kind == tcpTimestamps && len(data) == 8:
		r.TSval, r.TSecr = u32(data), u32(data[4:])
	}
}

// scaleOf is the window scale option plus one, 0 without one. More than 14 is
// read as 14 (RFC 7323, 2.3).
func scaleOf(opts []byte) uint8 {
	for len(opts) > 0 && opts[0] != tcpEnd {
		length := 1
		if opts[0] != tcpNop {
			if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
				return 0
			}
			if length = int(opts[1]); opts[0] == tcpScale && length == 3 {
				return min(opts[2], 14) + 1
			}
		}
		opts = opts[length:]
	}
	return 0
}

// tcpValues is tcpOptions where nobody asks for the options themselves.
func (d *Decoder) tcpValues(opts []byte, r *record.TCP) error {
	r.MSS, r.WindowScale, r.HasSACK, r.TSval, r.TSecr = 0, 0, false, 0, 0
	if len(opts) == 12 && u32(opts) == 0x0101080a { // as every segment after the handshake has them
		r.TSval, r.TSecr = u32(opts[4:]), u32(opts[8:])
		return nil
	}
	for len(opts) > 0 {
		kind := opts[0]
		switch kind {
		case tcpEnd:
			return nil
		case tcpNop:
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
			return d.fail(errTCPOption)
		}
		readTCPOption(kind, opts[2:opts[1]], r)
		r.HasSACK = r.HasSACK || kind == tcpSACKOK || kind == tcpSACK
		opts = opts[opts[1]:]
	}
	return nil
}

// udp decodes a UDP datagram (RFC 768).
func (d *Decoder) udp(payload []byte, size int, set *record.Set) error {
	if len(payload) < udpHeader || size < udpHeader {
		ports(payload, set)
		return d.fail(errUDPShort)
	}
	head := (*[udpHeader]byte)(payload)
	set.SrcPort, set.DstPort = u16(head[0:]), u16(head[2:])
	length := int(u16(head[4:]))
	switch {
	case length == 0: // captured before the card cut it into datagrams, or a jumbogram
		length = size
	case length < udpHeader:
		return d.fail(errUDPLength)
	case length > size: // the first fragment of a longer one
		length = size
	}
	data := payload[udpHeader:min(length, len(payload))]
	if d.decap && length > udpHeader {
		depth := d.depth
		if err := d.udpTunnel(data, length-udpHeader, set); d.depth != depth {
			return err
		}
	}
	if d.plan.udp {
		d.fillUDP(head, data, length, set)
	}
	if d.plan.dns && length > udpHeader && (set.SrcPort == dnsPort || set.DstPort == dnsPort) {
		return d.dnsMessage(data, length-udpHeader, set)
	}
	return nil
}

// fillUDP fills the record: length is that of header and data together, as far
// as it can be believed.
func (d *Decoder) fillUDP(head *[udpHeader]byte, data []byte, length int, set *record.Set) {
	r := &set.UDP
	set.Have |= 1 << record.TypeUDP
	r.Timestamp = set.Time
	r.SrcPort, r.DstPort = int32(set.SrcPort), int32(set.DstPort)
	r.Length, r.Checksum = int32(u16(head[4:])), int32(u16(head[6:]))
	r.PayloadSize = int32(length - udpHeader)
	more := d.plan.udpMore
	if more == 0 {
		return
	}
	d.addresses(more, set, &r.SrcIP, &r.DstIP)
	if more&morePayload != 0 {
		r.Payload = data
	}
	if more&moreEntropy != 0 {
		r.PayloadEntropy = entropy(data)
	}
}
