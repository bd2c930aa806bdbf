package engine

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/record"
)

// counts are the engine's own counters, written from several goroutines.
type counts struct {
	executed, success, failed, blocked   atomic.Uint64
	skipped, mergedActions, mergedAlerts atomic.Uint64
	droppedAlerts, droppedActions        atomic.Uint64
	alertErrors                          atomic.Uint64
}

// job is one action to run.
type job struct {
	rule   *Rule
	state  *ruleState
	action int // index in rule.Actions
	addr   netip.Addr
	prefix netip.Prefix // addr, or the IPv6 prefix around it
	header record.Header
	count  int
}

// jobKey is what makes two requests one while they wait.
type jobKey struct {
	rule   uint32
	action int
	prefix netip.Prefix
}

func (j job) key() jobKey { return jobKey{j.state.id, j.action, j.prefix} }

// kind is the kind of the job's action.
func (j job) kind() ActionKind { return j.rule.Actions[j.action].Kind }

// dispatch sends off the alert and the actions of a rule that fired: in order
// where they are carried out at once, else the actions first, because to put an
// alert together takes time in which the attacker goes on.
func (w *Worker) dispatch(ev *evaluator, set *record.Set, count int, alert bool) {
	e := w.engine
	if e.cfg.Lossless {
		e.inline.Lock()
		defer e.inline.Unlock()
		w.alert(ev, set, count, alert)
		w.act(ev, set, count)
		return
	}
	w.act(ev, set, count)
	w.alert(ev, set, count, alert)
}

// alert sends off the alert, if it is not one with an earlier one.
func (w *Worker) alert(ev *evaluator, set *record.Set, count int, alert bool) {
	if !alert {
		w.engine.counts.mergedAlerts.Add(1)
		return
	}
	ev.state.alerts.Add(1)
	w.engine.sendAlert(newAlert(ev, set, w.complete(ev.record, set), count))
}

// act sends off the actions.
func (w *Worker) act(ev *evaluator, set *record.Set, count int) {
	e := w.engine
	for i := range ev.rule.Actions {
		a := &ev.rule.Actions[i]
		if !a.Enabled || a.blocks() && set.Via.IsValid() {
			continue // the packets are a trusted proxy's
		}
		j := job{rule: ev.rule, state: ev.state, action: i, header: set.Header, count: count}
		if addr := targetOf(a, &set.Header); addr.IsValid() {
			j.addr, j.prefix = addr, a.subject(addr, e.cfg.IPv6Prefix)
		}
		e.sendAction(j)
	}
}

func targetOf(a *Action, h *record.Header) netip.Addr {
	if a.Target == backend.Destination {
		return h.Dst
	}
	return h.Src
}

func (e *Engine) sendAlert(a *Alert) {
	if e.cfg.Lossless {
		e.deliver(a)
		return
	}
	if e.alerts.put(a, jobKey{}) == refused {
		e.counts.droppedAlerts.Add(1)
	}
}

func (e *Engine) sendAction(j job) {
	if e.cfg.Lossless {
		e.run(j)
		return
	}
	if j.kind() == ActionLog {
		// A queue of their own, never merged: whoever floods the log must not
		// keep a block from being made.
		if e.logs.put(j, jobKey{}) == refused {
			e.counts.droppedActions.Add(1)
		}
		return
	}
	switch e.actions.put(j, j.key()) {
	case refused:
		e.counts.droppedActions.Add(1)
	case merged:
		e.counts.mergedActions.Add(1)
	case queued:
	}
}

// newAlert takes what decides from set, and the record to show from full.
func newAlert(ev *evaluator, set, full *record.Set, count int) *Alert {
	r := ev.rule
	threshold := r.Threshold
	if r.DistinctThreshold > 0 {
		threshold = r.DistinctThreshold
	}
	return &Alert{
		Time: packetTime(set.Time), Rule: r.Name, Description: r.Description, Severity: r.Severity,
		Tags: r.Tags, MITRE: r.MITRE, Record: ev.record,
		Src: set.Src, Dst: set.Dst, SrcPort: set.SrcPort, DstPort: set.DstPort, Via: set.Via, Proto: set.Proto,
		Count: count, Threshold: threshold, Window: r.Window,
		Fields: full.Snapshot(ev.record), Packet: set.Packet,
	}
}

