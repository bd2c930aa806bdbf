package engine

import (
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/netcap-guard/netcap-guard/record"
)

// active is a rule set in force: the rules that run, by record type.
type active struct {
	set    *RuleSet
	types  record.Mask
	byType [record.NumTypes][]evaluator
	// index is nil where there are too few rules to be worth it.
	index  [record.NumTypes]*index
	words  int                   // of the largest index
	states map[string]*ruleState // by signature
}

// evaluator is one rule on one record type.
type evaluator struct {
	*matcher
	rule  *Rule
	state *ruleState
	// distinct reads the value of distinct_field, nil without one.
	distinct func(*env) uint64
	proof    proof
	// late: the rule reads fields that only the second record of its subject
	// has (record.LateFields).
	late bool
	// marks are the ways that a match opens; follows is the group for which
	// the rule's own way must be open, nil without a sequence.
	marks   []mark
	follows []reader
}

// countsSources reports whether the rule counts matches by their source address.
func (ev *evaluator) countsSources() bool {
	return ev.rule.Threshold > 1 && ev.rule.TrackBy == TrackSource && ev.distinct == nil
}

// ruleState is what outlives a reload that leaves the rule as it is.
type ruleState struct {
	id uint32 // names the rule in the tracker's keys; never used twice
	// matches, alerts and errors are written by all workers.
	matches, alerts, errors atomic.Uint64
	// unconfirmed and unpreceded are matches that did not count: no handshake
	// was seen, the rule that comes first did not match before.
	unconfirmed, unpreceded atomic.Uint64
	nanoseconds             atomic.Uint64
	peak                    peak
	// warned: the missing firewall manager was reported.
	warned atomic.Bool
}

// activate prepares the rules that run; unchanged rules keep the state they
// have in before.
func (e *Engine) activate(rs *RuleSet, before *active) *active {
	a := &active{set: rs, states: make(map[string]*ruleState, len(rs.rules))}
	for _, r := range rs.rules {
		if !r.Runs() {
			continue
		}
		sig := r.signature()
		state := &ruleState{id: e.nextID.Add(1)}
		if before != nil && before.states[sig] != nil {
			state = before.states[sig]
		}
		a.states[sig] = state
		for _, m := range r.matchers {
			if !m.record.Served() {
				continue
			}
			ev := evaluator{matcher: m, rule: r, state: state, proof: e.proofOf(r),
				late: record.Late(m.record, slices.Concat(m.names, []string{r.DistinctField})...)}
			if r.DistinctField != "" {
				ev.distinct = distinctReader(m.record, r.DistinctField, e.tracker)
			}
			a.types |= record.Of(m.record)
			a.byType[m.record] = append(a.byType[m.record], ev)
		}
	}
	a.connect(rs)
	if e.cfg.Evaluation == EvaluateIndexed {
		for t, list := range a.byType {
			if len(list) > 0 {
				a.index[t] = newIndex(list)
				a.words = max(a.words, a.index[t].words)
			}
		}
	}
	return a
}

// distinctReader returns the keyed hash of a record's field as a function:
// what distinct_field counts.
func distinctReader(t record.Type, field string, tr *tracker) func(*env) uint64 {
	f, _ := reflect.TypeOf(t.New()).Elem().FieldByName(field)
	if addr := headerAddress(t, field); addr != nil {
		return func(e *env) uint64 {
			raw := addr(e).As16()
			return tr.hashBytes(raw[:])
		}
	}
	if load := intLoader(f.Type.Kind()); load != nil {
		return func(e *env) uint64 { return uint64(load(e.rec.at(f.Offset))) }
	}
	return func(e *env) uint64 { return tr.hashText(e.rec.at(f.Offset).text()) }
}
