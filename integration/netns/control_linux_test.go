package netns

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// decode reads one JSON object.
func decode[T any](t *testing.T, out string) T {
	t.Helper()
	all := decodeLines[T](t, out)
	if len(all) != 1 {
		t.Fatalf("%d lines, want one: %q", len(all), out)
	}
	return all[0]
}

// shown is `show -o json`.
type shown struct {
	IP          string        `json:"ip"`
	Blocked     bool          `json:"blocked"`
	Blocks      []listedBlock `json:"blocks"`
	Whitelisted bool          `json:"whitelisted"`
	Protected   *string       `json:"protected"`
	Alerts      []event       `json:"alerts"`
}

// TestVerbsOfARunningGuard: an administrator is never locked out of it. What
// the guard lists is what the kernel has.
func TestVerbsOfARunningGuard(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		ns := w.victim.NS
		g := startGuard(t, f, ns, rules(t, "iptables_block", "duration: 10m"))
		for name, to := range families(w) {
			a := w.attacker.addr(to)
			r := verb(t, f, ns, "block", a.String(), "--for", "10m", "--reason", "by hand", "-o", "json").mustBe(t, 0)
			b := decode[listedBlock](t, r.stdout)
			if b.Action != "DROP" || b.Target != "source" || b.Reason != "by hand" || b.Rule != "manual-block" || b.Origin != "manual" ||
				b.Remaining == nil || *b.Remaining > 600 || *b.Remaining < 500 || b.Expires == nil {
				t.Errorf("%s: block says %+v", name, b)
			}
			mustNotReach(t, "attacker "+name, w.attacker, to)
			mustReach(t, "bystander "+name, w.bystander, to)
			if !f.lists(t, ns, a, "DROP", "manual-block") {
				t.Errorf("the kernel does not list %s:\n%s", a, f.listing(t, ns, a))
			}
			if b := find(t, list(t, f, ns), a); b.Packets == nil || *b.Packets == 0 {
				t.Errorf("%s: the list counts no packets: %+v", name, b)
			}
		}
		verb(t, f, ns, "block", w.attacker.v4.String(), "--for", "0", "--target", "destination").mustBe(t, 0)
		if b := list(t, f, ns); len(b) != 3 || b[2].Target != "destination" || b[2].Remaining != nil || b[2].Expires != nil {
			t.Errorf("list %+v, want three, the last permanent", b)
		}
		r := verb(t, f, ns, "list").mustBe(t, 0)
		for _, want := range []string{"ADDRESS", w.attacker.v6.String(), "permanent", "by hand", "destination"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("the list for people lacks %q:\n%s", want, r.stdout)
			}
		}
		r = verb(t, f, ns, "unblock", w.attacker.v4.String()).mustBe(t, 0)
		if strings.Count(r.stdout, "unblocked "+w.attacker.v4.String()) != 2 {
			t.Errorf("unblock of both directions says %q", r.stdout)
		}
		mustReach(t, "unblocked attacker", w.attacker, w.victim.v4)
		mustNotReach(t, "attacker over the other family", w.attacker, w.victim.v6)
		verb(t, f, ns, "unblock", w.attacker.v4.String()).mustBe(t, 3)
		verb(t, f, ns, "show", w.attacker.v4.String()).mustBe(t, 3)
		flushIsNoDamage(t, w, g)
		for _, e := range g.said(t, "unblock") {
			if e.By != "manual" && e.By != "flush" {
				t.Errorf("unblock event %+v, want it by manual or flush", e)
			}
		}
		if stats := g.end(t).Stats.Firewall; stats["blocks_created"] != 5 || stats["blocks_removed"] != 5 || stats["errors"] != 0 {
			t.Errorf("statistics %v", stats)
		}
	})
}

