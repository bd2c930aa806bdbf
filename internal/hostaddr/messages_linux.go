package hostaddr

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What rtnetlink's messages look like: rtnetlink(7), linux/rtnetlink.h,
// linux/if_addr.h, linux/nexthop.h. Numbers are in the host's byte order.

// errMalformed: a message is shorter than its own lengths say.
var errMalformed = errors.New("malformed rtnetlink message")

// hop is a gateway, or where via is not valid the number of a next hop object.
type hop struct {
	via    netip.Addr
	object uint32
}

// nexthop is a next hop object: a gateway, or the numbers of its group.
type nexthop struct {
	id    uint32
	via   netip.Addr
	group []uint32
}

// What golang.org/x/sys lacks: the size of struct nhmsg, and RTA_NH_ID.
const (
	sizeofNhmsg  = 8
	rtaNexthopID = 30
)

// attributes calls each for the attributes of a message.
func attributes(b []byte, each func(kind uint16, value []byte)) error {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return errMalformed
	}
	for ad.Next() {
		each(ad.Type(), ad.Bytes())
	}
	if ad.Err() != nil {
		return errMalformed
	}
	return nil
}

// parseAddress reads struct ifaddrmsg: family, prefix length, flags, scope,
// index. Where a link has a peer IFA_ADDRESS is the peer's and IFA_LOCAL ours;
// the prefix length belongs to IFA_ADDRESS.
func parseAddress(b []byte) ([]Entry, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return nil, errMalformed
	}
	if b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return nil, nil
	}
	var address, local, bcast netip.Addr
	err := attributes(b[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
		a, _ := netip.AddrFromSlice(value)
		switch kind {
		case unix.IFA_ADDRESS:
			address = a
		case unix.IFA_LOCAL:
			local = a
		case unix.IFA_BROADCAST:
			bcast = a
		}
	})
	if !local.IsValid() {
		local = address
	}
	if !local.IsValid() {
		return nil, errors.Join(errMalformed, err)
	}
	out := []Entry{host(local, ownAddress)}
	if all, ok := broadcast(netip.PrefixFrom(address, int(b[1]))); ok {
		out = append(out, host(all, "broadcast"))
	}
	if bcast.IsValid() && !bcast.IsUnspecified() {
		out = append(out, host(bcast, "broadcast"))
	}
	return out, err
}

// parseDefaultRoute reads struct rtmsg: family, destination length, source
// length, TOS, table, protocol, scope, type, flags. A route that is no default
// route, or that is on link, has no hops.
func parseDefaultRoute(b []byte) ([]hop, error) {
	if len(b) < unix.SizeofRtMsg {
		return nil, errMalformed
	}
	family, length, kind := b[0], b[1], b[7]
	if family != unix.AF_INET && family != unix.AF_INET6 || length != 0 || kind != unix.RTN_UNICAST {
		return nil, nil
	}
	return parseHops(b[unix.SizeofRtMsg:], true)
}

// parseHops reads the attributes of a route, or of one of its paths, which
// have no paths of their own.
func parseHops(b []byte, whole bool) ([]hop, error) {
	var hops []hop
	var object uint32
	var errs []error
	via := func(value []byte) {
		if a, ok := netip.AddrFromSlice(value); !ok {
			errs = append(errs, errMalformed)
		} else if !a.IsUnspecified() {
			hops = append(hops, hop{via: a})
		}
	}
	err := attributes(b, func(kind uint16, value []byte) {
		switch kind {
		case unix.RTA_GATEWAY:
			via(value)
		case unix.RTA_VIA:
			// struct rtvia: family, address. An IPv4 route over an IPv6
			// gateway (RFC 5549).
			via(value[min(2, len(value)):])
		case rtaNexthopID:
			if len(value) == 4 {
				object = binary.NativeEndian.Uint32(value)
			}
		case unix.RTA_MULTIPATH:
			if whole {
				paths, err := parsePaths(value)
				hops, errs = append(hops, paths...), append(errs, err)
			}
		}
	})
	if len(hops) == 0 && object != 0 {
		hops = append(hops, hop{object: object})
	}
	return hops, errors.Join(append(errs, err)...)
}

// parsePaths reads the paths of a route, each a struct rtnexthop (length,
// flags, weight, interface) and attributes.
func parsePaths(b []byte) ([]hop, error) {
	var hops []hop
	for len(b) > 0 {
		if len(b) < unix.SizeofRtNexthop {
			return hops, errMalformed
		}
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtNexthop || length > len(b) {
			return hops, errMalformed
		}
		path, err := parseHops(b[unix.SizeofRtNexthop:length], false)
		hops = append(hops, path...)
		if err != nil {
			return hops, err
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return hops, nil
}

// parseNexthop reads struct nhmsg and its attributes. A group is a row of
// struct nexthop_grp, 8 bytes that begin with the number of a member.
func parseNexthop(b []byte) ([]nexthop, error) {
	if len(b) < sizeofNhmsg {
		return nil, errMalformed
	}
	var n nexthop
	err := attributes(b[sizeofNhmsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.NHA_ID:
			if len(value) == 4 {
				n.id = binary.NativeEndian.Uint32(value)
			}
		case unix.NHA_GATEWAY:
			n.via, _ = netip.AddrFromSlice(value)
		case unix.NHA_GROUP:
			for ; len(value) >= 8; value = value[8:] {
				n.group = append(n.group, binary.NativeEndian.Uint32(value))
			}
		}
	})
	return []nexthop{n}, err
}
