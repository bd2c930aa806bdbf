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
	r := newReloader(t)
	send, reload, counted := r.send, r.reload, r.counted
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
	send("S", 1006)
	r.blocked(1)
	counted("ports", 7, 1)
	reload(strings.Replace(reloadRules, "threshold: 6, actions", "threshold: 5, actions", 1), "")
	counted("knock", 0, 0)
	counted("ports", 7, 1)
	r.blocked(1)
	if err := r.shutdown(true); err != nil {
		t.Error(err)
	}
}

// reloader is a guard without a source: a worker that is handed packets, and a
// rule file that is written anew.
type reloader struct {
	*runner
	t      *testing.T
	file   string
	worker *worker
	second int64
}

func newReloader(t *testing.T) *reloader {
	t.Helper()
	var out bytes.Buffer
	rl := &reloader{t: t, file: filepath.Join(t.TempDir(), "rules.yml")}
	rl.rewrite(reloadRules)
	r := &runner{cfg: Config{Read: []string{"-"}, Rules: []string{rl.file}, Output: OutputJSON, Quiet: true, DryRun: true},
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
	rl.runner, rl.worker = r, newWorker(r.shared)
	return rl
}

func (r *reloader) rewrite(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// send hands over a packet to each port, a second apart.
func (r *reloader) send(flags string, ports ...uint16) {
	r.t.Helper()
	s := newScene(r.t)
	for _, p := range ports {
		s.tcp("203.0.113.9", "192.0.2.1", 40000, p, flags, nil)
	}
	for _, data := range s.packets {
		r.second++
		at := s.at.Unix() + r.second
		r.worker.packet(&capture.Packet{Data: data, Length: len(data), Link: capture.LinkEthernet, Time: at * 1e9}, uint64(r.second))
	}
}

// reload reads other rules, which are refused with a text or taken.
func (r *reloader) reload(text, refused string) {
	r.t.Helper()
	r.rewrite(text)
	before := r.engine.Rules()
	_, err := r.runner.reload()
	if refused == "" && err != nil || refused != "" && (err == nil || !strings.Contains(err.Error(), refused) || r.engine.Rules() != before) {
		r.t.Fatalf("reload: %v, want %q; the same rules: %t", err, refused, r.engine.Rules() == before)
	}
}

func (r *reloader) counted(rule string, matches, alerts uint64) {
	r.t.Helper()
	if s := r.engine.Stats().Rules[rule]; s.Matches != matches || s.Alerts != alerts {
		r.t.Errorf("%s: %d matches and %d alerts, want %d and %d", rule, s.Matches, s.Alerts, matches, alerts)
	}
}

func (r *reloader) blocked(want int) {
	r.t.Helper()
	if got := r.manager.GetActiveBlocks(); len(got) != want {
		r.t.Errorf("blocked: %v", got)
	}
}
