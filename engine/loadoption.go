package engine

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/record"
)

// threshold reads when the rule fires.
func (b *ruleReader) threshold() {
	r := b.rule
	if e, ok := b.fields["threshold"]; ok {
		r.Threshold, _ = b.integer(e, 0, maxThreshold)
	}
	if e, ok := b.fields["threshold_window"]; ok {
		if d, ok := b.duration(e, time.Second); ok {
			switch {
			case d == 0:
				b.errorAt(e.val, "", "threshold_window must be longer than 0")
			case d > maxWindow:
				b.errorAt(e.val, "", "threshold_window is longer than %d days", int(maxWindow/(24*time.Hour)))
			default:
				r.Window = d
			}
		}
	}
}

// tracking reads whose matches are counted together. Absent, it is the side
// that the actions target.
func (b *ruleReader) tracking() {
	r := b.rule
	targets := map[backend.Target]bool{}
	for i := range r.Actions {
		if a := &r.Actions[i]; a.blocks() {
			targets[a.Target] = true
			if a.IPv6Prefix != 0 && (r.trackBits == 0 || a.IPv6Prefix < r.trackBits) {
				r.trackBits = a.IPv6Prefix
			}
		}
	}
	if targets[backend.Destination] && !targets[backend.Source] {
		r.TrackBy = TrackDestination
	}
	e, ok := b.fields["track_by"]
	if !ok {
		return
	}
	s, ok := b.text(e)
	if !ok {
		return
	}
	i := slices.Index(trackNames(), s)
	if i < 0 {
		b.errorAt(e.val, didYouMean(s, trackNames()), "unknown track_by %q", s)
		return
	}
	r.TrackBy = TrackBy(i)
}

// options reads distinct_field, distinct_threshold, confirmed and sequence.
func (b *ruleReader) options() {
	b.distinct()
	if e, ok := b.fields["confirmed"]; ok {
		if v, ok := b.boolean(e); ok && v {
			b.rule.Confirmed = ConfirmedAlways
		} else if ok {
			b.rule.Confirmed = ConfirmedNever
		}
	}
	if e, ok := b.fields["sequence"]; ok {
		b.sequence(e)
	}
}

func (b *ruleReader) distinct() {
	r := b.rule
	field, hasField := b.fields["distinct_field"]
	count, hasCount := b.fields["distinct_threshold"]
	if hasField != hasCount {
		b.errorAt(b.node, "", "%s: distinct_field and distinct_threshold need each other", b.label())
	}
	if hasField {
		if s, ok := b.text(field); ok {
			b.recordField(field.val, "distinct_field", s, func(t reflect.Type) string {
				if isInteger(t.Kind()) || t.Kind() == reflect.String {
					return ""
				}
				return "must be a number or a text"
			})
			r.DistinctField = s
		}
	}
	if hasCount {
		r.DistinctThreshold, _ = b.integer(count, 2, maxDistinct)
		if r.Threshold > 1 && r.DistinctThreshold >= r.Threshold {
			b.warnAt(count.key, "leave threshold out, or raise it above distinct_threshold",
				"%s: threshold %d adds nothing: %d different values take as many matches", b.label(), r.Threshold, r.DistinctThreshold)
		}
	}
}

// recordField checks that every record type of the rule has a field; fits
// says what is wrong with its type.
func (b *ruleReader) recordField(n *yaml.Node, what, name string, fits func(reflect.Type) string) {
	for _, t := range b.rule.Types {
		rec := reflect.TypeOf(t.New()).Elem()
		f, ok := rec.FieldByName(name)
		if !ok {
			b.errorAt(n, didYouMean(name, fieldNames(rec)), "%s: %s has no field %q", what, t, name)
			return
		}
		if problem := fits(f.Type); problem != "" {
			b.errorAt(n, "", "%s: %s.%s %s", what, t, name, problem)
			return
		}
	}
}

func fieldNames(t reflect.Type) []string {
	names := make([]string, 0, t.NumField())
	for i := range t.NumField() {
		names = append(names, t.Field(i).Name)
	}
	return names
}

