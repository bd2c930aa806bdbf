package demo

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

// backend is how the demo reads one kernel interface: always with the tool an
// administrator would use, never through the guard.
type backend struct {
	name, program, pkg string
	// list is the command that shows the blocks of an address's family.
	command func(netip.Addr) []string
	// listings show everything of ours that could be left.
	listings [][]string
	// end is the word before a block's end in the listing.
	end string
}

func backendNamed(name string) (backend, bool) {
	nft := []string{"nft", "list", "ruleset"}
	for _, b := range []backend{
		{"nft", "nft", "nftables", func(netip.Addr) []string { return nft }, [][]string{nft}, "expires"},
		{"iptables", "iptables", "iptables", func(a netip.Addr) []string {
			if a.Is6() {
				return []string{"ip6tables", "-S", "NETCAP"}
			}
			return []string{"iptables", "-S", "NETCAP"}
		}, [][]string{{"iptables", "-S"}, {"ip6tables", "-S"}}, "--datestop"},
	} {
		if b.name == name {
			return b, true
		}
	}
	return backend{}, false
}

// listed is what a command said about an address.
type listed struct {
	command string
	lines   []string
	end     string
}

// list runs the listing and keeps the lines that name the address.
func (b backend) list(ctx context.Context, ns *netlab.NS, a netip.Addr) (listed, error) {
	argv := b.command(a)
	out, err := ns.Exec(ctx, argv[0], argv[1:]...)
	if err != nil {
		return listed{}, err
	}
	l := listed{command: strings.Join(argv, " ") + " (what it says of " + a.String() + ")", end: b.end}
	for line := range strings.Lines(out) {
		if names(line, a) {
			l.lines = append(l.lines, strings.TrimSpace(line))
		}
	}
	return l, nil
}

// names reports whether the line holds the address as a word of its own.
func names(line string, a netip.Addr) bool {
	words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t,{}/", r) })
	for _, w := range words {
		if got, err := netip.ParseAddr(strings.TrimSpace(w)); err == nil && got == a {
			return true
		}
	}
	return false
}

// complete reports whether some line shows the block with end and comment.
func (l listed) complete(a *attack) bool {
	for _, line := range l.lines {
		if strings.Contains(line, l.end) && strings.Contains(line, "NETCAP: "+a.rule) {
			return true
		}
	}
	return false
}

// leftovers returns what the listings still show of ours, empty for nothing.
// A tool that is not installed can have been used by nobody.
func (b backend) leftovers(ctx context.Context, ns *netlab.NS) (string, error) {
	left := ""
	for _, argv := range b.listings {
		if _, err := exec.LookPath(argv[0]); errors.Is(err, exec.ErrNotFound) {
			continue
		}
		out, err := ns.Exec(ctx, argv[0], argv[1:]...)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, "NETCAP") {
				left += "\n  " + strings.TrimSpace(line)
			}
		}
	}
	return left, nil
}
