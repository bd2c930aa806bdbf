package guard

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/engine"
)

const reloadRules = `
- {name: knock, type: TCP, expression: 'DstPort == 22 && SYN && !ACK', threshold: 6, actions: [{type: iptables_block, config: {duration: 1h}}]}
- {name: ports, type: TCP, expression: 'DstPort > 1000 && SYN && !ACK', distinct_field: DstPort, distinct_threshold: 6, threshold: 7}
- {name: after, type: TCP, expression: 'DstPort == 9 && FIN', sequence: {after: knock, within: 60}}
`

// TestReloadWhileRunning: a rule set with a mistake changes nothing; with a
// good one, unchanged rules keep their counters, what they counted towards
// their thresholds, what a sequence waits for, and their blocks.
func TestReloadWhileRunning(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "rules.yml")
	rewrite := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(reloadRules)
	var out bytes.Buffer
	r := &runner{cfg: Config{Read: []string{"-"}, Rules: []string{file}, Output: OutputJSON, Quiet: true, DryRun: true},
		env: Environment{Streams: Streams{Out: &out, Err: io.Discard}}, log: slog.New(slog.DiscardHandler)}
	rs, err := r.loadRules()
	if err != nil {
		t.Fatal(err)
	}
	if r.events, err = openEvents(r.cfg, &out); err != nil {
		t.Fatal(err)
	}
	if err := r.openFirewall(t.Context(), rs, true); err != nil {
		t.Fatal(err)
	}
	r.engine = engine.New(rs, engine.Config{Alerts: r.events, Lossless: true})
	r.engine.SetFirewallManager(r.manager)
	r.shared = newShared(r.engine)
	w, second := newWorker(r.shared), int64(0)
	const attacker = "203.0.113.9"
	send := func(flags string, ports ...uint16) {
		t.Helper()
		s := newScene(t)
		for _, p := range ports {
			s.tcp(attacker, "192.0.2.1", 40000, p, flags, nil)
		}
		for _, data := range s.packets {
			second++
			at := s.at.Unix() + second
			w.packet(&capture.Packet{Data: data, Length: len(data), Link: capture.LinkEthernet, Time: at * 1e9}, uint64(second))
		}
	}
	reload := func(text, refused string) {
		t.Helper()
		rewrite(text)
		before := r.engine.Rules()
		_, err := r.reload()
		if refused == "" && err != nil || refused != "" && (err == nil || !strings.Contains(err.Error(), refused) || r.engine.Rules() != before) {
			t.Fatalf("reload: %v, want %q; the same rules: %t", err, refused, r.engine.Rules() == before)
		}
	}
	counted := func(rule string, matches, alerts uint64) {
		t.Helper()
		if s := r.engine.Stats().Rules[rule]; s.Matches != matches || s.Alerts != alerts {
			t.Errorf("%s: %d matches and %d alerts, want %d and %d", rule, s.Matches, s.Alerts, matches, alerts)
		}
	}
	send("S", 22, 22, 22, 1001, 1002, 1003, 1004)
	reload(reloadRules+"- {name: broken, type: TCP, expression: 'SYNN'}\n- {name: knock, type: TCP, expression: SYN}\n", "rules.yml:5")
	send("S", 22)
	reload("# moved\n"+reloadRules+"- {name: new, type: UDP, expression: DstPort == 1}\n", "")
	counted("knock", 4, 0)
	send("S", 22, 1004, 1005, 22)
	counted("knock", 6, 1)
	counted("ports", 6, 0)
	reload(reloadRules, "")
	send("F", 9)
	counted("after", 1, 1)
	if send("S", 1006); len(r.manager.GetActiveBlocks()) != 1 {
		t.Errorf("blocks after the reload: %v", r.manager.GetActiveBlocks())
	}
	counted("ports", 7, 1)
	reload(strings.Replace(reloadRules, "threshold: 6, actions", "threshold: 5, actions", 1), "")
	counted("knock", 0, 0)
	counted("ports", 7, 1)
	if n := len(r.manager.GetActiveBlocks()); n != 1 {
		t.Errorf("%d blocks after the rule changed", n)
	}
	if err := r.shutdown(true); err != nil {
		t.Error(err)
	}
}