// flushIsNoDamage: what the guard itself flushes it does not put back, neither
// at once (nft) nor at the next look (iptables, 10 s).
func flushIsNoDamage(t *testing.T, w world, g *guard) {
	t.Helper()
	for _, a := range []string{w.attacker.v4.String(), "198.51.100.9"} {
		verb(t, g.f, g.ns, "block", a, "--for", "10m").mustBe(t, 0)
	}
	if r := verb(t, g.f, g.ns, "flush").mustBe(t, 0); !strings.Contains(r.stderr, "3 blocks lifted") {
		t.Errorf("flush says %q, want 3 blocks lifted", r.stderr)
	}
	flow := startFlow(t, "the attacker's", w.attacker, &w.victim, w.victim.v4)
	flow.mustPass(t, "after flush")
	wait := time.NewTimer(g.f.limit())
	defer wait.Stop()
	<-wait.C
	flow.mustPass(t, "long after flush")
	if got := g.said(t, "resync"); len(got) > 0 {
		t.Errorf("flush was taken for damage: %+v", got)
	}
	if got := list(t, g.f, g.ns); len(got) > 0 {
		t.Errorf("after flush the list has %+v", got)
	}
}

// TestShowSaysWhy: rule, alert, evidence, remaining time, packets.
func TestShowSaysWhy(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
		for name, to := range families(w) {
			a := w.attacker.addr(to)
			scan(t, w.attacker, to)
			g.action(t, a.String(), "created")
			mustNotReach(t, "attacker "+name, w.attacker, to)
			s := decode[shown](t, verb(t, f, w.victim.NS, "show", a.String(), "-o", "json").mustBe(t, 0).stdout)
			if s.IP != a.String() || !s.Blocked || s.Whitelisted || s.Protected != nil || len(s.Blocks) != 1 || len(s.Alerts) == 0 {
				t.Fatalf("%s: show says %+v", name, s)
			}
			b := s.Blocks[0]
			if b.Rule != scanRule || b.Origin != "rule" || b.Packets == nil || *b.Packets == 0 || b.Remaining == nil || *b.Remaining > 600 {
				t.Errorf("%s: its block is %+v", name, b)
			}
			if al := s.Alerts[0]; al.Alert.Signature != scanRule || al.Alert.Count != 50 || al.SrcIP != a.String() || al.Alert.Fields["DstPort"] == nil {
				t.Errorf("%s: its alert is %+v", name, al)
			}
			people := verb(t, f, w.victim.NS, "show", a.String()).mustBe(t, 0).stdout
			for _, want := range []string{"blocked true", scanRule, "packets stopped", "ALERT", "50 in 10s"} {
				if !strings.Contains(people, want) {
					t.Errorf("%s: show lacks %q:\n%s", name, want, people)
				}
			}
			own := decode[shown](t, verb(t, f, w.victim.NS, "show", to.String(), "-o", "json").mustBe(t, 3).stdout)
			if own.Blocked || own.Protected == nil || *own.Protected != "own address" {
				t.Errorf("%s: show of the host itself says %+v", name, own)
			}
		}
		stats := decode[map[string]json.RawMessage](t, verb(t, f, w.victim.NS, "stats", "-o", "json").mustBe(t, 0).stdout)
		for _, key := range []string{"packets", "bytes", "decode_errors", "records", "rules", "firewall", "actions", "capture", "tracker"} {
			if len(stats[key]) == 0 || string(stats[key]) == "0" && key != "decode_errors" {
				t.Errorf("stats: %s is %s", key, stats[key])
			}
		}
		if got := verb(t, f, w.victim.NS, "stats").mustBe(t, 0).stdout; !strings.Contains(got, "active_blocks 2") {
			t.Errorf("stats for people: %q", got)
		}
		g.end(t)
	})
}

