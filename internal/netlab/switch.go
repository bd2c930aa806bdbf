package netlab

import (
	"context"
	"net/netip"
)

// Switch is a namespace with a bridge that joins others into one network:
// every host on it has one interface, eth0, and sees every packet once.
type Switch struct {
	lab *Lab
	ns  *NS
}

// Switch makes a switch without ports.
func (l *Lab) Switch(ctx context.Context, short string) (*Switch, error) {
	ns, err := l.Namespace(ctx, short)
	if err != nil {
		return nil, err
	}
	if err := ns.IP(ctx, "link", "add", "br0", "type", "bridge"); err != nil {
		return nil, err
	}
	return &Switch{l, ns}, ns.IP(ctx, "link", "set", "br0", "up")
}

// Plug makes a host: a namespace whose eth0 has the addresses and is connected
// to the switch.
func (s *Switch) Plug(ctx context.Context, short string, addrs ...netip.Prefix) (*NS, error) {
	ns, err := s.lab.Namespace(ctx, short)
	if err != nil {
		return nil, err
	}
	return ns, s.Connect(ctx, ns, "eth0", addrs...)
}

// Connect connects a new interface of a namespace to the switch. The port is
// named after the namespace's short name and the interface, of which the first
// 14 bytes together must be unique on the switch.
func (s *Switch) Connect(ctx context.Context, ns *NS, iface string, addrs ...netip.Prefix) error {
	port := ns.short + "-" + iface
	port = port[:min(len(port), 15)] // IFNAMSIZ is 16 with the final zero
	if err := s.lab.Link(ctx, End{ns, iface, addrs}, End{NS: s.ns, Iface: port}); err != nil {
		return err
	}
	return s.ns.IP(ctx, "link", "set", port, "master", "br0")
}
