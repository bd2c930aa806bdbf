package engine

import (
	"math"
	"net/netip"
	"time"

	"github.com/netcap-guard/netcap-guard/record"
)

// Worker evaluates records for one goroutine. It must not be shared.
type Worker struct {
	engine *Engine
	env    env
	vm     machine
	layout *layout
	full   func() *record.Set
	match  func(*record.Set)
	found  candidates
	// opened are the marks of the packet under evaluation, group is memory for
	// their keys.
	opened []opened
	group  []byte
	// source is the keyed hash of the source address of the set under
	// evaluation, as soon as a rule has asked for it.
	source uint64
	hashed bool
	// expected is the address whose hash source is before the next evaluation,
	// not valid where there is none: one set serves for all packets, so that it
	// says nothing. touched keeps the compiler from leaving out what Expect reads.
	expected netip.Addr
	touched  uint64
	watch    stopwatch
}

// NewWorker makes a Worker for the calling goroutine. It follows every Reload.
func (e *Engine) NewWorker() *Worker {
	w := &Worker{engine: e, layout: newLayout(), vm: newMachine(), group: make([]byte, 0, 256), opened: make([]opened, 0, 16)}
	if e.cfg.Timing {
		w.watch = newStopwatch()
	}
	return w
}

// SetFull tells the Worker how to get the packet under evaluation with every
// field of every record filled: the decoders fill only what rules ask for, and
// an alert shows the whole record. f is called once an alert, from Evaluate;
// the set it returns is not kept. Nil, the default, shows what there is.
func (w *Worker) SetFull(f func() *record.Set) { w.full = f }

// SetMatched has f called for every match that counts, before anything comes of
// it. The set is not f's to keep.
func (w *Worker) SetMatched(f func(*record.Set)) { w.match = f }

// complete is the set with all fields of the record, if it can be had.
func (w *Worker) complete(t record.Type, set *record.Set) *record.Set {
	if w.full == nil {
		return set
	}
	if full := w.full(); full != nil && full.Have.Has(t) {
		return full
	}
	return set
}

// Evaluate looks at every record that set holds. A match counts for its rule;
// where that crosses a threshold, an alert and the rule's actions leave
// through the engine's queues. The set is not kept. Without a match Evaluate
// allocates nothing for native rules, and it never waits (but for the
// delivery itself with Config.Lossless).
func (w *Worker) Evaluate(set *record.Set) {
	a := w.engine.active.Load()
	if len(w.found.words) < a.words {
		w.found.words = make([]uint64, a.words) // after a Reload
	}
	w.hashed, w.expected = w.expected.IsValid() && w.expected == set.Src, noAddr()
	if w.engine.cfg.Timing {
		w.watch.packet()
	}
	have := set.Have & a.types
	for t := have.Next(); t != record.NoType; t = have.Next() {
		w.env = env{rec: w.layout.record(set, t), hdr: &set.Header}
		list, x := a.byType[t], a.index[t]
		if x == nil {
			for i := range list {
				w.evaluate(&list[i], set)
			}
			continue
		}
		if !x.collect(&w.env, &w.found) {
			continue
		}
		word := 0
		for i := w.found.next(&word); i >= 0; i = w.found.next(&word) {
			w.evaluate(&list[i], set)
		}
	}
	if len(w.opened) > 0 {
		w.flush(set.Time)
	}
}

// evaluate lets one rule have a look at the record. An evaluation error is no
// match, and counted.
func (w *Worker) evaluate(ev *evaluator, set *record.Set) {
	if ev.late != set.Late {
		return
	}
	if w.watch.running {
		w.timed(ev, func() { w.look(ev, set) })
		return
	}
	w.look(ev, set)
}

// look is evaluate without the clock.
func (w *Worker) look(ev *evaluator, set *record.Set) {
	if ev.native == nil || w.engine.cfg.Evaluation == EvaluateVM {
		switch ok, err := w.vm.run(ev.program, set.Record(ev.record)); {
		case err != nil:
			ev.state.errors.Add(1)
		case ok:
			w.matched(ev, set)
		}
		return
	}
	ok := ev.native(&w.env)
	if w.env.fault != noFault {
		w.env.fault = noFault
		ev.state.errors.Add(1)
		return
	}
	if ok {
		w.matched(ev, set)
	}
}

