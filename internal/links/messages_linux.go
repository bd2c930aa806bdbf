package links

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What rtnetlink's messages look like: rtnetlink(7), linux/if_link.h,
// linux/if_tunnel.h. Numbers are in the host's byte order, those of VLAN
// protocols and of UDP ports in network order.

// errMalformed: a message is shorter than its own lengths say.
var errMalformed = errors.New("malformed rtnetlink message")

// tunnelLayout says where IFLA_INFO_DATA of a kind of tunnel has the addresses
// of its ends, the port and the encapsulation around its own, and how its
// packets look outside. 0 = there is none of it.
type tunnelLayout struct {
	locals, remotes, ports, wrapped uint16
	locals6, remotes6               uint16
	protocols                       []uint8
	port                            uint16 // where none is told
}

// Numbers of the protocols that carry packets.
const (
	protoIPv4 = 4
	protoIPv6 = 41
	protoGRE  = 47
	protoESP  = 50
)

func layoutOf(kind string) (tunnelLayout, bool) {
	switch kind {
	case "ipip": // IFLA_IPTUN_LOCAL, _REMOTE, _ENCAP_TYPE
		return tunnelLayout{locals: 2, remotes: 3, wrapped: 15, protocols: []uint8{protoIPv4}}, true
	case "sit", "ip6tnl":
		return tunnelLayout{locals: 2, remotes: 3, wrapped: 15, protocols: []uint8{protoIPv4, protoIPv6}}, true
	case "gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ip6erspan": // IFLA_GRE_LOCAL, _REMOTE, _ENCAP_TYPE
		return tunnelLayout{locals: 6, remotes: 7, wrapped: 14, protocols: []uint8{protoGRE}}, true
	case "vti", "vti6": // IFLA_VTI_LOCAL, _REMOTE
		return tunnelLayout{locals: 4, remotes: 5, protocols: []uint8{protoESP}}, true
	case "vxlan":
		return tunnelLayout{
			locals: unix.IFLA_VXLAN_LOCAL, remotes: unix.IFLA_VXLAN_GROUP, ports: unix.IFLA_VXLAN_PORT,
			locals6: unix.IFLA_VXLAN_LOCAL6, remotes6: unix.IFLA_VXLAN_GROUP6, protocols: []uint8{udp}, port: 8472,
		}, true
	case "geneve":
		return tunnelLayout{
			remotes: unix.IFLA_GENEVE_REMOTE, remotes6: unix.IFLA_GENEVE_REMOTE6, ports: unix.IFLA_GENEVE_PORT,
			protocols: []uint8{udp}, port: 6081,
		}, true
	}
	return tunnelLayout{}, false
}

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

// parse reads struct ifinfomsg (family, type, index, flags) and its
// attributes.
func parse(b []byte) (Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, errMalformed
	}
	l := Link{
		Index: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Up:    binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0,
	}
	var info, names []byte
	elsewhere := false
	err := attributes(b[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Names = append(l.Names, text(value))
		case unix.IFLA_PROP_LIST:
			names = value
		case unix.IFLA_MASTER:
			l.Master = number(value)
		case unix.IFLA_LINK:
			l.Parent = number(value)
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case unix.IFLA_LINKINFO:
			info = value
		}
	})
	others := attributes(names, func(kind uint16, value []byte) {
		if kind == unix.IFLA_ALT_IFNAME {
			l.Names = append(l.Names, text(value))
		}
	})
	err = errors.Join(err, others, l.parseInfo(info))
	if elsewhere { // the index and the addresses are those of another namespace
		l.Parent, l.Tunnel = 0, Tunnel{}
	}
	return l, err
}

// parseInfo reads IFLA_LINKINFO.
func (l *Link) parseInfo(b []byte) error {
	var data []byte
	if err := attributes(b, func(kind uint16, value []byte) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			l.Kind = text(value)
		case unix.IFLA_INFO_DATA:
			data = value
		}
	}); err != nil {
		return err
	}
	if l.Kind == kindVLAN {
		return l.parseVLAN(data)
	}
	if layout, ok := layoutOf(l.Kind); ok {
		return l.parseTunnel(data, layout)
	}
	return nil
}

func (l *Link) parseVLAN(b []byte) error {
	l.VLAN.Protocol = unix.ETH_P_8021Q // before Linux 3.10 there was no other
	return attributes(b, func(kind uint16, value []byte) {
		switch {
		case len(value) < 2:
		case kind == unix.IFLA_VLAN_ID:
			l.VLAN.ID = binary.NativeEndian.Uint16(value)
		case kind == unix.IFLA_VLAN_PROTOCOL:
			l.VLAN.Protocol = binary.BigEndian.Uint16(value)
		}
	})
}

// parseTunnel leaves out what is wrapped once more (FOU, GUE).
func (l *Link) parseTunnel(b []byte, layout tunnelLayout) error {
	t := Tunnel{Protocols: layout.protocols, Port: layout.port}
	wrapped := false
	err := attributes(b, func(kind uint16, value []byte) {
		a, _ := netip.AddrFromSlice(value)
		switch {
		case kind == 0:
		case a.IsUnspecified(): // any
		case kind == layout.locals || kind == layout.locals6:
			t.Local = a
		case kind == layout.remotes || kind == layout.remotes6:
			t.Remote = a
		case kind == layout.ports && len(value) == 2:
			t.Port = binary.BigEndian.Uint16(value)
		case kind == layout.wrapped && len(value) == 2:
			wrapped = binary.NativeEndian.Uint16(value) != 0
		}
	})
	if !wrapped {
		l.Tunnel = t
	}
	return err
}

func number(b []byte) int {
	if len(b) != 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(b)))
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
