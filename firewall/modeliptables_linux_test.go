package firewall

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// iptablesWorld is one variant of iptables, and somebody with its programs.
type iptablesWorld struct {
	kernelWorld
	variant string
}

func (*iptablesWorld) comment() int { return 255 }

// room is for everything: a chain is never full.
func (*iptablesWorld) room(*rand.Rand, *reference) func(backend.Block) bool {
	return func(backend.Block) bool { return true }
}

func (*iptablesWorld) relax() {}

func (*iptablesWorld) logPrefixes() []string { return []string{"SSH: ", "SYN flood: ", ""} }

// settle does nothing: the look that the test asks for comes next.
func (*iptablesWorld) settle(*testing.T, *Manager, func() bool) {}

// programs are iptables and ip6tables.
func (w *iptablesWorld) programs() []string {
	return []string{"iptables-" + w.variant, "ip6tables-" + w.variant}
}

func program(w *iptablesWorld, k backend.Key) string {
	return w.programs()[familyOf(k.Prefix.Addr())]
}

// families are the blocks by family: what is in one chain.
func families(ref *reference) [][]backend.Key {
	out := make([][]backend.Key, 2)
	for _, k := range ref.keys() {
		f := familyOf(k.Prefix.Addr())
		out[f] = append(out[f], k)
	}
	return out
}

// damage is a command of iptables, or a few.
func (w *iptablesWorld) damage(_ *testing.T, rng *rand.Rand, ref *reference) damage {
	keys := ref.keys()
	if len(keys) > 0 {
		switch n := rng.IntN(10); {
		case n < 3:
			return w.take(ref, keys[rng.IntN(len(keys)):][:1])
		case n < 5:
			return w.take(ref, some(rng, keys))
		case n < 6:
			return w.add(rng, ref)
		case n < 7:
			if set := whole(rng, families(ref)); len(set) > 0 {
				return w.take(ref, set)
			}
		}
	}
	tool := w.programs()[rng.IntN(2)]
	v6 := tool[2] == '6'
	from := []string{"INPUT", "FORWARD", "OUTPUT"}[rng.IntN(3)]
	other := " -s 192.0.2.200 -j ACCEPT"
	if v6 {
		other = " -s 2001:db8:2::200 -j ACCEPT"
	}
	how := []string{
		"-D " + from + " -j NETCAP", "-I " + from + other, "-F", "-A " + from + " -j NETCAP", "-F NETCAP",
		"-D INPUT -j NETCAP\n-D FORWARD -j NETCAP\n-D OUTPUT -j NETCAP\n-F NETCAP\n-X NETCAP", "-F NETCAP",
	}
	if v6 {
		how = append(how, w.structural(rng, tool), "-A NETCAP -p ipv6-icmp -j ACCEPT\n"+w.structural(rng, tool)) // neighbour discovery
	}
	text := how[rng.IntN(len(how))]
	d := damage{name: tool + " " + text, do: func() { w.restore(tool, text) }, resyncs: 1}
	switch {
	case w.variant == "nft" && rng.IntN(8) == 0:
		d.name, d.do = "nft flush ruleset", func() { w.run("", "nft", "flush", "ruleset") }
	case text == "-F NETCAP" && !v6:
		d.lifted, d.resyncs = removed(families(ref), families(ref)[0], true, compareKey)
	}
	return d
}

// structural deletes a rule of our chain that is no block's. A rule that
// somebody else appended is none: it stays, and so nobody misses it.
func (w *iptablesWorld) structural(rng *rand.Rand, tool string) string {
	var at []int
	for i, r := range w.rules(w.t, tool) {
		if r.guard {
			at = append(at, i+1)
		}
	}
	return fmt.Sprintf("-D NETCAP %d", at[rng.IntN(len(at))])
}

// restore makes commands one transaction.
func (w *iptablesWorld) restore(tool, commands string) {
	w.t.Helper()
	w.run("*filter\n"+commands+"\nCOMMIT\n", tool+"-restore", "--noflush")
}

// take deletes all rules of blocks of one family.
func (w *iptablesWorld) take(ref *reference, keys []backend.Key) damage {
	tool := program(w, keys[0])
	keys = slices.DeleteFunc(keys, func(k backend.Key) bool { return program(w, k) != tool })
	d := damage{name: fmt.Sprint("-D every rule of ", keys)}
	d.lifted, d.resyncs = removed(families(ref), keys, true, compareKey)
	d.do = func() { w.restore(tool, w.deletions(tool, keys)) }
	return d
}

// deletions are the commands that take the rules of blocks out, the last rule
// first.
func (w *iptablesWorld) deletions(tool string, keys []backend.Key) string {
	var out []string
	for i, r := range slices.Backward(w.rules(w.t, tool)) {
		if r.ours && slices.Contains(keys, r.key()) {
			out = append(out, fmt.Sprintf("-D NETCAP %d", i+1))
		}
	}
	return strings.Join(out, "\n")
}

