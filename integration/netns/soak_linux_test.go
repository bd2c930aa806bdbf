//go:build linux && soak

package netns

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"
)

// soakEnv says how long TestSoak runs, as Go writes durations.
const soakEnv = "NETCAP_GUARD_SOAKTIME"

// sources is how many addresses the attacker takes turns with: more than can
// be blocked at one time, so every block has ended before its address returns.
const sources = 150

func source(n int) string { return fmt.Sprintf("192.0.2.%d", 100+n) }

// TestSoak keeps a guard under attack from many addresses, with blocks that
// end again and again, and checks that its memory does not grow: the
// highest resident size of the last third is at most a quarter above that of
// the second (the first is for warming up).
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv(soakEnv))
	if err != nil {
		t.Fatalf("%s: %v", soakEnv, err)
	}
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		for n := range sources {
			if err := w.attacker.IP(t.Context(), "addr", "add", source(n)+"/24", "dev", "eth0"); err != nil {
				t.Fatal(err)
			}
		}
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 2s"))
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		began := time.Now()
		var highest [3]int // resident kilobytes, by third
		for n := 0; ctx.Err() == nil; n++ {
			_, err := w.attacker.Exec(ctx, "nmap", "-sS", "-n", "-Pn", "-F", "-T5", "--max-retries", "0",
				"-e", "eth0", "-S", source(n%sources), w.victim.v4.String())
			if err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
			third := min(int(3*time.Since(began)/length), 2)
			highest[third] = max(highest[third], resident(t, g.PID()))
		}
		mustReach(t, "bystander", w.bystander, w.victim.v4)
		stats := g.end(t).Stats
		t.Logf("highest resident kilobytes by third: %v; statistics %v", highest, stats.Firewall)
		if highest[2]*4 > highest[1]*5 {
			t.Errorf("memory grows: highest resident kilobytes by third %v", highest)
		}
		if stats.Firewall["blocks_expired"] == 0 {
			t.Error("no block ended: the loop did not test what it should")
		}
	})
}
