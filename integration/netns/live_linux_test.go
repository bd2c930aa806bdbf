package netns

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// TestNetnsFlag: a guard started outside works inside the namespace that it is
// told, and nowhere else.
func TestNetnsFlag(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		events := filepath.Join(t.TempDir(), "events.json")
		cmd := exec.CommandContext(t.Context(), guardBinary(), "--netns", w.victim.Name, "-i", "eth0",
			"--rules", rules(t, "iptables_block", "duration: 10m"), "--events", events)
		cmd.Env = append(os.Environ(), "PATH="+f.path())
		g := launch(t, f, w.victim.NS, cmd)
		scan(t, w.attacker, w.victim.v4)
		g.action(t, w.attacker.v4.String(), "created")
		mustNotReach(t, "attacker", w.attacker, w.victim.v4)
		mustReach(t, "bystander", w.bystander, w.victim.v4)
		if !f.lists(t, w.victim.NS, w.attacker.v4, "DROP", scanRule) {
			t.Error("the namespace's kernel does not list the block")
		}
		out, err := exec.CommandContext(t.Context(), "nft", "list", "ruleset").Output()
		if err != nil || strings.Contains(string(out), "NETCAP") {
			t.Errorf("outside the namespace the kernel lists (%v):\n%s", err, out)
		}
		g.end(t)
		var stdout strings.Builder
		for _, l := range g.Lines() {
			if !l.Stderr {
				stdout.WriteString(l.Text + "\n")
			}
		}
		if file, err := os.ReadFile(events); err != nil || string(file) != stdout.String() {
			t.Errorf("the events file (%v) differs from standard output:\n%s\nwant:\n%s", err, file, stdout.String())
		}
	})
}

// TestPacketCountsOnce: a packet on its way through a router with a bridge
// passes three interfaces, each of which shows a copy to a guard on all of
// them. It counts once.
func TestPacketCountsOnce(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w, router := newRoutedWorld(t)
	for _, args := range [][]string{
		{"link", "add", "lan0", "type", "bridge"}, {"link", "set", "lan0", "up"},
		{"addr", "flush", "dev", "eth1"}, {"link", "set", "eth1", "master", "lan0"},
		{"addr", "add", "192.0.3.1/24", "dev", "lan0"}, {"addr", "add", "2001:db8:3::1/64", "dev", "lan0", "nodad"},
	} {
		nstest.Run(t, router.NS, "ip", args...)
	}
	const connections = 20
	for name, to := range map[string]netip.Addr{"IPv4": w.victim.v4, "IPv6": w.victim.v6} {
		mustReach(t, "attacker "+name, w.attacker, to)
		g := launch(t, f, router.NS, f.command(t, router.NS, guardBinary(), "-i", "any", "--workers", "2", "--rules", rules(t, "iptables_block", "duration: 10m")))
		for range connections {
			if err := connect(t.Context(), w.attacker, to, patience); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the guard has read them all", func() bool { return g.matches(t) >= connections })
		if got := g.end(t).Stats.Rules[scanRule].Matches; got != connections {
			t.Errorf("%s: %d connections count as %d", name, connections, got)
		}
	}
}

// TestOwnPacketsCountOnce: what a host says to itself shows on lo twice.
func TestOwnPacketsCountOnce(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWorld(t)
	g := launch(t, f, w.victim.NS, f.command(t, w.victim.NS, guardBinary(), "-i", "any", "--workers", "2", "--rules", rules(t, "iptables_block", "duration: 10m")))
	const connections = 20
	for range connections {
		if err := connect(t.Context(), w.victim, w.victim.v4, patience); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the guard has read them all", func() bool { return g.matches(t) >= connections })
	if got := g.end(t).Stats.Rules[scanRule].Matches; got != connections {
		t.Errorf("%d connections count as %d", connections, got)
	}
}

// TestOutgoingAttackIsSeen: an attack that this host itself sends counts, and
// this host itself is never blocked.
func TestOutgoingAttackIsSeen(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWorld(t)
	g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
	scan(t, w.victim, w.bystander.v4)
	g.action(t, w.victim.v4.String(), "whitelisted")
	mustReach(t, "this host", w.victim, w.victim.v4)
	mustReach(t, "bystander", w.bystander, w.victim.v4)
	g.end(t)
}
