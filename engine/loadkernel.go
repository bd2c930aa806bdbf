package engine

import (
	"errors"
	"math"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
)

// escalation reads the durations of repeated blocks, which stand for duration.
func (b *ruleReader) escalation(a *Action, options map[string]entry) {
	memory, hasMemory := options["escalation_memory"]
	if hasMemory {
		d, ok := b.duration(memory, time.Minute)
		if ok && d == 0 {
			b.errorAt(memory.val, "leave it out for the default, 30d", "escalation_memory must be longer than 0")
		}
		a.EscalationMemory = d
	}
	e, ok := options["escalation"]
	switch {
	case !ok && hasMemory:
		b.warnAt(memory.key, "add escalation: [10m, 1h, 24h, 7d]", "escalation_memory does nothing without escalation")
		return
	case !ok:
		return
	case a.HasDuration:
		b.warnAt(options["duration"].key, "the first step is how long the first block lasts", "duration does nothing beside escalation")
	}
	if e.val.Kind != yaml.SequenceNode || len(e.val.Content) == 0 || len(e.val.Content) > maxEscalation {
		b.errorAt(e.val, "for example [10m, 1h, 24h, 7d]", "escalation must be a list of 1 to %d durations", maxEscalation)
		return
	}
	for _, n := range e.val.Content {
		if n = b.resolve(n); n == nil {
			return
		}
		d, ok := b.duration(entry{e.key, n}, time.Minute)
		if before := len(a.Escalation) - 1; ok && before >= 0 && !longer(d, a.Escalation[before]) {
			b.warnAt(n, "0 is permanent", "the steps of escalation do not grow")
		}
		a.Escalation = append(a.Escalation, d)
	}
}

// longer compares two lives of a block, of which 0 is permanent.
func longer(a, b time.Duration) bool { return b != 0 && (a == 0 || a > b) }

func (b *ruleReader) logOptions(a *Action, options map[string]entry) {
	if e, ok := options["kernel"]; ok {
		a.Kernel, _ = b.boolean(e)
	}
	if e, ok := options["prefix"]; ok {
		s, ok := b.text(e)
		if ok && len(s) > maxLogPrefix {
			b.errorAt(e.val, "", "prefix is longer than %d bytes", maxLogPrefix)
		} else if err := backend.CheckLogPrefix(s); ok && a.Kernel && err != nil {
			b.errorAt(e.val, "printable text without quotes, backslashes and $",
				"the kernel cannot carry the prefix: %v", err)
		}
		a.Prefix = s
	}
	if a.Kernel {
		return
	}
	for _, key := range []string{"duration", "target", "ipv6_prefix"} {
		if e, ok := options[key]; ok {
			b.warnAt(e.key, "", "%s does nothing in a log without kernel: true", key)
		}
	}
}

// rateOptions reads rate and burst; n is where the action's type stands.
func (b *ruleReader) rateOptions(a *Action, n *yaml.Node, options map[string]entry) {
	burst, at := defaultBurst, n
	if e, ok := options["burst"]; ok {
		if burst, ok = b.integer(e, 1, math.MaxUint32); !ok {
			burst = defaultBurst // the rate is looked at all the same
		}
	}
	rate := defaultRate
	if e, ok := options["rate"]; ok {
		s, ok := b.text(e)
		if !ok {
			return
		}
		rate, at = s, e.val
	}
	limit, err := backend.ParseLimit(rate, int64(burst))
	if err != nil {
		hint := ""
		if n, _, _ := strings.Cut(rate, "/"); strings.Trim(n, "0 ") == "" && n != "" {
			hint = "iptables_block lets nothing through"
		}
		b.errorAt(at, hint, "%v", err)
		return
	}
	a.Limit = limit
	b.rule.limits = append(b.rule.limits, limitAt{limit, at.Line, at.Column})
	b.checkLimit(limit, at)
}

// limitAt is a rate limit and where it stands.
type limitAt struct {
	backend.Limit
	line, column int
}

// checkLimit reports that a backend cannot express a limit: as an error where
// it is the backend that is asked for, or none can; as a warning where another
// may be chosen.
func (b *ruleReader) checkLimit(limit backend.Limit, at *yaml.Node) {
	var errs []error
	for _, name := range b.backends() {
		if err := backend.CheckLimit(name, limit); err != nil {
			errs = append(errs, err)
		}
	}
	for _, err := range errs {
		if len(errs) == len(b.backends()) {
			b.errorAt(at, "", "%v", err)
		} else {
			b.warnAt(at, "choose the other backend, or the rule cannot be used", "%v", err)
		}
	}
}

// backends are those that may enforce what the rules ask for.
func (l *loader) backends() []string {
	switch l.backend {
	case firewall.BackendNFT, firewall.BackendIPTables:
		return []string{l.backend}
	}
	return []string{firewall.BackendNFT, firewall.BackendIPTables}
}

// CheckBackend says what a backend cannot express of the rules, those included
// that do not run: nil, or an error that joins a Problem for each place.
func (s *RuleSet) CheckBackend(name string) error {
	var errs []error
	for _, r := range s.rules {
		for _, at := range r.limits {
			if err := backend.CheckLimit(name, at.Limit); err != nil {
				errs = append(errs, Problem{File: r.File, Line: at.line, Column: at.column, Message: err.Error()})
			}
		}
	}
	return errors.Join(errs...)
}
