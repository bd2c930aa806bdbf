package netns

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

// TestVerbs blocks and unblocks by hand, without a running guard.
func TestVerbs(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		for name, to := range families(w) {
			attacker := w.attacker.addr(to).String()
			verb(t, f, w.victim.NS, "block", attacker, "--for", "10m", "--reason", "by hand").mustBe(t, 0)
			mustNotReach(t, "attacker "+name, w.attacker, to)
			mustReach(t, "bystander "+name, w.bystander, to)
		}
		blocks := list(t, f, w.victim.NS)
		for _, a := range []netip.Addr{w.attacker.v4, w.attacker.v6} {
			b := find(t, blocks, a)
			if b.Action != "DROP" || b.Target != "source" || b.Reason != "by hand" || b.Remaining == nil || *b.Remaining > 600 || *b.Remaining <= 0 {
				t.Errorf("list says %+v", b)
			}
		}
		verb(t, f, w.victim.NS, "unblock", w.attacker.v4.String()).mustBe(t, 0)
		mustReach(t, "unblocked attacker", w.attacker, w.victim.v4)
		mustNotReach(t, "attacker over the other family", w.attacker, w.victim.v6)
		verb(t, f, w.victim.NS, "flush").mustBe(t, 0)
		mustReach(t, "attacker after flush", w.attacker, w.victim.v6)
		if blocks := list(t, f, w.victim.NS); len(blocks) > 0 {
			t.Errorf("after flush the list has %+v", blocks)
		}
		verb(t, f, w.victim.NS, "cleanup").mustBe(t, 0)
		f.mustBeClean(t, w.victim.NS)
	})
}

// TestExitCodes: what scripts rely on.
func TestExitCodes(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		own := w.victim.v4.String()
		for _, tc := range []struct {
			name string
			args []string
			code int
			says string // on standard error
		}{
			{"block nonsense", []string{"block", "nonsense"}, 2, "nonsense"},
			{"unknown flag", []string{"list", "--nonsense"}, 2, "nonsense"},
			{"unblock of what is not blocked", []string{"unblock", "198.51.100.1"}, 3, "198.51.100.1"},
			{"own address", []string{"block", own}, 1, own},
			{"negative duration", []string{"block", "198.51.100.1", "--for", "-1m"}, 2, "-1m"},
			{"network", []string{"block", "198.51.100.0/24"}, 0, ""},
			{"host inside a blocked network", []string{"unblock", "198.51.100.1"}, 3, "198.51.100.0/24"},
			{"the network", []string{"unblock", "198.51.100.0/24"}, 0, ""},
			{"cleanup", []string{"cleanup"}, 0, ""},
		} {
			r := verb(t, f, w.victim.NS, tc.args...)
			if r.code != tc.code || !strings.Contains(r.stderr, tc.says) {
				t.Errorf("%s: exit code %d, want %d; stderr %q, want it to say %q", tc.name, r.code, tc.code, r.stderr, tc.says)
			}
		}
		f.mustBeClean(t, w.victim.NS)
	})
}

// TestSecondGuardIsRefused: two guards on one chain would undo each other.
func TestSecondGuardIsRefused(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		file := rules(t, "iptables_block", "duration: 10m")
		g := startGuard(t, f, w.victim.NS, file)
		r := verb(t, f, w.victim.NS, "-i", "eth0", "--rules", file)
		if r.code != 1 || !strings.Contains(r.stderr, "chain NETCAP is in use by process "+strconv.Itoa(g.PID())) {
			t.Errorf("exit code %d, stderr %q; want 1 and whose the chain is", r.code, r.stderr)
		}
		scan(t, w.attacker, w.victim.v4)
		g.action(t, w.attacker.v4.String(), "created")
		g.end(t)
	})
}
