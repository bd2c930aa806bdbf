package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
	"github.com/netcap-guard/netcap-guard/record"
)

// told is a firewall's caller that keeps what it was told, each kind by one
// goroutine.
type told struct {
	actions []ActionEvent
	logs    []LogEvent
}

// run evaluates one SYN of an address with one action.
func (o *told) run(t *testing.T, action, src string, cfg Config, b blocker) *Engine {
	t.Helper()
	rs, _ := mustLoad(t, "- {name: r, type: TCP, expression: SYN, actions: [{"+action+"}]}")
	cfg.Lossless = true
	cfg.OnAction = func(e ActionEvent) { o.actions = append(o.actions, e) }
	cfg.OnLog = func(e LogEvent) { o.logs = append(o.logs, e) }
	e := New(rs, cfg)
	if b != nil {
		e.setBlocker(b)
	}
	e.NewWorker().Evaluate(syn(1, src, 0))
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// comparePrefixes keeps cmp out of netip's fields.
func comparePrefixes() cmp.Option {
	return cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
}

// TestEscalationIsAskedFor: the firewall decides which step it is; the event
// tells what it came to.
func TestEscalationIsAskedFor(t *testing.T) {
	for _, tc := range []struct {
		name string
		ends time.Duration // of the block in force; 0 = permanent
	}{{"a step", time.Hour}, {"for good", 0}} {
		t.Run(tc.name, func(t *testing.T) {
			at := time.Unix(1700000000, 0)
			answer := firewall.Result{Block: firewall.BlockInfo{CreatedAt: at}}
			if tc.ends > 0 {
				answer.Block.ExpiresAt = at.Add(tc.ends)
			}
			var o told
			b := &refusing{answer: answer}
			o.run(t, "type: iptables_rate_limit, config: {rate: 2/s, escalation: [10m, 1h, 0], escalation_memory: 1d}", "203.0.113.9", Config{}, b)
			want := firewall.Request{
				Prefix: netip.MustParsePrefix("203.0.113.9/32"), Action: backend.RateLimit,
				Limit: backend.Limit{Rate: 2, Per: time.Second, Burst: 5}, Duration: 10 * time.Minute,
				Escalation: []time.Duration{10 * time.Minute, time.Hour, 0}, EscalationMemory: 24 * time.Hour,
				Rule: "r", Reason: "match", At: time.Unix(0, t0).UTC(), ByRule: true,
			}
			if diff := cmp.Diff([]firewall.Request{want}, b.seen, comparePrefixes()); diff != "" {
				t.Error(diff)
			}
			if len(o.actions) != 1 || o.actions[0].Duration != tc.ends {
				t.Errorf("events %+v, want a duration of %v", o.actions, tc.ends)
			}
		})
	}
}

// TestLifeOfABlockThatIsThere: what is told is what is left of it, in whole
// seconds, from the match on.
func TestLifeOfABlockThatIsThere(t *testing.T) {
	at := time.Unix(0, t0)
	block := firewall.BlockInfo{CreatedAt: at.Add(-time.Hour), ExpiresAt: at.Add(10*time.Minute + 1234567)}
	for outcome, want := range map[firewall.Outcome]time.Duration{
		firewall.Created:   70*time.Minute + time.Millisecond,
		firewall.Extended:  10 * time.Minute,
		firewall.Duplicate: 10 * time.Minute,
	} {
		var o told
		o.run(t, "type: iptables_block, config: {escalation: [10m, 1h]}", "203.0.113.9", Config{}, &refusing{answer: firewall.Result{Outcome: outcome, Block: block}})
		if len(o.actions) != 1 || o.actions[0].Duration != want {
			t.Errorf("%v: %+v, want %v", outcome, o.actions, want)
		}
	}
}

// TestExemptHosts: what a whitelisted host does is not its network's doing; it
// counts for itself, and its neighbours for the network around it.
func TestExemptHosts(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options string
		sources []string
		alerts  uint64
		blocked string
	}{
		{"a neighbour once", "", []string{"fd09::5", "fd09::5", "fd09::2"}, 0, ""},
		{"the first address of the network", "", []string{"fd09::", "fd09::", "fd09::2"}, 0, ""},
		{"neighbours", "", []string{"fd09::2", "fd09::5", "fd09::3", "fd09::4"}, 1, "fd09::/64"},
		{"alone", "", []string{"fd09::5", "fd09::5", "fd09::5"}, 1, ""},
		{"two of them", "", []string{"fd09::5", "fd09::", "fd09::5"}, 0, ""},
		{"distinct values", "distinct_field: SeqNum, distinct_threshold: 3,", []string{"fd09::5", "fd09::5", "fd09::2"}, 0, ""},
		{"pairs", "track_by: pair,", []string{"fd09::5", "fd09::5", "fd09::2"}, 0, ""},
		{"pairs of neighbours", "track_by: pair,", []string{"fd09::4", "fd09::3", "fd09::2"}, 1, "fd09::/64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := firewall.NewManager(&firewall.ManagerConfig{
				DryRun: true, Whitelist: []string{"fd09::5", "fd09::"},
				Protect: hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = m.Close() }() // a dry run
			count := "threshold: 3, " + tc.options
			if strings.Contains(tc.options, "distinct") {
				count = tc.options
			}
			rs, _ := mustLoad(t, "- {name: r, type: TCP, expression: SYN, "+count+" actions: [{type: iptables_block, config: {ipv6_prefix: 64}}]}")
			e := New(rs, Config{Lossless: true})
			e.SetFirewallManager(m)
			w := e.NewWorker()
			for i, src := range tc.sources {
				set := syn(uint64(i+1), src, float64(i))
				set.Dst, set.TCP.SeqNum = netip.MustParseAddr("2001:db8::1"), uint32(i)
				w.Evaluate(set)
			}
			if err := e.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range m.GetActiveBlocks() {
				got = append(got, b.IP)
			}
			if alerts := e.Stats().Rules["r"].Alerts; alerts != tc.alerts || strings.Join(got, " ") != tc.blocked {
				t.Errorf("%d alerts, blocked %v, want %d, %s", alerts, got, tc.alerts, tc.blocked)
			}
		})
	}
}

