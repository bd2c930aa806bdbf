package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/record"
)

// longBlock is a block that hurts whoever it hits wrongly.
const longBlock = time.Hour

// lintMeaning warns of options and expressions that do not do what they seem
// to.
func (b *ruleReader) lintMeaning() {
	r := b.rule
	if e, ok := b.fields["threshold_window"]; ok && r.Threshold <= 1 && r.DistinctThreshold == 0 {
		b.warnAt(e.key, "add threshold: 10, or leave it out", "threshold_window does nothing without threshold")
	}
	e, ok := b.fields["expression"]
	if !ok || len(r.matchers) < len(r.Types) {
		return
	}
	constant := func(t record.Type) string { return constantly(r.Conditions(t)) }
	switch {
	case all(r.Types, func(t record.Type) bool { return constant(t) == "true" }):
		b.warnAt(e.val, "every record matches", "the expression of %s is always true", b.label())
	case all(r.Types, func(t record.Type) bool { return constant(t) == "false" }):
		b.warnAt(e.val, "no record matches", "the expression of %s is never true", b.label())
	}
	b.lintUnfilled(e)
	b.lintConfirmed()
}

// lintUnfilled warns of an expression that reads what no decoder fills.
func (b *ruleReader) lintUnfilled(e entry) {
	for _, m := range b.rule.matchers {
		for _, name := range m.names {
			if record.IsUnfilled(m.record, name) {
				b.warnAt(e.val, "leave it out", "%s of %s is always empty: no decoder of this release fills it", name, m.record)
			}
		}
	}
}

func all(types []record.Type, ok func(record.Type) bool) bool {
	return !slices.ContainsFunc(types, func(t record.Type) bool { return !ok(t) })
}

// constantly is "true" or "false" where conditions are known to be that
// whatever the record, else empty.
func constantly(c record.Conditions) string {
	if len(c.Cases) == 0 {
		return "false"
	}
	if !c.Exact {
		return ""
	}
	for _, k := range c.Cases {
		if slices.ContainsFunc(k, func(t record.Test) bool { return t.Field != record.FieldFlags || c.Type != record.TypeTCP }) {
			return ""
		}
	}
	const everyFlag = 1 << 9
	for flags := range int64(everyFlag) {
		if !slices.ContainsFunc(c.Cases, func(k record.Case) bool {
			return !slices.ContainsFunc(k, func(t record.Test) bool { return !slices.Contains(t.Values, flags&t.Mask) })
		}) {
			return ""
		}
	}
	return "true"
}

// lintConfirmed warns where confirmed cannot do what it says.
func (b *ruleReader) lintConfirmed() {
	e, ok := b.fields["confirmed"]
	if !ok {
		return
	}
	r := b.rule
	streams := record.StreamTypes()
	switch {
	case r.Confirmed == ConfirmedNever && all(r.Types, streams.Has):
		b.warnAt(e.key, "", "confirmed: false lets forged packets of a stream that never was lead to blocks")
	case r.Confirmed == ConfirmedNever:
		b.warnAt(e.key, "", "confirmed: false does nothing: only records of TCP streams ask for a handshake by themselves")
	case r.Confirmed == ConfirmedAlways && all(r.Types, func(t record.Type) bool { return t != record.TypeTCP && !streams.Has(t) }):
		b.warnAt(e.key, "leave it out", "%s never counts anything: %s has no handshake that could be confirmed", b.label(), r.Types[0])
	case r.Confirmed == ConfirmedAlways && all(r.Types, func(t record.Type) bool { return t == record.TypeTCP && bareSYN(r.Conditions(t)) }):
		b.warnAt(e.key, "leave it out", "%s never counts anything: a SYN comes before the handshake is complete", b.label())
	}
}

// bareSYN reports whether the conditions ask for a SYN without ACK.
func bareSYN(c record.Conditions) bool {
	const syn, ack = int64(record.FlagSYN), int64(record.FlagACK)
	return len(c.Cases) > 0 && !slices.ContainsFunc(c.Cases, func(k record.Case) bool {
		return !slices.ContainsFunc(k, func(t record.Test) bool {
			return t.Field == record.FieldFlags && t.Mask&(syn|ack) == syn|ack && t.Values[0]&(syn|ack) == syn
		})
	})
}

// lintForgeable warns where one packet in another's name is enough to have
// that address blocked for long.
func (b *ruleReader) lintForgeable(e entry) {
	r := b.rule
	streams := record.StreamTypes()
	if r.Threshold > 1 || r.DistinctThreshold > 0 || r.Confirmed == ConfirmedAlways || all(r.Types, func(t record.Type) bool {
		return streams.Has(t) && t != record.TypeDNS
	}) {
		return
	}
	for i := range r.Actions {
		a := &r.Actions[i]
		if !a.Enabled || !a.blocks() || a.Target != backend.Source || !a.HasDuration || a.Duration > 0 && a.Duration < longBlock {
			continue
		}
		what := fmt.Sprintf("for %v", a.Duration)
		if a.Duration == 0 {
			what = "forever"
		}
		b.warnAt(e.key, "set a threshold, a shorter duration, or confirmed: true for TCP",
			"%s can be forged: one %s packet in anybody's name blocks that address %s", b.label(), r.Types[0], what)
		return
	}
}

// lintShadowed warns of rules that never add anything, because another rule
// with the same expression fires first and blocks for as long.
func (l *loader) lintShadowed() {
	for _, ref := range l.placed {
		r := ref.rule
		for _, p := range l.placed {
			if other := p.rule; other != r && shadows(other, r) {
				ref.file.warnAt(ref.node, "let it count something else, such as distinct_field: DstPort",
					"rule %q adds nothing: rule %q has the same expression, fires first and blocks as long", r.Name, other.Name)
				break
			}
		}
	}
}

// shadows reports whether a fires whenever b does, no later, and blocks the
// same address for as long.
func shadows(a, b *Rule) bool {
	if !a.Runs() || !b.Runs() || a.Expression != b.Expression || !slices.Equal(a.Types, b.Types) || a.TrackBy != b.TrackBy ||
		a.DistinctField != "" || b.DistinctField != "" || a.Sequence != nil || b.Sequence != nil || a.Confirmed != b.Confirmed {
		return false
	}
	low, high := max(1, a.Threshold), max(1, b.Threshold)
	if low > high || high > 1 && low > 1 && a.Window < b.Window || low == high && a.Window == b.Window && a.Line > b.Line {
		return false
	}
	blocked := false
	for i := range b.Actions {
		if !b.Actions[i].Enabled || !b.Actions[i].blocks() {
			continue
		}
		blocked = true
		if !slices.ContainsFunc(a.Actions, func(x Action) bool { return x.Enabled && outlasts(&x, &b.Actions[i]) }) {
			return false
		}
	}
	return blocked
}

// outlasts reports whether action a keeps out whom b does, for as long.
func outlasts(a, b *Action) bool {
	forever := func(x *Action) bool { return x.HasDuration && x.Duration == 0 }
	return a.Kind == b.Kind && a.Target == b.Target && len(a.Escalation) == 0 && len(b.Escalation) == 0 &&
		a.HasDuration == b.HasDuration && (forever(a) || !forever(b) && a.Duration >= b.Duration)
}