// add appends a rule that reads as one of ours, or gives a block another end.
func (w *iptablesWorld) add(rng *rand.Rand, ref *reference) damage {
	b := foreignBlock(rng, ref)
	around := func(p netip.Prefix) bool { return p.Overlaps(b.Prefix) }
	if slices.ContainsFunc(append(ref.whitelist(), ref.protected...), around) {
		// Somebody who knows no holes would make a rule without them.
		b.Key = backend.Key{Prefix: netip.MustParsePrefix("198.51.100.7/32")}
	}
	b.Action = backend.Drop
	old := ref.blocks[b.Key]
	if old != nil && !old.Permanent() && !b.Permanent() {
		b.ExpiresAt = old.ExpiresAt.Add(time.Hour)
	}
	tool := program(w, b.Key)
	d := damage{name: "-A " + b.String(), added: []backend.Block{b}}
	beside := old != nil && old.Action != b.Action && rng.IntN(2) == 0
	if beside && !b.Action.Stronger(old.Action) { // the first stays
		d = damage{name: "beside another: " + d.name}
	}
	d.do = func() {
		var commands string
		if old != nil && !beside {
			commands = w.deletions(tool, []backend.Key{b.Key}) + "\n"
		}
		side := map[backend.Target]string{backend.Source: "-s", backend.Destination: "-d"}[b.Target]
		commands += fmt.Sprintf("-A NETCAP %s %s", side, b.Prefix)
		if !b.Permanent() {
			commands += " -m time --datestop " + b.ExpiresAt.Add(-time.Second).UTC().Format("2006-01-02T15:04:05")
		}
		comment := backend.Comment{Rule: b.Rule, Reason: b.Reason, Created: b.CreatedAt}.Encode(w.comment())
		w.restore(tool, fmt.Sprintf("%s -m comment --comment %q -j DROP", commands, comment))
	}
	return d
}

// ipRule is a rule of our chain as iptables prints it.
type ipRule struct {
	ours    bool
	guard   bool // of neighbour discovery
	target  backend.Target
	prefix  netip.Prefix
	within  []netip.Addr // from, to; nil: all of the prefix
	holes   []netip.Addr // pairs
	partial bool         // a protocol or a rate decides as well
	log     bool
}

func (r ipRule) key() backend.Key {
	if !r.prefix.IsValid() {
		return backend.Key{Prefix: netip.PrefixFrom(r.within[0], 0).Masked(), Target: r.target, Log: r.log}
	}
	return backend.Key{Prefix: r.prefix, Target: r.target, Log: r.log}
}

func between(pairs []netip.Addr, a netip.Addr) bool {
	for i := 0; i < len(pairs); i += 2 {
		if !a.Less(pairs[i]) && !pairs[i+1].Less(a) {
			return true
		}
	}
	return false
}

func (r ipRule) stops(a netip.Addr) bool {
	return r.ours && !r.partial && !r.log && (!r.prefix.IsValid() || r.prefix.Contains(a)) &&
		(r.within == nil || between(r.within, a)) && !between(r.holes, a)
}

// rules reads our chain; it is not ours what is not (neighbour discovery).
func (w *iptablesWorld) rules(t *testing.T, tool string) []ipRule {
	t.Helper()
	var out []ipRule
	for l := range strings.Lines(w.run("", tool, "-S", "NETCAP")) {
		if rest, ok := strings.CutPrefix(l, "-A NETCAP "); ok {
			out = append(out, parseIPRule(t, rest))
		}
	}
	return out
}

// parseIPRule reads what decides of an address. A comment is one word in
// quotes and holds none.
func parseIPRule(t *testing.T, text string) ipRule {
	t.Helper()
	before, rest, _ := strings.Cut(text, `"`)
	_, after, _ := strings.Cut(rest, `"`)
	r := ipRule{ours: strings.HasPrefix(rest, "NETCAP: "), guard: strings.HasPrefix(rest, "NETCAP neighbour")}
	words := strings.Fields(before + after)
	for i, word := range words {
		not := i > 0 && words[i-1] == "!"
		switch word {
		case "-d", "--dst-range":
			r.target = backend.Destination
		case "-p", "--hashlimit-above":
			r.partial = true
		case "NFLOG":
			r.log = true
		}
		switch word {
		case "-s", "-d":
			r.prefix = netip.MustParsePrefix(words[i+1])
		case "--src-range", "--dst-range":
			from, to, _ := strings.Cut(words[i+1], "-")
			pair := []netip.Addr{netip.MustParseAddr(from), netip.MustParseAddr(to)}
			if not {
				r.holes = append(r.holes, pair...)
			} else {
				r.within = pair
			}
		}
	}
	return r
}

// filter reads the chains as iptables shows them, and what leads there.
func (w *iptablesWorld) filter(t *testing.T) func(backend.Target, netip.Addr) bool {
	var rules []ipRule
	for _, tool := range w.programs() {
		first := map[string]string{}
		for l := range strings.Lines(w.run("", tool, "-S")) {
			words := strings.Fields(l)
			if len(words) < 3 || words[0] != "-A" {
				continue
			}
			if words[1] == "NETCAP" {
				rules = append(rules, parseIPRule(t, strings.Join(words[2:], " ")))
			}
			if _, ok := first[words[1]]; !ok {
				first[words[1]] = strings.Join(words[2:], " ")
			}
		}
		for _, from := range []string{"INPUT", "FORWARD", "OUTPUT"} {
			if first[from] != "-j NETCAP" {
				t.Errorf("the first rule of %s (%s) is %q", from, tool, first[from])
			}
		}
	}
	return func(target backend.Target, a netip.Addr) bool {
		return slices.ContainsFunc(rules, func(r ipRule) bool {
			return r.ours && r.target == target && r.key().Prefix.Addr().BitLen() == a.BitLen() && r.stops(a)
		})
	}
}
