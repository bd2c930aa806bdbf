package decode

import (
	"net/netip"

	"github.com/netcap-guard/netcap-guard/record"
)

const (
	icmpv6Header        = 4
	icmpv6Solicitation  = 135
	icmpv6Advertisement = 136
)

// neighbor decodes a neighbour solicitation or advertisement (RFC 4861, 4.3
// and 4.4): four bytes, of which the first holds an advertisement's flags
// (0x80 router, 0x40 solicited, 0x20 override), the address in question, and options.
func (d *Decoder) neighbor(payload []byte, size int, set *record.Set) error {
	const fixed, target = 24, 8
	if len(payload) < fixed || size < fixed {
		return d.fail(errNeighborShort)
	}
	address := netip.AddrFrom16([16]byte(payload[target:fixed]))
	opts, more := payload[fixed:], d.plan.solicitMore
	if payload[0] == icmpv6Advertisement {
		more = d.plan.advertMore
		r := &set.NeighborAdvertisement
		set.Have |= 1 << record.TypeICMPv6NeighborAdvertisement
		r.Timestamp = set.Time
		r.Flags = int32(payload[4])
		d.addresses(more, set, &r.SrcIP, &r.DstIP)
		return d.neighborMore(more, address, opts, &r.TargetAddress, &r.Options)
	}
	r := &set.NeighborSolicitation
	set.Have |= 1 << record.TypeICMPv6NeighborSolicitation
	r.Timestamp = set.Time
	d.addresses(more, set, &r.SrcIP, &r.DstIP)
	return d.neighborMore(more, address, opts, &r.TargetAddress, &r.Options)
}

func (d *Decoder) neighborMore(more more, address netip.Addr, opts []byte, target *string, list *[]*record.ICMPv6Option) error {
	if more&moreName != 0 {
		*target = d.addr(address)
	}
	if more&moreOptions == 0 {
		return nil
	}
	const unit = 8 // lengths count it, type and length included
	d.ndOpts.reset()
	var err error
	for len(opts) > 0 {
		if len(opts) < 2 || opts[1] == 0 || int(opts[1])*unit > len(opts) {
			err = d.fail(errNeighborOption)
			break
		}
		length := int(opts[1]) * unit
		o := d.ndOpts.add()
		o.Type, o.Data = int32(opts[0]), opts[2:length]
		opts = opts[length:]
	}
	*list = d.ndOpts.used()
	return err
}