// TestKernelLog: one log event, and a kernel log rule beside it.
func TestKernelLog(t *testing.T) {
	const action = "type: iptables_log, config: {prefix: 'X: ', kernel: true, duration: 5m, ipv6_prefix: 64}"
	for _, outcome := range []firewall.Outcome{firewall.Created, firewall.Extended, firewall.Duplicate, firewall.Whitelisted} {
		var o told
		b := &refusing{answer: firewall.Result{Outcome: outcome}}
		e := o.run(t, action, "2001:db8::9", Config{}, b)
		want := firewall.Request{
			Prefix: netip.MustParsePrefix("2001:db8::9/128"), IPv6Prefix: 64, Action: backend.Log, LogPrefix: "X: ",
			Duration: 5 * time.Minute, Rule: "r", Reason: "match", At: time.Unix(0, t0).UTC(), ByRule: true,
		}
		if diff := cmp.Diff([]firewall.Request{want}, b.seen, comparePrefixes()); diff != "" {
			t.Error(diff)
		}
		if len(o.actions) != 0 || len(o.logs) != 1 || o.logs[0].Kernel != (outcome != firewall.Whitelisted) || o.logs[0].Err != nil || o.logs[0].Prefix != "X: " {
			t.Errorf("%v: actions %+v, logs %+v", outcome, o.actions, o.logs)
		}
		if s := e.GetActionStats(); s["actions_success"] != 1 || s["ips_blocked"] != 0 {
			t.Errorf("%v: %v", outcome, s)
		}
	}
}

// TestKernelLogWithoutManager: the event is written all the same.
func TestKernelLogWithoutManager(t *testing.T) {
	var o told
	e := o.run(t, "type: iptables_log, config: {kernel: true}", "203.0.113.9", Config{}, nil)
	if len(o.logs) != 1 || o.logs[0].Kernel || o.logs[0].Err != nil || e.Stats().ActionsSkipped != 1 {
		t.Errorf("logs %+v, %+v", o.logs, e.Stats())
	}
}

