package netns

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

// murder kills the guard without a chance to clean up.
func murder(t *testing.T, g *guard) {
	t.Helper()
	if err := g.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(t.Context()); err == nil {
		t.Fatal("the guard survived SIGKILL")
	}
}

// TestKilledGuardsBlocksEnd: what a killed guard left goes on, and ends on
// time without it: never early, at most a second late. What is permanent
// stays.
func TestKilledGuardsBlocksEnd(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 6s"))
		flows := map[string]*flow{}
		for name, to := range families(w) {
			flows[name] = startFlow(t, name, w.attacker, &w.victim, to)
			flows[name].mustPass(t, "before")
		}
		verb(t, f, w.victim.NS, "block", "192.0.2.20", "--for", "0").mustBe(t, 0)
		ends, blocked := map[string]time.Time{}, time.Now()
		for name, to := range families(w) {
			scan(t, w.attacker, to)
			ends[name] = g.action(t, w.attacker.addr(to).String(), "created").Action.Expires
			blocked = time.Now()
		}
		murder(t, g)
		if !f.lists(t, w.victim.NS, w.attacker.v4, "DROP", scanRule) {
			t.Errorf("the block is gone with the guard:\n%s", f.listing(t, w.victim.NS, w.attacker.v4))
		}
		for name, fl := range flows {
			eventually(t, name+" passes again", func() bool { _, _, n := fl.since(blocked); return n > 0 })
			first, _, _ := fl.since(blocked)
			if early := ends[name].Sub(first.received); early > 0 {
				t.Errorf("%s: a datagram came through %s before the block's end", name, early)
			}
			// One is sent every 5 ms, if the machine has time for it.
			if late := first.sent.Sub(ends[name]); late > time.Second+100*time.Millisecond {
				t.Errorf("%s: the first datagram that came through was sent %s after the block's end, want at most 1 s", name, late)
			}
		}
		mustReach(t, "attacker", w.attacker, w.victim.v4)
		mustNotReach(t, "who is blocked for good", w.bystander, w.victim.v4)
	})
}

// TestNextGuardAdopts: the next start knows the blocks of a killed guard with
// rule, reason, creation and end, replaces its socket, and leaves nothing of
// them when it ends.
func TestNextGuardAdopts(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		ns := w.victim.NS
		file := rules(t, "iptables_block", "duration: 10m")
		g := startGuard(t, f, ns, file)
		for _, to := range families(w) {
			scan(t, w.attacker, to)
			g.action(t, w.attacker.addr(to).String(), "created")
		}
		verb(t, f, ns, "block", "198.51.100.0/24", "--for", "0", "--action", "reject", "--reason", `says "so" – naïve`).mustBe(t, 0)
		verb(t, f, ns, "block", "2001:db8:9::/48", "--for", "1h", "--target", "destination").mustBe(t, 0)
		verb(t, f, ns, "block", "198.51.100.7", "--for", "1s").mustBe(t, 0)
		before := list(t, f, ns)
		murder(t, g)
		if r := verb(t, f, ns, "list").mustBe(t, 0); !strings.Contains(r.stdout, w.attacker.v6.String()) {
			t.Errorf("without a guard the list says %q", r.stdout)
		}
		eventually(t, "the short block has ended", func() bool { return len(list(t, f, ns)) == 4 })
		g = startGuard(t, f, ns, file)
		sameBlocks(t, before, list(t, f, ns))
		mustNotReach(t, "attacker", w.attacker, w.victim.v4)
		mustNotReach(t, "attacker", w.attacker, w.victim.v6)
		stats := g.end(t).Stats.Firewall
		if stats["blocks_created"] != 0 || stats["blocks_removed"] != 4 {
			t.Errorf("statistics %v, want none created and the 4 adopted removed", stats)
		}
		mustReach(t, "attacker", w.attacker, w.victim.v4)
	})
}

