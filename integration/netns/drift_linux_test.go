package netns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

// damage is what somebody else does to our objects, typed as an administrator
// or another program would.
type damage struct {
	name     string
	flavours string // where it can be done
	commands [][]string
}

func damages() []damage {
	both := func(args ...string) [][]string {
		return [][]string{append([]string{"iptables"}, args...), append([]string{"ip6tables"}, args...)}
	}
	const iptables = "iptables-nft iptables-legacy"
	return []damage{
		{"delete table", "nft", [][]string{{"nft", "delete", "table", "inet", "NETCAP"}}},
		{"flush table", "nft", [][]string{{"nft", "flush", "table", "inet", "NETCAP"}}},
		{"flush ruleset", "nft iptables-nft", [][]string{{"nft", "flush", "ruleset"}}},
		{"flush set", "nft", [][]string{
			{"nft", "flush", "set", "inet", "NETCAP", "drop_src4_32"}, {"nft", "flush", "set", "inet", "NETCAP", "drop_src6_128"},
		}},
		{"flush chain", iptables, both("-F", "NETCAP")},
		{"jump removed", iptables, both("-D", "FORWARD", "-j", "NETCAP")},
		{"accept before the jump", iptables, slices.Concat(both("-I", "INPUT", "1", "-j", "ACCEPT"), both("-I", "FORWARD", "1", "-j", "ACCEPT"))},
		{"all built-in chains flushed", iptables, both("-F")},
		{"chain removed", iptables, slices.Concat(both("-F"), both("-X"))},
	}
}

// limit is how long damage may last: nft says so at once, iptables must be
// asked, every 10 s.
func (f flavour) limit() time.Duration {
	if f.backend == "nft" {
		return time.Second
	}
	return 11 * time.Second
}

// TestDamageIsPutBack: the attacker never stops sending, to the guard's host
// and through it, over both families, while somebody breaks what stops him.
func TestDamageIsPutBack(t *testing.T) {
	t.Parallel()
	for _, d := range damages() {
		for name := range strings.FieldsSeq(d.flavours) {
			t.Run(d.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				putBack(t, newFlavour(t, name), d)
			})
		}
	}
}

func putBack(t *testing.T, f flavour, d damage) {
	w, router := newRoutedWorld(t)
	flows := []*flow{
		startFlow(t, "IPv4 to the router", w.attacker, &router, router.v4),
		startFlow(t, "IPv6 to the router", w.attacker, &router, router.v6),
		startFlow(t, "IPv4 through the router", w.attacker, &w.victim, w.victim.v4),
		startFlow(t, "IPv6 through the router", w.attacker, &w.victim, w.victim.v6),
	}
	g := startGuard(t, f, router.NS, rules(t, "iptables_block", "duration: 10m"))
	for _, fl := range flows {
		fl.mustPass(t, "before the block")
	}
	// Two blocks of each family: a set that loses its only element was
	// unblocked, one that loses all of several was flushed.
	for _, a := range []string{w.attacker.v4.String(), w.attacker.v6.String(), "198.51.100.9", "2001:db8:9::9"} {
		verb(t, f, router.NS, "block", a, "--for", "10m").mustBe(t, 0)
	}
	for _, fl := range flows {
		fl.mustStop(t, "after the block")
	}
	rounds := 1
	if f.backend == "nft" {
		rounds = 3
	}
	for n := range rounds {
		suffer(t, f, g, d, flows, n+1)
	}
	if n := g.warnings("netcap-guard flush"); n != 1 {
		t.Errorf("%d warnings name netcap-guard flush, want one", n)
	}
	if got := list(t, f, router.NS); len(got) != 4 {
		t.Errorf("the list has %+v, want the four blocks", got)
	}
	mustReach(t, "bystander", w.bystander, w.victim.v4)
	if strings.HasPrefix(d.name, "accept") && !strings.Contains(f.run(t, router.NS, "iptables", "-S", "INPUT"), "-A INPUT -j ACCEPT") {
		t.Error("the administrator's own rule is gone")
	}
	if stats := g.end(t).Stats.Firewall; stats["active_blocks"] != 0 || stats["blocks_created"] != 4 || stats["blocks_removed"] != 4 || stats["errors"] != 0 {
		t.Errorf("statistics %v, want 4 created, 4 removed by the end, no error", stats)
	}
}