// TestGlobalIPv6Prefix: an action's own length wins over the engine's.
func TestGlobalIPv6Prefix(t *testing.T) {
	for _, tc := range []struct {
		config string
		want   int
	}{{"", 56}, {"ipv6_prefix: 64", 64}, {"ipv6_prefix: 128", 128}} {
		var o told
		b := &refusing{}
		o.run(t, "type: iptables_block, config: {"+tc.config+"}", "2001:db8::9", Config{IPv6Prefix: 56}, b)
		if len(b.seen) != 1 || b.seen[0].IPv6Prefix != tc.want || b.seen[0].Prefix.Bits() != 128 {
			t.Errorf("%q asks for %+v, want length %d", tc.config, b.seen, tc.want)
		}
		if want := netip.PrefixFrom(netip.MustParseAddr("2001:db8::9"), tc.want).Masked(); len(o.actions) != 1 || o.actions[0].Prefix != want {
			t.Errorf("%q: events %+v, want %v", tc.config, o.actions, want)
		}
	}
}

// TestNotBlocked: of a block that was not made, the event tells the address
// that kept it from being made, and what was asked for; a life of 0 would be
// for good.
func TestNotBlocked(t *testing.T) {
	address, network := netip.MustParsePrefix("2001:db8::9/128"), netip.MustParsePrefix("2001:db8::/64")
	for _, tc := range []struct {
		name   string
		answer firewall.Result
		err    error
		want   netip.Prefix
	}{
		{"whitelisted", firewall.Result{Outcome: firewall.Whitelisted}, nil, address},
		{"refused", firewall.Result{Outcome: firewall.Refused}, firewall.ErrRefused, network},
		{"failed", firewall.Result{Outcome: firewall.Failed}, backend.ErrFull, network},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var o told
			o.run(t, "type: iptables_block, config: {ipv6_prefix: 64, escalation: [10m, 1h]}", "2001:db8::9", Config{}, &refusing{answer: tc.answer, err: tc.err})
			if len(o.actions) != 1 || o.actions[0].Prefix != tc.want || o.actions[0].Duration != 10*time.Minute {
				t.Errorf("events %+v, want %v for 10m", o.actions, tc.want)
			}
		})
	}
}

// TestAlertKnowsTheProxy: an alert says through which trusted proxy its client
// came.
func TestAlertKnowsTheProxy(t *testing.T) {
	for _, via := range []netip.Addr{{}, netip.MustParseAddr("192.0.2.80")} {
		set := &record.Set{}
		set.Via = via
		if got := newAlert(&evaluator{rule: &Rule{}, matcher: &matcher{record: record.TypeHTTP}}, set, set, 1); got.Via != via {
			t.Errorf("via %v, want %v", got.Via, via)
		}
	}
}

// asking is a firewall that says when it was asked.
type asking chan struct{}

func (a asking) Block(context.Context, firewall.Request) (firewall.Result, error) {
	close(a)
	return firewall.Result{Outcome: firewall.Created}, nil
}

// ringing is a Waker that counts.
type ringing struct {
	channel
	woken atomic.Int32
}

func (r *ringing) Wake() { r.woken.Add(1); r.channel.Wake() }

// TestBlockBeforeAlert: live, the block is asked for before the alert is put
// together, and whoever makes it is woken by the Waker that was given.
func TestBlockBeforeAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs, _ := mustLoad(t, "- {name: r, type: TCP, expression: SYN, actions: [{type: iptables_block}]}")
		waker := &ringing{channel: make(channel, 1)}
		e := New(rs, Config{Waker: waker})
		asked := make(asking)
		e.setBlocker(asked)
		w := e.NewWorker()
		w.SetFull(func() *record.Set {
			select {
			case <-asked:
			case <-time.After(30 * time.Second):
				t.Error("the block waits for the alert")
			}
			return nil
		})
		synctest.Wait() // whoever makes blocks sleeps
		w.Evaluate(syn(1, "203.0.113.9", 0))
		if waker.woken.Load() == 0 {
			t.Error("the Waker was not used")
		}
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// answering is a firewall that notes when it was asked, and answers always the
// same.
type answering struct {
	begun  time.Time
	answer firewall.Result
	err    error
	asked  []string
}

func (a *answering) Block(_ context.Context, req firewall.Request) (firewall.Result, error) {
	a.asked = append(a.asked, fmt.Sprintf("%s after %v", req.Prefix.Addr(), time.Since(a.begun)))
	res := a.answer
	if a.err == nil && res.Outcome != firewall.Whitelisted && req.Duration != 0 {
		res.Block.ExpiresAt = time.Now().Add(req.Duration)
	}
	return res, a.err
}

