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
// PACKETS BYTES`, wherever the variant puts it. Without them they are 0.
func cutCounters(args []string) (rule []string, n tally) {
	for i := 0; i+2 < len(args); i++ {
		if args[i] == "--comment" || args[i] == "--nflog-prefix" {
			i++ // whatever it says
			continue
		}
		if args[i] != "-c" {
			continue
		}
		packets, err := strconv.ParseUint(args[i+1], 10, 64)
		if err != nil {
			continue
		}
		bytes, err := strconv.ParseUint(args[i+2], 10, 64)
		if err == nil {
			return slices.Delete(args, i, i+3), tally{packets, bytes}
		}
	}
	return args, tally{}
}

// inlineCounters puts the counters where iptables 1.8.9 has them. Earlier
// programs of the nft variant print "[PACKETS:BYTES] -A NETCAP ...".
func inlineCounters(text string) string {
	if !strings.HasPrefix(text, "[") {
		return text
	}
	counters, rule, ok := strings.Cut(text[1:], "] ")
	packets, bytes, ok2 := strings.Cut(counters, ":")
	if !ok || !ok2 {
		return text
	}
	return rule + " -c " + packets + " " + bytes
}

// readListing sorts the lines of `iptables -S CHAIN`, with counters or without.
func readListing(f family, chain string, text []string) listing {
	var l listing
	place := 0
	for _, t := range text {
		rest, ok := strings.CutPrefix(inlineCounters(t), "-A "+chain+" ")
		if !ok {
			continue // "-N NETCAP", or a warning about the other variant's tables
		}
		args, ok := splitArgs(rest)
		args, n := cutCounters(args)
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
			r, ok := parseLine(args)
			if !ok || familyOf(r.rule.prefix.Addr()) != f.index {
				l.foreign++
				break
			}
			r.tally = n
			l.lines = append(l.lines, r)
			if r.rule.role == roleLog {
				continue // it lets every packet go on: what stands behind it is still first
			}
		}
		place++
	}
	l.guarded = len(l.guards) == len(f.guards) && (l.guarded || len(f.guards) == 0)
	return l
}
