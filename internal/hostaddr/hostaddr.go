// Package hostaddr says which addresses must never be blocked on this host:
// its own, its gateways and resolvers, the administrator's SSH peer, and the
// ones that name no single remote host (loopback, multicast, broadcast).
package hostaddr

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
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

	// ResolverFiles name the resolvers, in the format of resolv.conf. Nil =
	// /etc/resolv.conf and /run/systemd/resolve/resolv.conf, which is what
	// systemd-resolved really asks when the first holds nothing but its stub.
	ResolverFiles []string
	// Logger takes Follow's warnings; nil = silent.
	Logger *slog.Logger
}

// OwnOnly is the Config for a caller that wants to know which packets this
// host itself sent.
func OwnOnly() Config {
	return Config{NoSpecial: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true}
}

// Entry is one protected prefix, canonical, and why it is protected:
// "own address", "default gateway", "resolver", "SSH peer", "loopback" ...
type Entry struct {
	Prefix netip.Prefix
	Why    string
}

// ownAddress is the Why of this host's own addresses.
const ownAddress = "own address"

// Own picks this host's own addresses out of what Snapshot or Follow returned.
// Call it with entries of an OwnOnly Config: with the special prefixes among
// them, ::1 counts as loopback. The caller owns the map.
func Own(entries []Entry) map[netip.Addr]struct{} {
	own := make(map[netip.Addr]struct{}, len(entries))
	for _, e := range entries {
		if e.Why == ownAddress {
			own[e.Prefix.Addr()] = struct{}{}
		}
	}
	return own
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

// group is one kind of protected addresses.
type group struct {
	read func() ([]Entry, error)
	// file: read from a file, of whose changes the kernel says nothing.
	file bool
	// once: what the first reading found stays.
	once bool
}

func (cfg *Config) groups() []group {
	files := cfg.ResolverFiles
	if files == nil {
		files = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}
	}
	var out []group
	for _, g := range []struct {
		off bool
		group
	}{
		{cfg.NoSpecial, group{read: func() ([]Entry, error) { return Special(), nil }, once: true}},
		{cfg.NoOwn, group{read: own}},
		{cfg.NoGateways, group{read: gateways}},
		{cfg.NoResolvers, group{read: func() ([]Entry, error) { return resolvers(files) }, file: true}},
		// The session may end and its processes with it; whoever started this
		// one from there may come back from there.
		{cfg.NoSSHPeer, group{read: sshPeers, once: true}},
	} {
		if !g.off {
			out = append(out, g.group)
		}
	}
	return out
}

// Snapshot reads what is to be protected now, in the network namespace of the
// process. It returns what it could read, together with the joined errors of
// what it could not; a file that does not exist is no error. Entries are
// unique by prefix: the first reason wins. The caller owns the slice.
func Snapshot(cfg Config) ([]Entry, error) {
	var out []Entry
	var errs []error
	for _, g := range cfg.groups() {
		entries, err := g.read()
		errs = append(errs, err)
		out = append(out, entries...)
	}
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

// sorted puts the entries of one group in order, each prefix once, so that two
// readings of the same state are equal. What is both an own address and a
// broadcast is an own address.
func sorted(in []Entry) []Entry {
	slices.SortFunc(in, func(a, b Entry) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), strings.Compare(b.Why, a.Why))
	})
	return unique(in)
}

func host(a netip.Addr, why string) Entry {
	a = a.Unmap().WithZone("")
	return Entry{netip.PrefixFrom(a, a.BitLen()), why}
}

// broadcast is the last address of an IPv4 network that has one (RFC 3021:
// a /31 has none).
func broadcast(p netip.Prefix) (netip.Addr, bool) {
	if !p.IsValid() || !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}, false
	}
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b), true
}

// maxResolverFile bounds what is read of a resolver file; a longer one ends
// there.
const maxResolverFile = 64 << 10

func resolvers(files []string) ([]Entry, error) {
	var out []Entry
	var errs []error
	for _, name := range files {
		data, err := readBounded(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read resolvers: %w", err))
		}
		out = append(out, parseResolvConf(data)...)
	}
	return sorted(out), errors.Join(errs...)
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxResolverFile))
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