// TestRepeatedRequests: who goes on while he is blocked is asked to be blocked
// again once a second, everybody else at once; so is who goes on after a while,
// whose block is about to end, and who could not be blocked.
func TestRepeatedRequests(t *testing.T) {
	every100ms := []string{"203.0.113.1 after 0s", "203.0.113.1 after 100ms", "203.0.113.1 after 200ms"}
	for _, tc := range []struct {
		name     string
		duration string
		answer   firewall.Result
		err      error
		each     time.Duration // between two packets
		packets  int
		want     []string
	}{
		{"goes on", "1h", firewall.Result{Outcome: firewall.Extended}, nil, 100 * time.Millisecond, 25,
			[]string{"203.0.113.1 after 0s", "203.0.113.1 after 1s", "203.0.113.1 after 2s", "203.0.113.1 after 2.4s"}},
		{"for good", "0", firewall.Result{Outcome: firewall.Created}, nil, 100 * time.Millisecond, 12,
			[]string{"203.0.113.1 after 0s", "203.0.113.1 after 1s", "203.0.113.1 after 1.1s"}},
		{"whitelisted", "1h", firewall.Result{Outcome: firewall.Whitelisted}, nil, 100 * time.Millisecond, 3, every100ms},
		{"refused", "1h", firewall.Result{Outcome: firewall.Refused}, nil, 100 * time.Millisecond, 3, every100ms},
		{"a duplicate", "1h", firewall.Result{Outcome: firewall.Duplicate}, nil, 100 * time.Millisecond, 5,
			[]string{"203.0.113.1 after 0s", "203.0.113.1 after 400ms"}},
		{"now and then", "1h", firewall.Result{Outcome: firewall.Created}, nil, 3 * time.Second, 3,
			[]string{"203.0.113.1 after 0s", "203.0.113.1 after 3s", "203.0.113.1 after 6s"}},
		{"for a moment", "4s", firewall.Result{Outcome: firewall.Created}, nil, 100 * time.Millisecond, 3, every100ms},
		{"in vain", "1h", firewall.Result{Outcome: firewall.Failed}, errors.New("full"), 100 * time.Millisecond, 3, every100ms},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rs, _ := mustLoad(t, "- {name: r, type: TCP, expression: SYN, actions: [{type: iptables_block, config: {duration: "+tc.duration+"}}]}")
				a := &answering{begun: time.Now(), answer: tc.answer, err: tc.err}
				e := New(rs, Config{})
				e.setBlocker(a)
				w := e.NewWorker()
				for i := range tc.packets {
					if i > 0 {
						time.Sleep(tc.each)
					}
					w.Evaluate(syn(uint64(i), "203.0.113.1", 0))
					synctest.Wait()
				}
				if err := e.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tc.want, a.asked); diff != "" {
					t.Error(diff)
				}
				s, done := e.Stats(), e.GetActionStats()["actions_executed"]
				if int(done) != len(tc.want) || int(s.ActionsMerged)+len(tc.want) != tc.packets || s.ActionsDropped != 0 {
					t.Errorf("%d executed, %d merged, %d dropped of %d", done, s.ActionsMerged, s.ActionsDropped, tc.packets)
				}
			})
		})
	}
}

// TestHeldRequestsCount: what is held back takes room in the queue, nobody else
// waits for it, and it gets its turn.
func TestHeldRequestsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs, _ := mustLoad(t, "- {name: r, type: TCP, expression: SYN, actions: [{type: iptables_block}]}")
		a := &answering{begun: time.Now()}
		e := New(rs, Config{ActionQueue: 2})
		e.setBlocker(a)
		w := e.NewWorker()
		for _, src := range []string{"203.0.113.1", "203.0.113.2", "203.0.113.1", "203.0.113.3", "203.0.113.2", "203.0.113.4"} {
			w.Evaluate(syn(1, src, 0))
			synctest.Wait()
		}
		want := []string{"203.0.113.1 after 0s", "203.0.113.2 after 0s", "203.0.113.3 after 0s"}
		if diff := cmp.Diff(want, a.asked); diff != "" {
			t.Error(diff)
		}
		if s := e.Stats(); s.ActionsWaiting != 2 || s.ActionsDropped != 1 {
			t.Errorf("%d wait, %d dropped", s.ActionsWaiting, s.ActionsDropped)
		}
		time.Sleep(repeatPeriod)
		synctest.Wait()
		if diff := cmp.Diff(append(want, "203.0.113.1 after 1s", "203.0.113.2 after 1s"), a.asked); diff != "" {
			t.Error(diff)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
