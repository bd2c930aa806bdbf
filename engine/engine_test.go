package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/record"
)

// journal writes down what an engine does, in order.
type journal struct {
	mu     sync.Mutex
	alerts []*Alert
	lines  []string
	fail   error
}

func (j *journal) line(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) WriteAlert(a *Alert) error {
	j.line("alert %s %v packet %d count %d", a.Rule, a.Src, a.Packet, a.Count)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.alerts = append(j.alerts, a)
	return j.fail
}

func (j *journal) action(ev ActionEvent) {
	text := ev.Result.Outcome.String()
	if ev.Err != nil {
		text += ": " + ev.Err.Error()
	}
	j.line("%s %s %v %v for %v: %s", ev.Rule, ev.Kind, ev.Target, ev.Prefix, ev.Duration, text)
}

func (j *journal) log(ev LogEvent) {
	j.line("log %s%s %v->%v kernel %v", ev.Prefix, ev.Rule, ev.Src, ev.Dst, ev.Err)
}

func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := j.lines
	j.lines = nil
	return out
}

// start runs rules in an engine that delivers at once.
func start(t testing.TB, rules string, j *journal) (*Engine, *Worker) {
	t.Helper()
	rs, _ := mustLoad(t, rules)
	e := New(rs, Config{Alerts: j, OnAction: j.action, OnLog: j.log, Lossless: true})
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e, e.NewWorker()
}

// dryManager is a real manager on the in-memory backend.
func dryManager(t testing.TB) *firewall.Manager {
	t.Helper()
	cfg := firewall.DefaultManagerConfig()
	cfg.DryRun, cfg.PacketTime = true, true
	return managed(t, cfg)
}

