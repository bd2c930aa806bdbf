package firewall

import (
	"net/netip"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// TestWhatIsSeenOfAPacket: the kernel log rules that a packet meets, and what
// the escalation remembers of an address.
func TestWhatIsSeenOfAPacket(t *testing.T) {
	m, err := NewManager(&ManagerConfig{DryRun: true, Protect: hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	ask := func(prefix string, target backend.Target, action backend.Action, rule string) {
		t.Helper()
		req := Request{Prefix: netip.MustParsePrefix(prefix), Target: target, Action: action, Rule: rule, Duration: time.Hour}
		switch action {
		case backend.Log:
			req.LogPrefix = rule + ": "
		default:
			req.Escalation = []time.Duration{time.Minute, time.Hour}
		}
		if _, err := m.Block(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	ask("192.0.2.0/24", backend.Source, backend.Log, "net")
	ask("192.0.2.1/32", backend.Source, backend.Log, "host")
	ask("198.51.100.7/32", backend.Destination, backend.Log, "towards")
	ask("2001:db8::/64", backend.Source, backend.Log, "six")
	ask("192.0.2.1/32", backend.Source, backend.Drop, "block")
	for _, tc := range []struct {
		src, dst string
		want     []string
	}{
		{"192.0.2.1", "198.51.100.7", []string{"host", "net", "towards"}},
		{"::ffff:192.0.2.2", "198.51.100.8", []string{"net"}},
		{"198.51.100.7", "192.0.2.1", nil},
		{"2001:db8::9", "2001:db8:1::9", []string{"six"}},
	} {
		got := m.LogRules(netip.MustParseAddr(tc.src), netip.MustParseAddr(tc.dst))
		if len(got) != len(tc.want) {
			t.Errorf("%s to %s: %+v, want %v", tc.src, tc.dst, got, tc.want)
			continue
		}
		for i, rule := range tc.want {
			if got[i].RuleName != rule || got[i].LogPrefix != rule+": " {
				t.Errorf("%s to %s: %+v, want %s", tc.src, tc.dst, got[i], rule)
			}
		}
	}
	if got := m.LogRules(netip.Addr{}, netip.Addr{}); got != nil {
		t.Errorf("no packet meets %+v", got)
	}
	history := m.Escalated(netip.MustParsePrefix("192.0.2.1/32"))
	if len(history) != 1 || len(history[0].Blocks) != 1 || time.Since(history[0].Blocks[0]).Abs() > time.Hour {
		t.Errorf("history %+v", history)
	}
	if got := m.Escalated(netip.MustParsePrefix("192.0.2.2/32")); got != nil {
		t.Errorf("history of a stranger %+v", got)
	}
	if changes, joined := m.Coalesced(); changes != 5 || joined != 0 {
		t.Errorf("%d changes, %d joined, want 5 one after the other", changes, joined)
	}
	if drops, err := m.Dropped(t.Context()); drops != nil || err != nil {
		t.Errorf("a dry run dropped %v, %v", drops, err)
	}
}
