package iptables

import (
	"slices"
	"strconv"
	"strings"
)

// guardComment is on the rules that let neighbour discovery pass. It does not
// begin as a block's comment does.
const guardComment = "NETCAP neighbour discovery"

// guard is the rule that lets one ICMPv6 type pass. A hop limit of 255 proves
// that the packet comes from the link (RFC 4861): no router has forwarded it.
func guard(icmpType int) []string {
	return []string{
		"-p", "ipv6-icmp", "-m", "icmp6", "--icmpv6-type", strconv.Itoa(icmpType),
		"-m", "hl", "--hl-eq", "255", "-m", "comment", "--comment", guardComment, "-j", "RETURN",
	}
}

// isGuard reports whether a listed rule is the guard of this type, however the
// listing spells the protocol.
func isGuard(args []string, icmpType int) bool {
	if len(args) < 2 || !slices.Contains([]string{"ipv6-icmp", "icmpv6", "58"}, args[1]) {
		return false
	}
	want := guard(icmpType)
	return args[0] == want[0] && slices.Equal(args[2:], want[2:])
}

// neverRule is a rule that no packet can match.
func (f family) neverRule(match ...string) []string {
	return append([]string{"-s", f.never + f.host, "-d", f.never + f.host}, match...)
}

// listing is what is in the chain.
type listing struct {
	lines []line
	// guards are the neighbour discovery rules as listed; guarded reports
	// that all stand, in order and first.
	guards  [][]string
	guarded bool
	probes  [][]string // left by a process that was killed
	foreign int
}

// cutCounters takes the counters of `iptables -v -S` out of a rule: `-c
// PACKETS BYTES`, wherever the variant puts it. Without them it is 0.
func cutCounters(args []string) (rule []string, packets uint64) {
	for i := 0; i+2 < len(args); i++ {
		if args[i] == "--comment" {
			i++ // whatever it says
			continue
		}
		if args[i] != "-c" {
			continue
		}
		n, err := strconv.ParseUint(args[i+1], 10, 64)
		if err == nil {
			return slices.Delete(args, i, i+3), n
		}
	}
	return args, 0
}

// readListing sorts the lines of `iptables -S CHAIN`, with counters or without.
func readListing(f family, chain string, text []string) listing {
	var l listing
	place := 0
	for _, t := range text {
		rest, ok := strings.CutPrefix(t, "-A "+chain+" ")
		if !ok {
			continue // "-N NETCAP", or a warning about the other variant's tables
		}
		args, ok := splitArgs(rest)
		args, packets := cutCounters(args)
		at := slices.IndexFunc(f.guards, func(n int) bool { return isGuard(args, n) })
		switch {
		case !ok:
			l.foreign++
		case at >= 0:
			// In order and first: each stands where its number says.
			l.guarded = at == place && (at == 0 || l.guarded)
			l.guards = append(l.guards, args)
		case len(args) > 3 && slices.Equal(args[:4], f.neverRule()):
			l.probes = append(l.probes, exactRate(args))
		default:
			if r, ok := parseLine(args); ok && familyOf(r.rule.prefix.Addr()) == f.index {
				r.packets = packets
				l.lines = append(l.lines, r)
			} else {
				l.foreign++
			}
		}
		place++
	}
	l.guarded = len(l.guards) == len(f.guards) && (l.guarded || len(f.guards) == 0)
	return l
}