// TestWhitelistVerbs: an entry lifts a block at once and makes a hole in a
// larger one; without it the hole closes at once.
func TestWhitelistVerbs(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		ns := w.victim.NS
		g := startGuard(t, f, ns, rules(t, "iptables_block", "duration: 10m"))
		for name, to := range families(w) {
			a := w.attacker.addr(to).String()
			cidr := map[bool]string{true: "192.0.2.64/26", false: "2001:db8::40/122"}[to.Is4()]
			flow := startFlow(t, name, w.attacker, &w.victim, to)
			verb(t, f, ns, "block", a, "--for", "10m").mustBe(t, 0)
			flow.mustStop(t, "after the block")
			verb(t, f, ns, "whitelist", "add", a).mustBe(t, 0)
			flow.mustPass(t, "after whitelist add")
			if e := g.await(t, "unblock", func(e event) bool { return e.Type == "unblock" && e.Block.Prefix == mustPrefix(a) }); e.By != "whitelist" {
				t.Errorf("%s: unblock by %q, want whitelist", name, e.By)
			}
			if r := verb(t, f, ns, "block", a).mustBe(t, 1); !strings.Contains(r.stderr, "whitelisted") {
				t.Errorf("%s: block of a whitelisted address says %q", name, r.stderr)
			}
			verb(t, f, ns, "block", cidr, "--for", "10m").mustBe(t, 0)
			flow.mustPass(t, "through the hole")
			verb(t, f, ns, "whitelist", "remove", a).mustBe(t, 0)
			flow.mustStop(t, "after the hole was closed")
			verb(t, f, ns, "whitelist", "remove", a).mustBe(t, 3)
			if r := verb(t, f, ns, "unblock", a).mustBe(t, 3); !strings.Contains(r.stderr, cidr) {
				t.Errorf("%s: unblock of a host inside %s says %q", name, cidr, r.stderr)
			}
			mustReach(t, "bystander "+name, w.bystander, to)
			verb(t, f, ns, "whitelist", "add", cidr).mustBe(t, 0)
			flow.mustPass(t, "after the whole CIDR was whitelisted")
		}
		type entry struct {
			Prefix  string   `json:"prefix"`
			Origins []string `json:"origins"`
		}
		got := decodeLines[entry](t, verb(t, f, ns, "whitelist", "list", "-o", "json").mustBe(t, 0).stdout)
		if len(got) != 4 || !slices.ContainsFunc(got, func(e entry) bool { return e.Prefix == "192.0.2.64/26" && slices.Equal(e.Origins, []string{"manual"}) }) {
			t.Errorf("whitelist %+v, want the two defaults and two manual ones", got)
		}
		verb(t, f, ns, "whitelist", "add", "nonsense").mustBe(t, 2)
		if got := list(t, f, ns); len(got) > 0 {
			t.Errorf("list %+v, want none", got)
		}
		g.end(t)
	})
}

func mustPrefix(a string) string {
	addr := netip.MustParseAddr(a)
	return netip.PrefixFrom(addr, addr.BitLen()).String()
}

// TestReload: a good rule file is taken over and counters go on; of a broken
// one every mistake is told, and the running rules stay. SIGHUP does the same.
func TestReload(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWorld(t)
	ns := w.victim.NS
	file := rules(t, "iptables_block", "duration: 10m")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rewrite := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(t.TempDir(), "events.json")
	g := startGuard(t, f, ns, file, "--events", log, "-v")
	scan(t, w.attacker, w.victim.v4)
	g.action(t, w.attacker.v4.String(), "created")
	had := g.matches(t)
	rewrite(strings.ReplaceAll(string(good), "iptables_block", "iptables-block"))
	r := verb(t, f, ns, "reload").mustBe(t, 78)
	if !strings.Contains(r.stderr, file+":11:") || !strings.Contains(r.stderr, "iptables_block") {
		t.Errorf("reload of a broken file says %q", r.stderr)
	}
	scan(t, w.attacker, w.victim.v6)
	g.action(t, w.attacker.v6.String(), "created")
	if n := g.matches(t); n < had+50 {
		t.Errorf("%d matches after %d: the running rules did not stay", n, had)
	}
	had = g.matches(t)
	rewrite(string(good) + "  - name: another\n    type: UDP\n    expression: DstPort == 9\n")
	if r := verb(t, f, ns, "reload").mustBe(t, 0); !strings.Contains(r.stderr, "2 rules run") {
		t.Errorf("reload says %q", r.stderr)
	}
	if n := g.matches(t); n < had {
		t.Errorf("%d matches after %d: a reload lost the counters of an unchanged rule", n, had)
	}
	hangUp(t, g, rewrite, string(good), log)
	g.end(t)
}

