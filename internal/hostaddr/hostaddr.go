// Package hostaddr says which addresses must never be blocked on this host:
// its own, its gateways and resolvers, the administrator's SSH peer, and the
// ones that name no single remote host (loopback, multicast, broadcast).
package hostaddr

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Config switches groups of protected addresses off. The zero Config protects
// all of them.
type Config struct {
	NoSpecial   bool // loopback, unspecified, multicast, broadcast
	NoOwn       bool // every address of this host's interfaces
	NoGateways  bool // the next hops of default routes
	NoResolvers bool // nameservers of resolv.conf and of the stub behind it
	NoSSHPeer   bool // the peer of the SSH session this process descends from
}

// Entry is one protected prefix, canonical, and why it is protected:
// "own address", "default gateway", "resolver", "SSH peer", "loopback" ...
type Entry struct {
	Prefix netip.Prefix
	Why    string
}

// Special lists the prefixes that name no single remote host. The limited
// broadcast is here; the broadcast of each network is found by Snapshot.
func Special() []Entry {
	return []Entry{
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("::1/128"), "loopback"},
		{netip.MustParsePrefix("0.0.0.0/32"), "unspecified address"},
		{netip.MustParsePrefix("::/128"), "unspecified address"},
		{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
		{netip.MustParsePrefix("ff00::/8"), "multicast"},
		{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	}
}

// Snapshot reads what is to be protected now, in the network namespace of the
// process. It returns what it could read, together with the joined errors of
// what it could not; a file that does not exist is no error. Entries are
// unique by prefix: the first reason wins.
func Snapshot(cfg Config) ([]Entry, error) {
	var out []Entry
	var errs []error
	add := func(off bool, read func() ([]Entry, error)) {
		if off {
			return
		}
		entries, err := read()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		out = append(out, entries...)
	}
	add(cfg.NoSpecial, func() ([]Entry, error) { return Special(), nil })
	add(cfg.NoOwn, own)
	add(cfg.NoGateways, gateways)
	add(cfg.NoResolvers, resolvers)
	add(cfg.NoSSHPeer, sshPeers)
	return unique(out), errors.Join(errs...)
}

func unique(in []Entry) []Entry {
	seen := make(map[netip.Prefix]bool, len(in))
	return slices.DeleteFunc(in, func(e Entry) bool {
		dup := seen[e.Prefix] || !e.Prefix.IsValid()
		seen[e.Prefix] = true
		return dup
	})
}

func host(a netip.Addr, why string) Entry {
	a = a.Unmap().WithZone("")
	return Entry{netip.PrefixFrom(a, a.BitLen()), why}
}

// own lists the addresses of all interfaces and the directed broadcast of
// each IPv4 network.
func own() ([]Entry, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read interface addresses: %w", err)
	}
	var out []Entry
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue // a point-to-point peer without a prefix length
		}
		out = append(out, host(p.Addr(), "own address"))
		if b, ok := broadcast(p); ok {
			out = append(out, host(b, "broadcast"))
		}
	}
	return out, nil
}

// broadcast is the last address of an IPv4 network that has one (RFC 3021:
// a /31 has none).
func broadcast(p netip.Prefix) (netip.Addr, bool) {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}, false
	}
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b), true
}

// Files that name resolvers. The second is what systemd-resolved really asks
// when the first holds nothing but its stub, 127.0.0.53.
const (
	resolvConf     = "/etc/resolv.conf"
	resolvedUplink = "/run/systemd/resolve/resolv.conf"
)

func resolvers() ([]Entry, error) {
	var out []Entry
	var errs []error
	for _, name := range []string{resolvConf, resolvedUplink} {
		data, err := os.ReadFile(name)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("read resolvers: %w", err))
			}
			continue
		}
		out = append(out, parseResolvConf(data)...)
	}
	return out, errors.Join(errs...)
}

func parseResolvConf(data []byte) []Entry {
	var out []Entry
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, host(a, "resolver"))
		}
	}
	return out
}

// parseSSHConnection reads "client port server port", the value of
// SSH_CONNECTION.
func parseSSHConnection(v string) []Entry {
	f := strings.Fields(v)
	if len(f) == 0 {
		return nil
	}
	a, err := netip.ParseAddr(f[0])
	if err != nil {
		return nil
	}
	return []Entry{host(a, "SSH peer")}
}