// matched counts a match and dispatches what it leads to.
func (w *Worker) matched(ev *evaluator, set *record.Set) {
	e, r, st := w.engine, ev.rule, ev.state
	st.matches.Add(1)
	h := &set.Header
	if !ev.admits(h) {
		st.unconfirmed.Add(1)
		return
	}
	if ev.follows != nil && !e.tracker.marked(w.groupKey(st.id, ev.follows), h.Time, int64(r.Sequence.Within)) {
		st.unpreceded.Add(1)
		return
	}
	if w.match != nil {
		w.match(set)
	}
	if ev.marks != nil {
		w.open(ev)
	}
	count, needed, alert := 1, 1, true
	switch {
	case ev.distinct != nil && r.Threshold > 1:
		var crossed bool
		count, crossed = e.tracker.hitDistinct(w.trackKey(ev, h), ev.distinct(&w.env), h.Time, int64(r.Window), r.Threshold, r.DistinctThreshold)
		if needed = r.DistinctThreshold; !crossed {
			needed = math.MaxInt
		}
	case ev.distinct != nil:
		needed = r.DistinctThreshold
		count = e.tracker.manyDistinct(w.trackKey(ev, h), ev.distinct(&w.env), h.Time, int64(r.Window), needed)
	case r.Threshold > 1:
		needed = r.Threshold
		count = e.tracker.hit(w.trackKey(ev, h), h.Time, int64(r.Window), needed)
	default:
		alert = e.tracker.merge(e.tracker.key(st.id, mergeAlerts, h.Src, h.Dst), h.Time, int64(alertMerge))
	}
	st.peak.raise(count, ev, h.Src, h.Dst)
	if count >= needed {
		w.dispatch(ev, set, count, alert)
	}
}

// alertMerge is how long equal alerts of a rule without a threshold are one.
const alertMerge = 5 * time.Minute

// trackKey names the counter that a record belongs to.
func (w *Worker) trackKey(ev *evaluator, h *record.Header) trackerKey {
	t := w.engine.tracker
	src, dst := h.Src, h.Dst
	switch ev.rule.TrackBy {
	case TrackDestination:
		src = noAddr()
	case TrackPair:
	case TrackRule:
		src, dst = noAddr(), noAddr()
	case TrackSource:
		dst = noAddr()
	}
	bits := orElse(ev.rule.trackBits, w.engine.cfg.IPv6Prefix)
	if bits != 0 && bits != 128 && (src.Is6() || dst.Is6()) {
		return w.engine.wideKey(ev.state.id, src, dst, bits)
	}
	if ev.rule.TrackBy != TrackSource {
		return t.key(ev.state.id, countMatches, src, dst)
	}
	if !w.hashed {
		w.source, w.hashed = t.hashAddrs(countMatches, src, dst), true
	}
	return keyOf(ev.state.id, w.source)
}

// wideKey is the key where IPv6 addresses count for the networks around them.
func (e *Engine) wideKey(rule uint32, src, dst netip.Addr, bits int) trackerKey {
	src, whole := e.widened(src, bits)
	dst, whole2 := e.widened(dst, bits)
	if whole || whole2 {
		return e.tracker.key(rule, countHosts, src, dst)
	}
	return e.tracker.key(rule, countMatches, src, dst)
}

// widened is the network that an IPv6 address counts for, or the address itself,
// and true, where it must not be blocked: what it does is not to have the rest
// of its network blocked.
func (e *Engine) widened(a netip.Addr, bits int) (netip.Addr, bool) {
	if !a.Is6() || a.Is4In6() {
		return a, false
	}
	if x := e.exempter.Load(); x != nil && (*x).Exempt(a) {
		return a.WithZone(""), true
	}
	return network(a, bits), false
}
