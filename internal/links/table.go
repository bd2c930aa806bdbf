package links

import "net/netip"

// udp is the protocol number of UDP.
const udp = 17

// Table says which copies are repetitions. It does not change once built, so
// any number of goroutines may ask. The zero Table calls nothing one.
type Table struct {
	devices map[int]*device
	tunnels map[underlay]struct{}
	outer   [256]bool // the protocols that tunnels have
}

// device is what is known of one interface that shows repetitions.
type device struct {
	in, out bool // all incoming, all outgoing copies
	tags    map[Tag]struct{}
}

// underlay is a tunnel's outer header, seen from this host. An address of this
// host that is not set stands for any.
type underlay struct {
	remote, local netip.Addr
	protocol      uint8
	port          uint16
}

// Build makes the table for what is captured of the links there are:
//
//   - members of a bridge, bond or team, where that is captured: what a bridge
//     passes from port to port alone is then not seen;
//   - frames whose VLAN tag belongs to a captured interface;
//   - MACVLAN and IPVLAN interfaces whose parent is captured, as the parent
//     shows what they do. It cannot be done the other way round: a capture on
//     any interface does not tell the addresses of a frame;
//   - incoming copies on an Open vSwitch's own interfaces, where all its ports
//     are captured;
//   - packets between the ends of a captured tunnel that has one peer, and that
//     in the clear. Where everybody may be the peer they count: they have
//     another source than what is in them, and a stranger's may hold nothing.
//
// Each is followed through any number of layers.
func Build(all []Link, captured Captured) *Table {
	b := builder{byIndex: make(map[int]*Link, len(all)), captured: captured, beneath: map[int][]*Link{}}
	for i := range all {
		l := &all[i]
		b.byIndex[l.Index] = l
		if l.Kind == kindVLAN && l.Parent != 0 && l.VLAN != (Tag{}) {
			b.beneath[l.Parent] = append(b.beneath[l.Parent], l)
		}
	}
	t := &Table{devices: map[int]*device{}, tunnels: map[underlay]struct{}{}}
	switched := b.portsCaptured(all)
	for i := range all {
		l := &all[i]
		again := b.above(l, 0) || b.below(l, 0)
		d := &device{in: again || switched && l.Kind == kindOVS, out: again, tags: b.tags(l)}
		if d.in || len(d.tags) > 0 {
			t.devices[l.Index] = d
		}
		if captured.has(l) {
			t.tunnel(&l.Tunnel)
		}
	}
	return t
}

// maxLayers bounds every walk; the kernel stacks no more than 8 devices
// (MAX_NEST_DEV), and a list read while it changed may hold a circle.
const maxLayers = 16

type builder struct {
	byIndex  map[int]*Link
	beneath  map[int][]*Link // VLAN interfaces by parent
	captured Captured
}

// master is the device that shows again what the link shows; nil for none. A
// master that is down shows nothing, and nor does what is above it.
func (b *builder) master(l *Link) *Link {
	if m := b.byIndex[l.Master]; m != nil && m.Up && m.passesUp() {
		return m
	}
	return nil
}

// above reports whether a master, or a master's master, is captured.
func (b *builder) above(l *Link, layer int) bool {
	m := b.master(l)
	return m != nil && layer < maxLayers && (b.captured.has(m) || b.above(m, layer+1))
}

// below reports whether all that the link shows is shown beneath it, untagged
// or tagged, and counted there.
func (b *builder) below(l *Link, layer int) bool {
	p := b.byIndex[l.Parent]
	if p == nil || layer >= maxLayers {
		return false
	}
	switch {
	case l.sharesParent():
		return b.captured.has(p) || b.below(p, layer+1) || p.Kind == kindVLAN && b.shows(p, layer+1)
	case l.Kind == kindVLAN:
		return b.below(p, layer+1)
	}
	return false
}

// shows reports whether what a VLAN interface would show is seen beneath it.
func (b *builder) shows(l *Link, layer int) bool {
	p := b.byIndex[l.Parent]
	if p == nil || layer >= maxLayers {
		return false
	}
	return b.captured.has(p) || p.Kind == kindVLAN && b.shows(p, layer+1)
}

// tags are the VLANs whose frames are shown again further up.
func (b *builder) tags(l *Link) map[Tag]struct{} {
	tags := map[Tag]struct{}{}
	for layer := 0; l != nil && layer < maxLayers; layer++ {
		for _, v := range b.beneath[l.Index] {
			if v.Up && !b.below(v, 0) && (b.captured.has(v) || b.above(v, 0)) {
				tags[v.VLAN] = struct{}{}
			}
		}
		l = b.master(l)
	}
	return tags
}

// portsCaptured reports whether there are ports of an Open vSwitch and all of
// them are captured. Its own interfaces carry no sign of which switch they
// belong to.
func (b *builder) portsCaptured(all []Link) bool {
	found := false
	for i := range all {
		m := b.byIndex[all[i].Master]
		if m == nil || m.Kind != kindOVS || !all[i].Up {
			continue
		}
		if found = true; !b.captured.has(&all[i]) {
			return false
		}
	}
	return found
}

func (t *Table) tunnel(of *Tunnel) {
	if !of.Remote.IsValid() || of.Remote.IsMulticast() || of.Remote.IsUnspecified() {
		return
	}
	u := underlay{remote: of.Remote, port: of.Port}
	if of.Local.IsValid() && !of.Local.IsUnspecified() {
		u.local = of.Local
	}
	for _, p := range of.Protocols {
		u.protocol = p
		t.tunnels[u] = struct{}{}
		t.outer[p] = true
	}
}

// Shows reports whether copies on the interface can be repetitions at all.
func (t *Table) Shows(iface int) bool { return len(t.devices) > 0 && t.devices[iface] != nil }

// Tunnels reports whether packets of tunnels can be repetitions at all.
func (t *Table) Tunnels() bool { return len(t.tunnels) > 0 }

// Repeats reports whether a copy on the interface is a repetition of one that
// another captured interface shows. The tag is the frame's outermost, the zero
// Tag where it has none.
func (t *Table) Repeats(iface int, outgoing bool, tag Tag) bool {
	d := t.devices[iface]
	if d == nil {
		return false
	}
	if outgoing && d.out || !outgoing && d.in {
		return true
	}
	_, again := d.tags[tag]
	return again
}

// Underlay reports whether a packet is the outer one of a captured tunnel's.
// The protocol is that of its IP header, the port its destination port, 0
// where there is none.
func (t *Table) Underlay(src, dst netip.Addr, protocol uint8, port uint16, outgoing bool) bool {
	if !t.outer[protocol] {
		return false
	}
	u := underlay{remote: src, local: dst, protocol: protocol}
	if outgoing {
		u.remote, u.local = dst, src
	}
	if protocol == udp {
		u.port = port
	}
	if _, is := t.tunnels[u]; is {
		return true
	}
	u.local = netip.Addr{}
	_, is := t.tunnels[u]
	return is
}