// matches asks the running guard how often the port scan rule was true.
func (g *guard) matches(t *testing.T) uint64 {
	t.Helper()
	type body struct {
		Rules map[string]struct {
			Matches uint64 `json:"matches"`
		} `json:"rules"`
	}
	return decode[body](t, verb(t, g.f, g.ns, "stats", "-o", "json").mustBe(t, 0).stdout).Rules[scanRule].Matches
}

// hangUp: SIGHUP reopens the event file, even if it then refuses the rules.
func hangUp(t *testing.T, g *guard, rewrite func(string), good, log string) {
	t.Helper()
	rotate := func(n int) {
		if err := os.Rename(log, fmt.Sprintf("%s.%d", log, n)); err != nil {
			t.Fatal(err)
		}
		if err := g.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the event file is reopened", func() bool { _, err := os.Stat(log); return err == nil })
	}
	rewrite("rules: nonsense\n")
	rotate(1)
	eventually(t, "the refusal is told", func() bool { return g.warnings("the running rules stay") == 1 })
	rewrite(good)
	rotate(2)
	eventually(t, "the reload is told", func() bool { return g.warnings("rules reloaded") == 1 })
	verb(t, g.f, g.ns, "unblock", "--all").mustBe(t, 0)
	eventually(t, "events go to the new file", func() bool {
		data, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(data), `"by":"flush"`)
	})
}

// TestCleanupEndsTheGuard: cleanup takes everything out, daemon or not.
func TestCleanupEndsTheGuard(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
		verb(t, f, w.victim.NS, "block", w.attacker.v4.String()).mustBe(t, 0)
		mustNotReach(t, "attacker", w.attacker, w.victim.v4)
		verb(t, f, w.victim.NS, "cleanup").mustBe(t, 0)
		f.mustBeClean(t, w.victim.NS)
		if err := g.Wait(t.Context()); err != nil {
			t.Errorf("the guard did not end in order: %v", err)
		}
		mustReach(t, "attacker", w.attacker, w.victim.v4)
		if _, err := os.Stat(socket(w.victim.NS)); !os.IsNotExist(err) {
			t.Errorf("the socket is left: %v", err)
		}
		for _, args := range [][]string{{"stats"}, {"reload"}, {"whitelist", "add", "192.0.2.1"}} {
			if r := verb(t, f, w.victim.NS, args...).mustBe(t, 1); !strings.Contains(r.stderr, "no guard is running") {
				t.Errorf("%v without a guard says %q", args, r.stderr)
			}
		}
	})
}

// TestVerbsFindTheirGuard: another chain and another namespace have other
// guards, also where no socket is named.
func TestVerbsFindTheirGuard(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWorld(t)
	ns := w.victim.NS
	chain := fmt.Sprintf("NG%d", os.Getpid()) // its default socket is nobody else's
	file := rules(t, "iptables_block", "duration: 10m")
	first := startGuard(t, f, ns, file)
	second := startGuard(t, f, ns, file, "--chain", chain, "--control=")
	verb(t, f, ns, "block", "198.51.100.1").mustBe(t, 0)
	verb(t, f, ns, "block", "198.51.100.2", "--chain", chain, "--control=").mustBe(t, 0)
	for guard, want := range map[*guard]string{first: "inet NETCAP", second: "inet " + chain} {
		out := f.run(t, ns, "nft", "list", "table", "inet", strings.Fields(want)[1])
		if strings.Contains(out, "198.51.100.1 ") == (guard == second) || strings.Contains(out, "198.51.100.2 ") == (guard == first) {
			t.Errorf("table %s has\n%s", want, out)
		}
	}
	// A verb inside another namespace, on the same default socket: it works
	// on that namespace's kernel and not on the guard elsewhere.
	verb(t, f, w.bystander.NS, "block", w.attacker.v4.String(), "--chain", chain, "--control=").mustBe(t, 0)
	mustNotReach(t, "attacker", w.attacker, w.bystander.v4)
	mustReach(t, "attacker", w.attacker, w.victim.v4)
	if err := second.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	first.end(t)
	if out := f.run(t, ns, "nft", "list", "ruleset"); strings.Contains(out, chain) {
		t.Errorf("the second guard left\n%s", out)
	}
}