// sequence reads `sequence: {after: RULE, group_by: [fields], within: seconds}`.
func (b *ruleReader) sequence(e entry) {
	fields, ok := b.mapping(e.val, "sequence", []string{"after", "group_by", "within"}, nil)
	if !ok {
		return
	}
	q := &Sequence{}
	b.rule.Sequence = q
	after, hasAfter := fields["after"]
	if !hasAfter {
		b.errorAt(e.val, "", "sequence has no after")
	} else if s, ok := b.text(after); ok {
		q.After = s
	}
	if within, ok := fields["within"]; !ok {
		b.errorAt(e.val, "", "sequence has no within")
	} else if d, ok := b.duration(within, time.Second); ok {
		if d == 0 || d > maxWindow {
			b.errorAt(within.val, "", "within must be longer than 0 and at most %d days", int(maxWindow/(24*time.Hour)))
		}
		q.Within = d
	}
	ref := sequenceRef{file: b.file, node: after.val, rule: b.rule}
	if group, ok := fields["group_by"]; ok {
		ref.group = group.val
		for _, name := range b.file.texts(group) {
			b.recordField(group.val, "group_by", name, groupable)
			q.GroupBy = append(q.GroupBy, name)
		}
	}
	if hasAfter {
		b.sequences = append(b.sequences, ref)
	}
}

// lint warns of what is no mistake but probably not meant.
func (b *ruleReader) lint() {
	r := b.rule
	var missing []string
	for _, t := range r.Types {
		if !t.Served() {
			missing = append(missing, t.String())
		}
	}
	if e, ok := b.fields["type"]; ok && len(missing) > 0 {
		if len(missing) == len(r.Types) {
			r.unserved = append(r.unserved, fmt.Sprintf("record type %s", missing[0]))
		}
		b.warnAt(e.val, "the rule is checked but does not run", "rule %q is not yet served: no decoder of this release emits %s records", r.Name, strings.Join(missing, " or "))
	}
	b.lintMeaning()
	if !r.Enabled {
		return
	}
	e, ok := b.fields["actions"]
	if !ok || !b.blocksAnyone() {
		return
	}
	if r.Threshold <= 1 && r.DistinctThreshold == 0 {
		b.warnAt(e.key, "set a threshold, or make sure that the source cannot be forged",
			"%s blocks on a single match", b.label())
	}
	b.lintForgeable(e)
	if r.TrackBy == TrackRule && (r.Threshold > 1 || r.DistinctThreshold > 0) {
		b.warnAt(e.key, "track by source", "%s counts all addresses together and blocks the one that comes last", b.label())
	}
	if slices.ContainsFunc(r.Types, func(t record.Type) bool { return t == record.TypeDNS || t == record.TypeNTP }) {
		b.lintDirection(e)
	}
}

// blocksAnyone reports whether an enabled action keeps an address out.
func (b *ruleReader) blocksAnyone() bool {
	return slices.ContainsFunc(b.rule.Actions, func(a Action) bool { return a.Enabled && a.blocks() })
}

// lintDirection warns where the source of an answer, which is the resolver or
// the time server, could be blocked.
func (b *ruleReader) lintDirection(e entry) {
	targetsSource := slices.ContainsFunc(b.rule.Actions, func(a Action) bool {
		return a.Enabled && a.blocks() && a.Target == backend.Source
	})
	if !targetsSource || len(b.rule.matchers) == 0 {
		return
	}
	m := b.rule.matchers[0]
	switch {
	case m.record == record.TypeDNS && !m.uses("QR"):
		b.warnAt(e.key, "add !QR to the expression", "%s does not ask for the direction: the source of a DNS answer is the resolver", b.label())
	case m.record == record.TypeNTP && !m.uses("Mode") && !m.uses("ModeName"):
		b.warnAt(e.key, "ask for Mode", "%s does not ask for the direction: the source of an NTP answer is the server", b.label())
	}
}
