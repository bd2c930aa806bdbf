package decode

import (
	"github.com/netcap-guard/netcap-guard/capture/fragment"
	"github.com/netcap-guard/netcap-guard/record"
)

// fragment4 takes a fragment of an IPv4 datagram: the header begins data,
// payload is what was captured of size bytes.
func (d *Decoder) fragment4(data, payload []byte, size int, set *record.Set) error {
	word := u16(data[6:])
	f := fragment.Fragment{
		Key:    fragment.Key{Src: set.Src, Dst: set.Dst, ID: uint32(u16(data[4:])), Proto: set.Proto},
		Offset: int(word&0x1fff) * 8, More: word&0x2000 != 0, Next: set.Proto, Data: payload, Time: set.Time,
	}
	return d.fragment(&f, size, set, false)
}

// fragment6 takes a fragment of an IPv6 datagram; payload begins behind the
// fragment header.
func (d *Decoder) fragment6(e *extensions, payload []byte, size int, set *record.Set) error {
	f := fragment.Fragment{
		Key:    fragment.Key{Src: set.Src, Dst: set.Dst, ID: e.id},
		Offset: e.offset, More: e.more, Next: e.next, Data: payload, Time: set.Time,
	}
	return d.fragment(&f, size, set, true)
}

// fragment adds one to its datagram, and decodes the datagram if it is the
// last one missing. The header that a first fragment shows is read for its
// ports alone.
func (d *Decoder) fragment(f *fragment.Fragment, size int, set *record.Set, v6 bool) error {
	if f.Offset == 0 && hasPorts(f.Next) {
		ports(f.Data, set)
	}
	// Of IPv6's fragments the first says what is inside; the others may say
	// anything (RFC 8200, 4.5).
	if !d.collects(f.Next, v6) && (!v6 || f.Offset == 0 || !d.plan.transports()) {
		return nil
	}
	if len(f.Data) < size {
		// Cut by the snap length: nothing can be put together. The first one
		// shows its header.
		if f.Offset == 0 {
			return d.transport(f.Next, f.Data, size, set, v6)
		}
		return nil
	}
	payload, next, err := d.collect(f)
	if err != nil {
		return d.fail(errFragment)
	}
	if payload == nil {
		return nil
	}
	size = len(payload)
	if v6 {
		exts, err := d.extensions(next, payload, size)
		if err != nil || !exts.transport {
			return err
		}
		next, payload = exts.next, payload[exts.size:]
		size -= exts.size
	}
	set.Proto = next
	return d.transport(next, payload, size, set, v6)
}

// collects reports whether anything of a datagram of the protocol is asked
// for. Behind the fragment header of IPv6 may come more extension headers.
func (d *Decoder) collects(proto uint8, v6 bool) bool {
	switch {
	case d.decap || v6 && isExtension(proto):
		return true
	case proto == protoTCP:
		return d.plan.tcp || d.plan.segment
	case proto == protoUDP:
		return d.plan.udp || d.plan.dns
	case proto == protoICMPv4:
		return d.plan.icmp4
	case proto == protoICMPv6:
		return d.plan.icmp6 || d.plan.solicit || d.plan.advert
	}
	return proto == protoAuth && !v6
}

func (d *Decoder) collect(f *fragment.Fragment) ([]byte, uint8, error) {
	if !d.again {
		d.collected = true
		return d.frags.Add(f)
	}
	payload, next := d.frags.Again(&f.Key)
	return payload, next, nil
}
