package netns

import (
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// families are the addresses that a test is repeated for.
func families(w world) map[string]netip.Addr {
	return map[string]netip.Addr{"IPv4": w.victim.v4, "IPv6": w.victim.v6}
}

func TestScanIsBlocked(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "target: source, duration: 10m"))
		for name, to := range families(w) {
			attacker := w.attacker.addr(to)
			mustReach(t, "attacker before "+name, w.attacker, to)
			scan(t, w.attacker, to)
			g.action(t, attacker.String(), "created")
			mustNotReach(t, "attacker after "+name, w.attacker, to)
			mustReach(t, "bystander "+name, w.bystander, to)
			if !f.lists(t, w.victim.NS, attacker, "DROP", scanRule) {
				t.Errorf("no block of %s with end and comment in the kernel:\n%s", attacker, f.listing(t, w.victim.NS, attacker))
			}
		}
		alert := g.await(t, "alert", func(e event) bool { return e.Type == "alert" })
		if alert.Alert.Count != 50 || alert.Alert.Signature != scanRule {
			t.Errorf("alert %+v, want the 50th packet of %q", alert.Alert, scanRule)
		}
		stats := g.end(t).Stats
		for key, want := range map[string]uint64{"blocks_created": 2, "blocks_removed": 2, "blocks_expired": 0,
			"whitelist_skip": 0, "errors": 0, "active_blocks": 0} {
			if got, ok := stats.Firewall[key]; !ok || got != want {
				t.Errorf("statistics: %s = %d (there: %v), want %d", key, got, ok, want)
			}
		}
		mustReach(t, "attacker after the guard's end", w.attacker, w.victim.v4)
	})
}

// TestNeighbourDiscoveryPasses: a blocked IPv6 address can still be found on
// the link, or its neighbours would suffer with it.
func TestNeighbourDiscoveryPasses(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		verb(t, f, w.victim.NS, "block", w.attacker.v6.String(), "--for", "10m").mustBe(t, 0)
		for _, h := range []host{w.attacker, w.victim} {
			nstest.Run(t, h.NS, "ip", "-6", "neigh", "flush", "dev", "eth0")
		}
		mustNotReach(t, "attacker", w.attacker, w.victim.v6)
		got := nstest.Run(t, w.attacker.NS, "ip", "-6", "neigh", "show", w.victim.v6.String())
		if !strings.Contains(got, "lladdr") || strings.Contains(got, "FAILED") {
			t.Errorf("the attacker's neighbour table says %q of the victim, want its link address", got)
		}
	})
}

func TestRejectAnswers(t *testing.T) {
	for _, tc := range []struct{ name, config, reason string }{
		{"port-unreachable", "target: source, duration: 10m", "filtered .*port-unreach"},
		{"tcp-reset", "target: source, duration: 10m, reject_with: tcp-reset", "closed .*reset"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			each(t, func(t *testing.T, f flavour) {
				w := newWorld(t)
				unlimitedAnswers(t, w.victim)
				g := startGuard(t, f, w.victim.NS, rules(t, "iptables_reject", tc.config))
				for name, to := range families(w) {
					scan(t, w.attacker, to)
					g.action(t, w.attacker.addr(to).String(), "created")
					if !f.lists(t, w.victim.NS, w.attacker.addr(to), "REJECT", scanRule) {
						t.Errorf("no rejecting block in the kernel:\n%s", f.listing(t, w.victim.NS, to))
					}
					if got := probe(t, w.attacker, to); !regexp.MustCompile(tc.reason).MatchString(got) {
						t.Errorf("%s: nmap says %q of the open port, want %q", name, got, tc.reason)
					}
					err := connect(t.Context(), w.attacker, to, patience)
					if !isRefused(err) {
						t.Errorf("%s: a connection ends with %v, want it refused at once", name, err)
					}
					mustReach(t, "bystander "+name, w.bystander, to)
				}
				g.end(t)
			})
		})
	}
}