// sameBlocks compares a listing after adoption with the one before; the last
// block of the earlier one has ended.
func sameBlocks(t *testing.T, before, after []listedBlock) {
	t.Helper()
	if len(after) != len(before)-1 {
		t.Fatalf("adopted %+v, want all but the last of %+v", after, before)
	}
	for _, b := range before[:len(before)-1] {
		i := slices.IndexFunc(after, func(a listedBlock) bool { return a.Prefix == b.Prefix })
		if i < 0 {
			t.Errorf("%s was not adopted", b.Prefix)
			continue
		}
		a := after[i]
		if a.Origin != "adopted" || a.Target != b.Target || a.Action != b.Action || a.Rule != b.Rule || a.Reason != b.Reason {
			t.Errorf("adopted %+v, want %+v", a, b)
		}
		if off := moment(t, a.Created).Sub(moment(t, b.Created)); off.Abs() > 100*time.Millisecond {
			t.Errorf("%s: created %s after the truth", b.Prefix, off)
		}
		if (a.Expires == nil) != (b.Expires == nil) || (a.Remaining == nil) != (b.Remaining == nil) {
			t.Errorf("adopted %+v, want %+v", a, b)
			continue
		}
		// nft counts the rest of a life, iptables in full seconds.
		if a.Expires != nil && moment(t, *a.Expires).Sub(moment(t, *b.Expires)).Abs() > 1100*time.Millisecond {
			t.Errorf("%s: ends %s, want %s", b.Prefix, *a.Expires, *b.Expires)
		}
	}
}

func moment(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestKeepOnClose leaves the blocks in force for the next start, which adopts
// them.
func TestKeepOnClose(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		keeping := f
		keeping.config = "keep_on_close: true\n"
		file := rules(t, "iptables_block", "duration: 10m")
		g := startGuard(t, keeping, w.victim.NS, file)
		for _, to := range families(w) {
			scan(t, w.attacker, to)
			g.action(t, w.attacker.addr(to).String(), "created")
		}
		if err := g.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if g.warnings("2 blocks stay in the kernel") != 1 {
			t.Errorf("the end does not say that blocks stay: %+v", g.Lines())
		}
		mustNotReach(t, "attacker", w.attacker, w.victim.v4)
		mustNotReach(t, "attacker", w.attacker, w.victim.v6)
		if _, err := os.Stat(socket(w.victim.NS)); !os.IsNotExist(err) {
			t.Errorf("the socket is left: %v", err)
		}
		g = startGuard(t, f, w.victim.NS, file)
		if g.warnings("adopted 2 blocks") != 1 {
			t.Errorf("the start does not say what it adopted: %+v", g.Lines())
		}
		if got := list(t, f, w.victim.NS); len(got) != 2 || got[0].Origin != "adopted" || got[0].Rule != scanRule {
			t.Errorf("adopted %+v", got)
		}
		g.end(t)
		mustReach(t, "attacker", w.attacker, w.victim.v4)
	})
}

// pageCleanup is the specification page's way to remove what an unclean
// shutdown left, word for word but for sudo.
const pageCleanup = `iptables -F NETCAP
ip6tables -F NETCAP
iptables -D INPUT -j NETCAP
iptables -D FORWARD -j NETCAP
iptables -D OUTPUT -j NETCAP
iptables -X NETCAP`

// TestPagesManualCleanup types the page's commands, then those the page
// prints for IPv4 alone for IPv6 too.
func TestPagesManualCleanup(t *testing.T) {
	eachIPTables(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
		for _, to := range families(w) {
			scan(t, w.attacker, to)
			g.action(t, w.attacker.addr(to).String(), "created")
		}
		murder(t, g)
		typed := strings.Split(pageCleanup, "\n")
		for _, line := range typed {
			argv := strings.Fields(line)
			f.run(t, w.victim.NS, argv[0], argv[1:]...)
		}
		for _, line := range typed {
			if argv := strings.Fields(line); argv[0] == "iptables" && argv[1] != "-F" {
				f.run(t, w.victim.NS, "ip6tables", argv[1:]...)
			}
		}
		f.mustBeClean(t, w.victim.NS)
		mustReach(t, "attacker", w.attacker, w.victim.v4)
	})
}