// suffer does the damage and checks when it was put back: the n-th resync
// event tells, and the last datagram that came through.
func suffer(t *testing.T, f flavour, g *guard, d damage, flows []*flow, n int) {
	t.Helper()
	before := time.Now()
	for _, c := range d.commands {
		f.run(t, g.ns, c[0], c[1:]...)
	}
	done := time.Now()
	eventually(t, "resync event "+strconv.Itoa(n), func() bool { return len(g.said(t, "resync")) >= n })
	for _, fl := range flows {
		fl.more(t, 10)
		_, last, through := fl.since(before)
		t.Logf("%s: %d datagrams came through", fl.name, through)
		if open := last.sent.Sub(done); open > f.limit() {
			t.Errorf("%s: datagrams came through until %s after the damage, want at most %s", fl.name, open, f.limit())
		}
		fl.mustStop(t, "after it was put back")
	}
	for _, e := range g.said(t, "resync") {
		if e.Resync.Reason == "" || e.Resync.Restored != 4 {
			t.Errorf("resync %+v, want a reason and 4 blocks", e.Resync)
		}
	}
}

// TestSingleForeignRemovalIsAnUnblock: an administrator who takes one block
// out in the kernel means it.
func TestSingleForeignRemovalIsAnUnblock(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
		for _, a := range []string{"198.51.100.9", "2001:db8:9::9", w.attacker.v4.String(), w.attacker.v6.String()} {
			verb(t, f, w.victim.NS, "block", a, "--for", "10m").mustBe(t, 0)
		}
		mustNotReach(t, "attacker", w.attacker, w.victim.v4)
		for _, to := range families(w) {
			f.takeOut(t, w.victim.NS, w.attacker.addr(to))
		}
		for _, to := range families(w) {
			prefix := netip.PrefixFrom(w.attacker.addr(to), to.BitLen()).String()
			e := g.await(t, "unblock of "+prefix, func(e event) bool { return e.Type == "unblock" && e.Block.Prefix == prefix })
			if e.By != "foreign" {
				t.Errorf("unblock by %q, want foreign", e.By)
			}
			mustReach(t, "unblocked attacker", w.attacker, to)
		}
		if got := list(t, f, w.victim.NS); len(got) != 2 {
			t.Errorf("the list has %+v, want the two other blocks", got)
		}
		if got := g.said(t, "resync"); len(got) > 0 {
			t.Errorf("it was taken for damage: %+v", got)
		}
		if stats := g.end(t).Stats.Firewall; stats["blocks_created"] != 4 || stats["blocks_removed"] != 4 || stats["errors"] != 0 {
			t.Errorf("statistics %v", stats)
		}
	})
}

// takeOut removes the block of one source address with the kernel's own tool.
func (f flavour) takeOut(t *testing.T, ns *netlab.NS, a netip.Addr) {
	t.Helper()
	if f.backend == "nft" {
		set := "drop_src4_32"
		if a.Is6() {
			set = "drop_src6_128"
		}
		f.run(t, ns, "nft", "delete", "element", "inet", "NETCAP", set, "{ "+a.String()+" }")
		return
	}
	tool := "iptables"
	if a.Is6() {
		tool = "ip6tables"
	}
	number := 0
	for line := range strings.Lines(f.listing(t, ns, a)) {
		if !strings.HasPrefix(line, "-A ") {
			continue
		}
		number++
		if strings.Contains(line, "-s "+a.String()+"/") {
			f.run(t, ns, tool, "-D", "NETCAP", strconv.Itoa(number))
			return
		}
	}
	t.Fatalf("no rule of %s:\n%s", a, f.listing(t, ns, a))
}
