package decode

import (
	"strconv"

	"github.com/netcap-guard/netcap-guard/record"
)

// ICMP messages end here: the packet that an error message quotes was sent by
// somebody else at another time, and is not traffic.

// icmpv4Names and icmpv6Names are the messages' names, IANA's without spaces.
var (
	icmpv4Names = [...]string{0: "EchoReply", 3: "DestinationUnreachable", 4: "SourceQuench", 5: "Redirect",
		8: "EchoRequest", 9: "RouterAdvertisement", 10: "RouterSolicitation", 11: "TimeExceeded",
		12: "ParameterProblem", 13: "TimestampRequest", 14: "TimestampReply", 15: "InfoRequest",
		16: "InfoReply", 17: "AddressMaskRequest", 18: "AddressMaskReply", 30: "Traceroute",
		42: "ExtendedEchoRequest", 43: "ExtendedEchoReply"}
	icmpv6Names = [...]string{1: "DestinationUnreachable", 2: "PacketTooBig", 3: "TimeExceeded",
		4: "ParameterProblem", 128: "EchoRequest", 129: "EchoReply", 130: "MulticastListenerQuery",
		131: "MulticastListenerReport", 132: "MulticastListenerDone", 133: "RouterSolicitation",
		134: "RouterAdvertisement", 135: "NeighborSolicitation", 136: "NeighborAdvertisement",
		137: "Redirect", 138: "RouterRenumbering", 143: "MulticastListenerReportV2"}
)

// typeName looks a message's type up; the number where it has no name.
func typeName(names []string, kind int32) string {
	if int(kind) < len(names) && names[kind] != "" {
		return names[kind]
	}
	return strconv.Itoa(int(kind))
}

// icmpv4 decodes an ICMP message (RFC 792).
func (d *Decoder) icmpv4(payload []byte, size int, set *record.Set) error {
	const header = 8
	if len(payload) < header || size < header {
		return d.fail(errICMPv4Short)
	}
	if !d.plan.icmp4 {
		return nil
	}
	r := &set.ICMPv4
	set.Have |= 1 << record.TypeICMPv4
	r.Timestamp = set.Time
	r.Type, r.Code = int32(payload[0]), int32(payload[1])
	r.TypeCode = int32(u16(payload))
	r.Checksum = int32(u16(payload[2:]))
	r.Id, r.Seq = int32(u16(payload[4:])), int32(u16(payload[6:]))
	r.PayloadSize = int32(size - header)
	r.IsEchoReply, r.IsDestUnreachable = r.Type == 0, r.Type == 3
	r.IsRedirect, r.IsEchoRequest = r.Type == 5, r.Type == 8
	r.IsTimeExceeded, r.IsTimestampRequest = r.Type == 11, r.Type == 13
	r.IsAddressMaskRequest = r.Type == 17
	more := d.plan.icmp4More
	if more == 0 {
		return nil
	}
	data := payload[header:]
	d.addresses(more, set, &r.SrcIP, &r.DstIP)
	if more&moreName != 0 {
		r.TypeName = typeName(icmpv4Names[:], r.Type)
	}
	if more&morePayload != 0 {
		r.Payload = data
	}
	if more&moreEntropy != 0 {
		r.PayloadEntropy = entropy(data)
	}
	return nil
}

// icmpv6 decodes an ICMPv6 message (RFC 4443), whose header is four bytes:
// type, code and checksum. What follows them, an echo's identifier too, is its
// body.
func (d *Decoder) icmpv6(payload []byte, size int, set *record.Set) error {
	if len(payload) < icmpv6Header || size < icmpv6Header {
		return d.fail(errICMPv6Short)
	}
	var err error
	if d.plan.solicit && payload[0] == icmpv6Solicitation || d.plan.advert && payload[0] == icmpv6Advertisement {
		err = d.neighbor(payload, size, set)
	}
	if d.plan.icmp6 {
		d.fillICMPv6(payload, size, set)
	}
	return err
}

func (d *Decoder) fillICMPv6(payload []byte, size int, set *record.Set) {
	r := &set.ICMPv6
	set.Have |= 1 << record.TypeICMPv6
	r.Timestamp = set.Time
	r.Type, r.Code = int32(payload[0]), int32(payload[1])
	r.TypeCode = int32(u16(payload))
	r.Checksum = int32(u16(payload[2:]))
	r.PayloadSize = int32(size - icmpv6Header)
	r.IsEchoRequest, r.IsEchoReply = r.Type == 128, r.Type == 129
	r.IsRouterSolicitation, r.IsRouterAdvertisement = r.Type == 133, r.Type == 134
	r.IsNeighborSolicitation, r.IsNeighborAdvertisement = r.Type == 135, r.Type == 136
	r.IsRedirect = r.Type == 137
	more := d.plan.icmp6More
	if more == 0 {
		return
	}
	data := payload[icmpv6Header:]
	d.addresses(more, set, &r.SrcIP, &r.DstIP)
	if more&moreName != 0 {
		r.TypeName = typeName(icmpv6Names[:], r.Type)
	}
	if more&morePayload != 0 {
		r.Payload = data
	}
	if more&moreEntropy != 0 {
		r.PayloadEntropy = entropy(data)
	}
}
