package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/record"
)

// Severity says how bad a match is.
type Severity uint8

// The severities; the zero Severity is medium, the default.
const (
	Medium Severity = iota
	Info
	Low
	High
	Critical
)

func severityNames() []string { return []string{"medium", "info", "low", "high", "critical"} }

// String is the severity's name in rules and events.
func (s Severity) String() string { return severityNames()[s] }

// ParseSeverity reads a severity in any case; the empty string is medium.
func ParseSeverity(s string) (Severity, bool) {
	if s == "" {
		return Medium, true
	}
	for i, n := range severityNames() {
		if strings.EqualFold(n, s) {
			return Severity(i), true
		}
	}
	return 0, false
}

// TrackBy says whose matches are counted together.
type TrackBy uint8

// What a rule counts by. The zero TrackBy is the source address.
const (
	TrackSource TrackBy = iota
	TrackDestination
	TrackPair // source and destination together
	TrackRule // all matches of the rule together
)

func trackNames() []string { return []string{"source", "destination", "pair", "rule"} }

// String is the name as rules spell it.
func (t TrackBy) String() string { return trackNames()[t] }

// ActionKind is what an action does.
type ActionKind uint8

// The actions of the specification.
const (
	ActionBlock ActionKind = iota
	ActionReject
	ActionLog
	ActionRateLimit
)

func actionNames() []string {
	return []string{"iptables_block", "iptables_reject", "iptables_log", "iptables_rate_limit"}
}

// String is the action's name in rules and events, the same on every backend.
func (k ActionKind) String() string { return actionNames()[k] }

// Action is one action of a rule.
type Action struct {
	Kind    ActionKind
	Enabled bool
	Target  backend.Target
	// Duration is how long the block lasts, 0 = permanent. Where HasDuration
	// is false the rule names none and the default duration holds.
	Duration    time.Duration
	HasDuration bool
	// Reset: a reject answers TCP with a reset.
	Reset bool
	// Escalation, where it is not empty, stands for Duration: how long the
	// first, second ... block of an address within EscalationMemory lasts, 0 =
	// permanent. An EscalationMemory of 0 is the firewall's default.
	Escalation       []time.Duration
	EscalationMemory time.Duration
	// Limit of a rate limit.
	Limit backend.Limit
	// Prefix of a log; Kernel: a kernel log rule is made as well.
	Prefix string
	Kernel bool
	// IPv6Prefix is the length of the IPv6 prefix that is blocked instead of
	// the single address, 0 = the address.
	IPv6Prefix int
}

// blocks reports whether the action asks the firewall for something.
func (a *Action) blocks() bool { return a.Kind != ActionLog }

// subject is what the action blocks of an address: the host, or its IPv6
// prefix. fallback is the prefix length of the whole engine.
func (a *Action) subject(addr netip.Addr, fallback int) netip.Prefix {
	return subject(addr, orElse(a.IPv6Prefix, fallback))
}

func orElse(n, fallback int) int {
	if n != 0 {
		return n
	}
	return fallback
}

