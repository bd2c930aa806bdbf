// Package links knows how the network interfaces of a host are stacked, and so
// which of the copies of a packet that a capture sees are repetitions: the
// kernel shows a packet on a bridge's port and again on the bridge, on a card
// with its VLAN tag and again on the VLAN's own interface, wrapped on the card
// and unwrapped on the tunnel.
package links

import (
	"net/netip"
	"slices"
)

// Kinds of interfaces that mean something here, as the kernel calls them
// (IFLA_INFO_KIND). Interfaces of hardware have none.
const (
	kindBridge  = "bridge"
	kindBond    = "bond"
	kindTeam    = "team"
	kindVLAN    = "vlan"
	kindMACVLAN = "macvlan"
	kindMACVTAP = "macvtap"
	kindIPVLAN  = "ipvlan"
	kindIPVTAP  = "ipvtap"
	kindOVS     = "openvswitch"
)

// Link is one interface of the namespace. Indexes are 0 for none.
type Link struct {
	Index  int
	Names  []string // its name, then its alternative names
	Up     bool     // administratively: what is down shows nothing
	Kind   string
	Master int // the bridge or bond it belongs to
	Parent int // the interface beneath it, where that is in this namespace
	VLAN   Tag // of a VLAN interface
	Tunnel Tunnel
}

// Tag is a VLAN tag without its priority: the protocol (0x8100 or 0x88a8) and
// the number, 0 to 4095. The zero Tag is none.
type Tag struct{ Protocol, ID uint16 }

// Tunnel is how packets look on their way between the ends of a tunnel. The
// zero Tunnel is none.
type Tunnel struct {
	Remote netip.Addr // not valid: any peer
	Local  netip.Addr // not valid: any address of this host
	// Protocols are the IANA protocol numbers of the outer header; Port is the
	// destination port where that is UDP.
	Protocols []uint8
	Port      uint16
}

// passesUp reports whether what comes in on a member of the master is shown on
// the master again. A device without a kind that has members is a driver's own
// (Hyper-V's netvsc and its virtual function, net_failover): those do. An Open
// vSwitch and a VRF do not, as masters.
func (l *Link) passesUp() bool {
	switch l.Kind {
	case kindBridge, kindBond, kindTeam, "":
		return true
	}
	return false
}

// sharesParent: everything the interface shows is shown on its parent before,
// or as it leaves.
func (l *Link) sharesParent() bool {
	switch l.Kind {
	case kindMACVLAN, kindMACVTAP, kindIPVLAN, kindIPVTAP:
		return true
	}
	return false
}

// Captured is what a run captures: all interfaces, or those of these indexes.
type Captured struct {
	All     bool
	Indexes []int    // 0 for one that is not there
	Names   []string // of each, as it was asked for
}

// Follow does what a capture does: it stays with its interface when that gets
// another name, and when it is gone captures on the one that has its name.
func (c *Captured) Follow(all []Link) {
	for i, name := range c.Names {
		if !slices.ContainsFunc(all, func(l Link) bool { return l.Index == c.Indexes[i] }) {
			c.Indexes[i] = Index(all, name)
		}
	}
}

func (c *Captured) has(l *Link) bool {
	return l != nil && l.Up && (c.All || slices.Contains(c.Indexes, l.Index))
}

// Index finds an interface by any of its names; 0 = there is none.
func Index(all []Link, name string) int {
	for i := range all {
		if slices.Contains(all[i].Names, name) {
			return all[i].Index
		}
	}
	return 0
}