// unlimitedAnswers lifts the kernel's own limit of ICMP answers to one address
// (one a second, after six at once): a scan that is answered uses them up, and
// what is tested here is the guard's limit.
func unlimitedAnswers(t *testing.T, h host) {
	t.Helper()
	for _, key := range []string{"net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"} {
		if err := h.Sysctl(key, "0"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBlockEndsByItself(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 4s"))
		scan(t, w.attacker, w.victim.v4)
		ends := g.action(t, w.attacker.v4.String(), "created").Action.Expires
		if pings(t, w.attacker, w.victim.v4) && time.Now().Before(ends) {
			t.Error("the attacker's ping is answered before the block's end")
		}
		mustEnd(t, w, ends)
		g.await(t, "expire event", func(e event) bool { return e.Type == "expire" })
		if got := g.end(t).Stats.Firewall["blocks_expired"]; got != 1 {
			t.Errorf("blocks_expired = %d, want 1", got)
		}
	})
}

// mustEnd waits until the attacker is answered again and checks that this is
// not before the end; an answer that arrives at the end was asked for up to a
// second earlier.
func mustEnd(t *testing.T, w world, ends time.Time) {
	t.Helper()
	var asked time.Time
	eventually(t, "the block has ended", func() bool {
		asked = time.Now()
		return pings(t, w.attacker, w.victim.v4)
	})
	if early := time.Until(ends); early > 0 {
		t.Errorf("the attacker got through %s before the block's end (asked at %s)", early, asked)
	}
}

func TestWhitelistedIsNotBlocked(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"),
			"--whitelist", w.attacker.v4.String()+","+w.attacker.v6.String()+"/128")
		for _, to := range families(w) {
			scan(t, w.attacker, to)
			g.action(t, w.attacker.addr(to).String(), "whitelisted")
			mustReach(t, "whitelisted attacker", w.attacker, to)
		}
		if stats := g.end(t).Stats; stats.Firewall["whitelist_skip"] < 2 || stats.Firewall["blocks_created"] != 0 {
			t.Errorf("statistics %v, want both skipped and none created", stats.Firewall)
		}
	})
}

// TestForwardPath: a guard on a router protects the hosts behind it.
func TestForwardPath(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w, router := newRoutedWorld(t)
		g := startGuard(t, f, router.NS, rules(t, "iptables_block", "duration: 10m"))
		for name, to := range families(w) {
			mustReach(t, "attacker before "+name, w.attacker, to)
			scan(t, w.attacker, to)
			g.action(t, w.attacker.addr(to).String(), "created")
			mustNotReach(t, "attacker after "+name, w.attacker, to)
			mustReach(t, "bystander "+name, w.bystander, to)
		}
		g.end(t)
	})
}

func TestDryRunLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"), "--dry-run")
		f.mustBeClean(t, w.victim.NS)
		scan(t, w.attacker, w.victim.v4)
		if e := g.action(t, w.attacker.v4.String(), "created"); !e.Action.DryRun {
			t.Error("the action event does not say dry_run")
		}
		for _, args := range [][]string{{"block", "198.51.100.9"}, {"list"}, {"unblock", "198.51.100.9"}} {
			if r := verb(t, f, w.victim.NS, args...).mustBe(t, 0); !strings.Contains(r.stderr, "the running guard is a dry run") {
				t.Errorf("%v does not say that it asked a dry run: %q, %q", args, r.stdout, r.stderr)
			}
		}
		f.mustBeClean(t, w.victim.NS)
		mustReach(t, "attacker", w.attacker, w.victim.v4)
		g.end(t)
	})
}

// TestSignalsEndInOrder: SIGINT as SIGTERM (see guard.end), also while an
// attack is going on.
func TestSignalsEndInOrder(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
		scan(t, w.attacker, w.victim.v4)
		g.action(t, w.attacker.v4.String(), "created")
		if err := g.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := g.Wait(t.Context()); err != nil {
			t.Errorf("after SIGINT: %v", err)
		}
		f.mustBeClean(t, w.victim.NS)
		mustReach(t, "attacker", w.attacker, w.victim.v4)
	})
}