// TestCleanupVerb: one command does the same, whatever was left.
func TestCleanupVerb(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
		scan(t, w.attacker, w.victim.v4)
		g.action(t, w.attacker.v4.String(), "created")
		murder(t, g)
		verb(t, f, w.victim.NS, "cleanup").mustBe(t, 0)
		f.mustBeClean(t, w.victim.NS)
		verb(t, f, w.victim.NS, "cleanup").mustBe(t, 0) // nothing there: no error
	})
}

// foreign is an administrator's own firewall, with names close to ours.
const foreignNFT = `table inet mine {
	set drop_src4_32 {
		type ipv4_addr
		flags timeout
		elements = { 198.51.100.7 }
	}
	chain input {
		type filter hook input priority filter; policy accept;
		ip saddr @drop_src4_32 drop comment "NETCUP: not ours"
		tcp dport 8080 accept
	}
}
table ip NETCUP {
	chain NETCUP {
		ip saddr 198.51.100.8 drop
	}
}
`

func foreignIPTables() [][]string {
	return [][]string{
		{"-N", "NETCUP"},
		{"-A", "NETCUP", "-m", "comment", "--comment", "not ours", "-j", "DROP"},
		{"-A", "INPUT", "-p", "tcp", "--dport", "2323", "-j", "NETCUP"},
		{"-A", "OUTPUT", "-p", "udp", "--dport", "9", "-j", "REJECT"},
		{"-t", "nat", "-A", "POSTROUTING", "-o", "eth7", "-j", "MASQUERADE"},
		{"-P", "FORWARD", "DROP"},
	}
}

// snapshot is every firewall rule of a namespace as the tools list it.
func (f flavour) snapshot(t *testing.T, ns *netlab.NS) string {
	t.Helper()
	// Handles would differ if a rule was removed and put back.
	out := f.run(t, ns, "nft", "-a", "list", "ruleset")
	if f.backend == "iptables" {
		out += f.run(t, ns, "iptables", "-S") + f.run(t, ns, "iptables", "-t", "nat", "-S") + f.run(t, ns, "ip6tables", "-S")
	}
	return out
}

// TestForeignRulesUntouched: an administrator's rules are byte for byte the
// same before the guard and after it.
func TestForeignRulesUntouched(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		f.run(t, w.victim.NS, "nft", "-f", write(t, "foreign.nft", foreignNFT))
		for _, rule := range foreignIPTables() {
			if f.backend == "iptables" {
				f.run(t, w.victim.NS, "iptables", rule...)
				f.run(t, w.victim.NS, "ip6tables", rule...)
			}
		}
		touchAll(t, f, w)
		before := f.snapshot(t, w.victim.NS)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
		for _, to := range families(w) {
			scan(t, w.attacker, to)
			g.action(t, w.attacker.addr(to).String(), "created")
		}
		mustReach(t, "bystander", w.bystander, w.victim.v4)
		g.end(t)
		if after := f.snapshot(t, w.victim.NS); after != before {
			t.Errorf("foreign rules before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// touchAll has the tool make the empty chains and tables that it makes on
// first use, so that they are no difference.
func touchAll(t *testing.T, f flavour, w world) {
	t.Helper()
	if f.backend != "iptables" {
		return
	}
	for _, a := range []netip.Addr{w.attacker.v4, w.attacker.v6} {
		tool := "iptables"
		if a.Is6() {
			tool = "ip6tables"
		}
		for _, chain := range []string{"INPUT", "FORWARD", "OUTPUT"} {
			f.run(t, w.victim.NS, tool, "-A", chain, "-s", a.String(), "-j", "RETURN")
			f.run(t, w.victim.NS, tool, "-D", chain, "-s", a.String(), "-j", "RETURN")
		}
	}
}