// managed is a Manager that ends with the test.
func managed(t testing.TB, cfg *firewall.ManagerConfig) *firewall.Manager {
	t.Helper()
	m, err := firewall.NewManager(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

const t0 = int64(1_700_000_000) * int64(time.Second)

// syn is a TCP SYN from a host to port 22, at seconds after t0.
func syn(packet uint64, src string, seconds float64) *record.Set {
	set := &record.Set{Have: record.Of(record.TypeTCP)}
	set.Header = record.Header{
		Time: t0 + int64(seconds*1e9), Packet: packet, Proto: 6, SrcPort: 4444, DstPort: 22,
		Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr("198.51.100.1"),
	}
	set.TCP = record.TCP{SrcPort: 4444, DstPort: 22, SYN: true}
	return set
}

const sshRule = `
- name: ssh
  description: guessing
  type: TCP
  expression: DstPort == 22 && SYN && !ACK
  severity: high
  threshold: 3
  threshold_window: 10
  tags: [a]
  mitre: [T1110]
  actions:
    - type: iptables_block
      config: {duration: 1h}
`

func TestThresholdToBlock(t *testing.T) {
	j := &journal{}
	e, w := start(t, sshRule, j)
	m := dryManager(t)
	e.SetFirewallManager(m)
	if e.GetFirewallManager() != m {
		t.Error("another manager")
	}
	for i, at := range []float64{0, 4, 10.000000001, 11, 12, 20, 20, 20} {
		w.Evaluate(syn(uint64(i+1), "203.0.113.9", at))
	}
	// 0, 4, 10+1ns: the first is out of the window by a nanosecond; the third
	// in it is packet 4; after that the counter starts again.
	want := []string{
		"alert ssh 203.0.113.9 packet 4 count 3",
		"ssh iptables_block source 203.0.113.9/32 for 1h0m0s: created",
		"alert ssh 203.0.113.9 packet 7 count 3",
		"ssh iptables_block source 203.0.113.9/32 for 1h0m0s: extended",
	}
	if diff := cmp.Diff(want, j.take()); diff != "" {
		t.Error(diff)
	}
	if !m.IsBlocked("203.0.113.9") || m.IsBlocked("203.0.113.8") {
		t.Error("the wrong host is blocked")
	}
	block := m.GetActiveBlocks()[0]
	if block.RuleName != "ssh" || block.Reason != "3 in 10s" {
		t.Errorf("rule %q, reason %q", block.RuleName, block.Reason)
	}
	if diff := cmp.Diff(map[string]uint64{"actions_executed": 2, "actions_success": 2, "actions_failed": 0, "ips_blocked": 1}, e.GetActionStats()); diff != "" {
		t.Error(diff)
	}
	if got := e.Stats().Rules["ssh"]; !sameCounts(got, RuleStats{Matches: 8, Alerts: 2}) || got.Peak != 3 {
		t.Errorf("counted %+v", got)
	}
	checkAlert(t, j.alerts[0])
}

func checkAlert(t *testing.T, a *Alert) {
	t.Helper()
	fields, err := json.Marshal(a.Fields)
	if err != nil || !strings.Contains(string(fields), `"SrcIP":"203.0.113.9"`) || !strings.Contains(string(fields), `"SYN":true`) {
		t.Errorf("fields %s, %v", fields, err)
	}
	a.Fields = nil
	want := &Alert{
		Time: time.Unix(0, t0+11e9).UTC(), Rule: "ssh", Description: "guessing", Severity: High, Tags: []string{"a"}, MITRE: []string{"T1110"},
		Record: record.TypeTCP, Src: netip.MustParseAddr("203.0.113.9"), Dst: netip.MustParseAddr("198.51.100.1"),
		SrcPort: 4444, DstPort: 22, Proto: 6, Count: 3, Threshold: 3, Window: 10 * time.Second, Packet: 4,
	}
	if diff := cmp.Diff(want, a, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// TestWithoutThreshold: equal alerts are merged for five minutes, the actions
// run every time.
func TestWithoutThreshold(t *testing.T) {
	j := &journal{}
	e, w := start(t, "- {name: r, type: TCP, expression: SYN, actions: [{type: iptables_log, config: {prefix: 'P: '}}]}", j)
	other := syn(3, "203.0.113.1", 2)
	other.Dst = netip.MustParseAddr("198.51.100.2")
	for _, set := range []*record.Set{
		syn(1, "203.0.113.1", 0), syn(2, "203.0.113.1", 1), other, syn(4, "203.0.113.2", 3), syn(5, "203.0.113.1", 299.9), syn(6, "203.0.113.1", 300),
	} {
		w.Evaluate(set)
	}
	var alerts []string
	logs := 0
	for _, l := range j.take() {
		if strings.HasPrefix(l, "alert") {
			alerts = append(alerts, l)
		} else {
			logs++
		}
	}
	want := []string{
		"alert r 203.0.113.1 packet 1 count 1", "alert r 203.0.113.1 packet 3 count 1",
		"alert r 203.0.113.2 packet 4 count 1", "alert r 203.0.113.1 packet 6 count 1",
	}
	if diff := cmp.Diff(want, alerts); diff != "" || logs != 6 {
		t.Errorf("%d log events; %s", logs, diff)
	}
	if s := e.Stats(); s.AlertsMerged != 2 || !sameCounts(s.Rules["r"], RuleStats{Matches: 6, Alerts: 4}) {
		t.Errorf("%+v", s)
	}
}

// refusing is a firewall that answers what it is told to.
type refusing struct {
	answer firewall.Result
	err    error
	seen   []firewall.Request
	gate   chan struct{} // not nil: Block waits for it, or for the context
}

func (r *refusing) Block(ctx context.Context, req firewall.Request) (firewall.Result, error) {
	if r.gate != nil {
		select {
		case <-r.gate:
		case <-ctx.Done():
			return firewall.Result{Outcome: firewall.Failed}, ctx.Err()
		}
	}
	r.seen = append(r.seen, req)
	return r.answer, r.err
}

func TestActions(t *testing.T) {
	at := time.Unix(0, t0).UTC()
	host, six := netip.MustParsePrefix("203.0.113.9/32"), netip.MustParsePrefix("2001:db8:1:2:3::4/128")
	for _, tc := range []struct {
		name, action, src string
		answer            firewall.Result
		err               error
		want              firewall.Request
		line              string
		success, failed   uint64
		blocked           uint64
	}{
		{name: "defaults", action: "type: iptables_block", src: "203.0.113.9",
			want: firewall.Request{Prefix: host, Duration: 30 * time.Minute},
			line: "source 203.0.113.9/32 for 30m0s: created", success: 1, blocked: 1},
		{name: "permanent", action: "type: iptables_block, config: {duration: 0}", src: "203.0.113.9",
			want: firewall.Request{Prefix: host}, line: "source 203.0.113.9/32 for 0s: created", success: 1, blocked: 1},
		{name: "destination", action: "type: iptables_block, config: {target: dst}", src: "203.0.113.9",
			want: firewall.Request{Prefix: netip.MustParsePrefix("198.51.100.1/32"), Target: backend.Destination, Duration: 30 * time.Minute},
			line: "destination 198.51.100.1/32 for 30m0s: created", success: 1, blocked: 1},
		{name: "reject", action: "type: iptables_reject, config: {duration: 5}", src: "203.0.113.9",
			want: firewall.Request{Prefix: host, Action: backend.Reject, Duration: 5 * time.Minute}, line: "for 5m0s: created", success: 1, blocked: 1},
		{name: "reset", action: "type: iptables_reject, config: {reject_with: tcp-reset}", src: "203.0.113.9",
			want: firewall.Request{Prefix: host, Action: backend.RejectReset, Duration: 30 * time.Minute}, line: "created", success: 1, blocked: 1},
		{name: "IPv6 prefix", action: "type: iptables_block, config: {ipv6_prefix: 64}", src: "2001:db8:1:2:3::4",
			want: firewall.Request{Prefix: six, Duration: 30 * time.Minute, IPv6Prefix: 64}, line: "2001:db8:1:2::/64", success: 1, blocked: 1},
		{name: "IPv6 prefix on IPv4", action: "type: iptables_block, config: {ipv6_prefix: 64}", src: "203.0.113.9",
			want: firewall.Request{Prefix: host, Duration: 30 * time.Minute, IPv6Prefix: 64}, line: "203.0.113.9/32", success: 1, blocked: 1},
		{name: "duplicate", action: "type: iptables_block", src: "203.0.113.9", answer: firewall.Result{Outcome: firewall.Duplicate},
			want: firewall.Request{Prefix: host, Duration: 30 * time.Minute}, line: "duplicate", success: 1},
		{name: "whitelisted", action: "type: iptables_block", src: "203.0.113.9", answer: firewall.Result{Outcome: firewall.Whitelisted},
			want: firewall.Request{Prefix: host, Duration: 30 * time.Minute}, line: "whitelisted", success: 1},
		{name: "refused", action: "type: iptables_block", src: "203.0.113.9", answer: firewall.Result{Outcome: firewall.Refused}, err: firewall.ErrRefused,
			want: firewall.Request{Prefix: host, Duration: 30 * time.Minute}, line: "refused: refused", failed: 1},
		{name: "rate limit", action: "type: iptables_rate_limit, config: {rate: 5/second, burst: 7}", src: "203.0.113.9",
			answer: firewall.Result{Outcome: firewall.Failed}, err: backend.ErrUnsupported,
			want: firewall.Request{Prefix: host, Action: backend.RateLimit, Limit: backend.Limit{Rate: 5, Per: time.Second, Burst: 7}, Duration: 30 * time.Minute},
			line: "failed: not supported by this backend", failed: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j, b := &journal{}, &refusing{answer: tc.answer, err: tc.err}
			e, w := start(t, "- {name: r, type: TCP, expression: SYN, actions: [{"+tc.action+"}]}", j)
			e.setBlocker(b)
			w.Evaluate(syn(1, tc.src, 0))
			tc.want.Rule, tc.want.Reason, tc.want.At, tc.want.ByRule = "r", "match", at, true
			if diff := cmp.Diff([]firewall.Request{tc.want}, b.seen, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
			if lines := j.take(); len(lines) != 2 || !strings.HasSuffix(lines[1], tc.line) && !strings.Contains(lines[1], tc.line) {
				t.Errorf("events %q, want %q", lines, tc.line)
			}
			want := map[string]uint64{"actions_executed": 1, "actions_success": tc.success, "actions_failed": tc.failed, "ips_blocked": tc.blocked}
			if diff := cmp.Diff(want, e.GetActionStats()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestOneActionFails: the others run, and each is counted.
func TestOneActionFails(t *testing.T) {
	j, b := &journal{}, &refusing{err: errors.New("kernel says no"), answer: firewall.Result{Outcome: firewall.Failed}}
	e, w := start(t, `
- name: r
  type: TCP
  expression: SYN
  actions:
    - {type: iptables_block}
    - {type: iptables_block, enabled: false}
    - {type: iptables_log, config: {kernel: true}}
    - {type: iptables_log}
`, j)
	e.setBlocker(b)
	w.Evaluate(syn(1, "203.0.113.9", 0))
	want := []string{
		"alert r 203.0.113.9 packet 1 count 1",
		"r iptables_block source 203.0.113.9/32 for 30m0s: failed: kernel says no",
		"log NETCAP: r 203.0.113.9->198.51.100.1 kernel kernel log rule: kernel says no",
		"log NETCAP: r 203.0.113.9->198.51.100.1 kernel <nil>",
	}
	if diff := cmp.Diff(want, j.take()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]uint64{"actions_executed": 3, "actions_success": 1, "actions_failed": 2, "ips_blocked": 0}, e.GetActionStats()); diff != "" {
		t.Error(diff)
	}
}

// TestNoManager: blocks are skipped, alerts and logs go on; nil disconnects.
func TestNoManager(t *testing.T) {
	j := &journal{}
	e, w := start(t, "- {name: r, type: TCP, expression: SYN, actions: [{type: iptables_block}, {type: iptables_log}]}", j)
	e.SetFirewallManager(nil)
	if e.GetFirewallManager() != nil {
		t.Error("a manager out of nothing")
	}
	w.Evaluate(syn(1, "203.0.113.9", 0))
	want := []string{"alert r 203.0.113.9 packet 1 count 1", "log NETCAP: r 203.0.113.9->198.51.100.1 kernel <nil>"}
	if diff := cmp.Diff(want, j.take()); diff != "" {
		t.Error(diff)
	}
	if e.Stats().ActionsSkipped != 1 || e.GetActionStats()["actions_executed"] != 1 {
		t.Errorf("%+v %v", e.Stats(), e.GetActionStats())
	}
}

func TestEvaluationErrors(t *testing.T) {
	j := &journal{}
	e, w := start(t, `
- {name: native, type: DNS, expression: 'Questions[0].Name == "x"'}
- {name: negated, type: DNS, expression: '!(Questions[0].Name == "x")'}
- {name: vm, type: DNS, expression: 'Questions[0].Name[0:1] == "x"'}
- {name: after, type: DNS, expression: 'QDCount == 0'}
`, j)
	set := syn(1, "203.0.113.9", 0)
	set.Have = record.Of(record.TypeDNS)
	w.Evaluate(set)
	if diff := cmp.Diff([]string{"alert after 203.0.113.9 packet 1 count 1"}, j.take()); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"native", "negated", "vm"} {
		if got := e.Stats().Rules[name]; got != (RuleStats{Errors: 1}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(sshRule)
	j := &journal{}
	e, err := NewEngine(dir, j)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	w := e.NewWorker()
	w.Evaluate(syn(1, "203.0.113.9", 0))
	w.Evaluate(syn(2, "203.0.113.9", 1))

	write("- {name: broken}")
	if _, err := e.Reload(); err == nil || !strings.Contains(err.Error(), "rules not reloaded") {
		t.Errorf("error %v", err)
	}
	if got := e.Stats().Rules["ssh"]; got.Matches != 2 {
		t.Errorf("after a broken reload %+v", e.Stats().Rules)
	}
	write("# moved down\n" + sshRule + "- {name: new, type: UDP, expression: Length > 1}\n")
	if _, err := e.Reload(); err != nil {
		t.Fatal(err)
	}
	if want := e.Want(); want.Types != record.Of(record.TypeTCP, record.TypeUDP) {
		t.Errorf("wants %b", want.Types)
	}
	w.Evaluate(syn(3, "203.0.113.9", 2)) // the unchanged rule kept its two matches
	if got := e.Stats().Rules["ssh"]; !sameCounts(got, RuleStats{Matches: 3, Alerts: 1}) {
		t.Errorf("after a good reload %+v", got)
	}
	write(strings.Replace(sshRule, "threshold: 3", "threshold: 4", 1))
	if _, err := e.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := e.Stats().Rules["ssh"]; got != (RuleStats{}) {
		t.Errorf("a changed rule kept %+v", got)
	}
}

func TestNewEngineRefusesBrokenRules(t *testing.T) {
	e, err := NewEngine("testdata/broken", nil)
	if e != nil || err == nil {
		t.Fatalf("%v, %v", e, err)
	}
	if p, ok := errors.AsType[Problem](err); !ok || p.Line == 0 {
		t.Errorf("first problem %v", p)
	}
}

// TestLiveQueues: nothing waits for a stuck firewall or a stuck writer;
// requests for one address are merged, the rest is counted.
func TestLiveQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &refusing{gate: make(chan struct{})}
		rs, _ := mustLoad(t, "- {name: r, type: TCP, expression: SYN, actions: [{type: iptables_block}]}")
		j := &journal{}
		e := New(rs, Config{ActionQueue: 4, AlertQueue: 4, OnAction: j.action})
		e.setBlocker(b)
		w := e.NewWorker()
		w.Evaluate(syn(1, "203.0.113.1", 0))
		synctest.Wait() // the executor holds the first request
		for i := range 10 {
			w.Evaluate(syn(2, "203.0.113.2", 1))
			w.Evaluate(syn(3, fmt.Sprintf("203.0.113.%d", 10+i), 1))
		}
		if s := e.Stats(); s.ActionsWaiting != 4 || s.ActionsMerged != 9 || s.ActionsDropped != 7 {
			t.Errorf("waiting %d, merged %d, dropped %d", s.ActionsWaiting, s.ActionsMerged, s.ActionsDropped)
		}
		close(b.gate)
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if len(b.seen) != 5 || e.GetActionStats()["ips_blocked"] != 5 {
			t.Errorf("%d requests, %v", len(b.seen), e.GetActionStats())
		}
	})
}

// TestLogsDoNotStarveBlocks: whoever floods a rule that only logs must not
// keep another rule's block from being made, however slowly the log is taken.
func TestLogsDoNotStarveBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := &refusing{gate: gate}
		rs, _ := mustLoad(t, "- {name: noise, type: TCP, expression: SYN, actions: [{type: iptables_log}]}\n"+
			"- {name: ssh, type: TCP, expression: SYN, threshold: 40, actions: [{type: iptables_block}]}")
		stuck := make(chan struct{})
		e := New(rs, Config{ActionQueue: 8, AlertQueue: 8, OnLog: func(LogEvent) { <-stuck }})
		e.setBlocker(b)
		close(gate)
		w := e.NewWorker()
		for i := range 40 {
			w.Evaluate(syn(uint64(i), "203.0.113.1", 0))
		}
		synctest.Wait()
		if got := e.GetActionStats()["ips_blocked"]; got != 1 {
			t.Errorf("%d blocks made while the log is stuck, want 1", got)
		}
		close(stuck)
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// TestCloseDeadline: a firewall that does not answer does not keep the guard
// from ending.
func TestCloseDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs, _ := mustLoad(t, "- {name: r, type: TCP, expression: SYN, actions: [{type: iptables_block}]}")
		e := New(rs, Config{})
		e.setBlocker(&refusing{gate: make(chan struct{})})
		w := e.NewWorker()
		for i := range 3 {
			w.Evaluate(syn(1, fmt.Sprintf("203.0.113.%d", i), 0))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := e.Close(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "0 alerts and 3 actions") {
			t.Errorf("error %v", err)
		}
		if err := e.Close(ctx); err != nil {
			t.Errorf("second close: %v", err)
		}
	})
}

func TestAlertWriterFails(t *testing.T) {
	j := &journal{fail: errors.New("disk full")}
	e, w := start(t, "- {name: r, type: TCP, expression: SYN}", j)
	w.Evaluate(syn(1, "203.0.113.9", 0))
	if s := e.Stats(); s.AlertErrors != 1 || s.Rules["r"].Alerts != 1 {
		t.Errorf("%+v", s)
	}
}