func packetTime(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// deliver hands one alert to the writer.
func (e *Engine) deliver(a *Alert) {
	if e.cfg.Alerts == nil {
		return
	}
	if err := e.cfg.Alerts.WriteAlert(a); err != nil {
		if e.counts.alertErrors.Add(1) == 1 { // the rest are counted: a flood of alerts is no flood of warnings
			e.cfg.Logger.Warn("alert not written", "rule", a.Rule, "error", err)
		}
	}
}

func (j *job) match() Match {
	h := &j.header
	return Match{Time: packetTime(h.Time), Rule: j.rule.Name, Src: h.Src, Dst: h.Dst,
		SrcPort: h.SrcPort, DstPort: h.DstPort, Proto: h.Proto, Packet: h.Packet}
}

// run executes one action.
func (e *Engine) run(j job) {
	a := &j.rule.Actions[j.action]
	if j.kind() == ActionLog {
		e.runLog(&j, a)
		return
	}
	before := e.revision() // what is lifted from here on is seen in the next one
	b := e.firewall(&j)
	if b == nil {
		return
	}
	req := e.request(&j, a)
	ev := ActionEvent{Match: j.match(), Kind: a.Kind, Prefix: j.prefix, Target: a.Target, Duration: req.Duration, Limit: a.Limit}
	ev.Result, ev.Err = e.ask(b, &j, req)
	switch res := &ev.Result; {
	case ev.Err == nil && res.Outcome == firewall.Whitelisted:
		ev.Prefix = req.Prefix // the address is, not the network around it
	case ev.Err == nil && len(req.Escalation) > 0:
		ev.Duration = ev.life()
	}
	e.count(ev.Err)
	if ev.Err == nil && ev.Result.Outcome == firewall.Created && req.Action.Stops() {
		e.counts.blocked.Add(1)
	}
	if e.cfg.OnAction != nil {
		e.cfg.OnAction(ev)
	}
	if !e.cfg.Lossless && ev.lasts() {
		e.actions.answered(j.key(), before)
	}
}

// lasts reports whether a block is in force, and asking again has little to
// change for a while.
func (ev *ActionEvent) lasts() bool {
	if ev.Err != nil {
		return false
	}
	switch ev.Result.Outcome {
	case firewall.Created, firewall.Extended, firewall.Duplicate:
		end := ev.Result.Block.ExpiresAt
		return end.IsZero() || time.Until(end) >= repeatLife
	case firewall.Whitelisted, firewall.Refused, firewall.Failed:
	}
	return false
}

func (e *Engine) count(err error) {
	e.counts.executed.Add(1)
	if err != nil {
		e.counts.failed.Add(1)
		return
	}
	e.counts.success.Add(1)
}

// runLog tells of a match, and asks for a kernel log rule where there is to
// be one.
func (e *Engine) runLog(j *job, a *Action) {
	ev := LogEvent{Match: j.match(), Prefix: a.Prefix}
	if b := e.kernelLog(j, a); b != nil {
		var res firewall.Result
		if res, ev.Err = e.ask(b, j, e.request(j, a)); ev.Err != nil {
			ev.Err = fmt.Errorf("kernel log rule: %w", ev.Err)
		}
		ev.Kernel = ev.Err == nil && res.Outcome != firewall.Whitelisted
	}
	e.count(ev.Err)
	if e.cfg.OnLog != nil {
		e.cfg.OnLog(ev)
	}
}

// kernelLog is the firewall that is asked for a kernel log rule; nil where
// there is to be none.
func (e *Engine) kernelLog(j *job, a *Action) blocker {
	if !a.Kernel {
		return nil
	}
	return e.firewall(j)
}

// firewall is who carries an action out; nil, counted and said once a rule,
// where nobody does.
func (e *Engine) firewall(j *job) blocker {
	if b := e.blocker.Load(); b != nil {
		return *b
	}
	e.counts.skipped.Add(1)
	if !j.state.warned.Swap(true) {
		e.cfg.Logger.Warn("no firewall manager: actions of this rule are skipped", "rule", j.rule.Name)
	}
	return nil
}

// ask has the firewall do what a job wants, if the record has an address to do
// it to.
func (e *Engine) ask(b blocker, j *job, req firewall.Request) (firewall.Result, error) {
	if !j.prefix.IsValid() {
		return firewall.Result{Outcome: firewall.Failed}, fmt.Errorf("%w: the record carries no %s address", backend.ErrInvalid, req.Target)
	}
	return b.Block(e.ctx(), req)
}

// life is how long the block in force lasts, 0 = for good: from its beginning
// where it was made just now, else from the match on, in whole seconds.
func (ev *ActionEvent) life() time.Duration {
	b := &ev.Result.Block
	switch {
	case b.ExpiresAt.IsZero():
		return 0
	case ev.Result.Outcome == firewall.Created:
		return b.ExpiresAt.Sub(b.CreatedAt).Round(time.Millisecond)
	}
	return max(b.ExpiresAt.Sub(ev.Time).Round(time.Second), time.Second)
}

// request is what an action asks of the firewall. The firewall is told the
// address and how wide to go: an address that must not be blocked has not its
// prefix blocked either.
func (e *Engine) request(j *job, a *Action) firewall.Request {
	req := firewall.Request{
		Prefix: j.prefix, Target: a.Target, Action: backend.Drop, Limit: a.Limit,
		Duration: e.cfg.DefaultDuration, Escalation: a.Escalation, EscalationMemory: a.EscalationMemory,
		Rule: j.rule.Name, Reason: reason(j), At: packetTime(j.header.Time), ByRule: true,
	}
	if j.addr.IsValid() {
		req.Prefix = backend.Host(j.addr.WithZone(""))
		req.IPv6Prefix = orElse(a.IPv6Prefix, e.cfg.IPv6Prefix)
	}
	if a.HasDuration {
		req.Duration = a.Duration
	}
	if len(a.Escalation) > 0 {
		req.Duration = a.Escalation[0] // what is told of a block that is not made
	}
	switch a.Kind {
	case ActionReject:
		req.Action = backend.Reject
		if a.Reset {
			req.Action = backend.RejectReset
		}
	case ActionRateLimit:
		req.Action = backend.RateLimit
	case ActionLog:
		req.Action, req.LogPrefix = backend.Log, a.Prefix
	case ActionBlock:
	}
	return req
}

// reason is what the block's comment says: "50 in 10s", "20 DstPort in 1m0s",
// or "match".
func reason(j *job) string {
	r := j.rule
	switch {
	case r.DistinctThreshold > 0:
		return fmt.Sprintf("%d %s in %v", j.count, r.DistinctField, r.Window)
	case r.Threshold > 1:
		return fmt.Sprintf("%d in %v", j.count, r.Window)
	}
	return "match"
}