// subject is a host's prefix, or the IPv6 prefix of the given length around
// it (0 = the host).
func subject(addr netip.Addr, bits int) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() || bits == 0 {
		return netip.PrefixFrom(addr, addr.BitLen())
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

// Rule is one detection rule, checked and compiled. It is immutable; its
// slices belong to the rule set and must not be changed.
type Rule struct {
	Name, Description string
	Types             []record.Type
	// Expression as written, without the surrounding blanks.
	Expression string
	Severity   Severity
	// Threshold matches within Window raise an alert; 0 and 1: every match.
	Threshold int
	Window    time.Duration
	TrackBy   TrackBy
	// DistinctField and DistinctThreshold: so many different values of the field
	// within Window. With a Threshold above 1 both have to be reached.
	DistinctField     string
	DistinctThreshold int
	// Confirmed says for which packets and records a full TCP handshake must
	// have been seen.
	Confirmed Confirmed
	// Sequence is nil for a rule that stands for itself.
	Sequence    *Sequence
	Tags, MITRE []string
	Actions     []Action
	Enabled     bool
	// File and Line say where the rule stands.
	File string
	Line int

	trackBits int // IPv6 prefix length of the tracked address, 0 = the address or the engine's
	unserved  []string
	matchers  []*matcher
	limits    []limitAt // of its actions, where they stand
}

// Native reports whether the expression runs as compiled closures for every
// record type of the rule. A rule that does not runs in the expression VM,
// which costs some hundred nanoseconds and allocations a record.
func (r *Rule) Native() bool {
	for _, m := range r.matchers {
		if m.native == nil {
			return false
		}
	}
	return len(r.matchers) > 0
}

// Unserved names what the rule asks for that this release does not do: record
// types that no decoder emits, options that are not executed. The slice is
// the caller's.
func (r *Rule) Unserved() []string { return append([]string(nil), r.unserved...) }

// Runs reports whether the rule is evaluated: it is enabled, at least one of
// its record types is served, and no option of it is unserved.
func (r *Rule) Runs() bool {
	if !r.Enabled || len(r.unserved) > 0 {
		return false
	}
	for _, t := range r.Types {
		if t.Served() {
			return true
		}
	}
	return false
}

// Match evaluates the rule's expression on the set's record of one of the
// rule's types, whether or not the rule runs: it is how rules are tried out.
// It counts nothing and allocates; the error says why the expression has no
// answer for this record.
func (r *Rule) Match(t record.Type, set *record.Set) (bool, error) {
	for _, m := range r.matchers {
		if m.record != t {
			continue
		}
		if m.native == nil {
			vm := newMachine()
			return vm.run(m.program, set.Record(t))
		}
		e := env{rec: newLayout().record(set, t), hdr: &set.Header}
		ok := m.native(&e)
		return ok && e.fault == noFault, e.fault.err()
	}
	return false, fmt.Errorf("rule %q is not for %s records", r.Name, t)
}

// Conditions is what the rule's expression implies for one of its types, in
// the vocabulary that filters are made of. Where the rule has no such type,
// nothing matches, and nothing is the answer.
func (r *Rule) Conditions(t record.Type) record.Conditions {
	for _, m := range r.matchers {
		if m.record == t {
			return m.when.vocabulary(t)
		}
	}
	return record.Conditions{Type: t, Exact: true}
}

// signature is equal for two rules that mean the same, wherever they stand:
// what a reload compares.
func (r *Rule) signature() string {
	return fmt.Sprintf("%q %q %v %q %v %d %v %v %q %d %v %v %q %q %+v %v", r.Name, r.Description, r.Types,
		r.Expression, r.Severity, r.Threshold, r.Window, r.TrackBy, r.DistinctField, r.DistinctThreshold,
		r.Confirmed, r.Sequence, r.Tags, r.MITRE, r.Actions, r.Enabled)
}

// RuleSet is what Load made of the sources: immutable, and safe for use by
// any number of goroutines.
type RuleSet struct {
	rules []*Rule
}

// Rules lists every rule, disabled and unserved ones included, in the order
// of the files. The slice is the caller's.
func (s *RuleSet) Rules() []*Rule { return append([]*Rule(nil), s.rules...) }

// Want is what the decoders must fill for the rules that run.
func (s *RuleSet) Want() record.Want { return s.want(false) }

// want is Want; the VM reads every field that an expression names.
func (s *RuleSet) want(vm bool) record.Want {
	var w record.Want
	for _, r := range s.rules {
		if !r.Runs() {
			continue
		}
		w.Handshakes = w.Handshakes || r.Confirmed == ConfirmedAlways
		for _, m := range r.matchers {
			if !m.record.Served() {
				continue
			}
			w.Add(m.record, m.fields...)
			if vm {
				w.Add(m.record, m.names...)
			}
			for _, f := range append(s.sequenceFields(r), r.DistinctField) {
				if f != "" && headerAddress(m.record, f) == nil {
					w.Add(m.record, f)
				}
			}
		}
	}
	return w
}
