package engine

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/netcap-guard/netcap-guard/backend"
)

const (
	defaultLogPrefix = "NETCAP: " // of the specification page
	maxLogPrefix     = 64
	maxEscalation    = 16
	defaultRate      = "10/minute" // of the specification page, as is the burst
	defaultBurst     = 5
)

// optionKeys are the keys under config: of each kind of action.
func optionKeys(k ActionKind) []string {
	switch k {
	case ActionReject:
		return []string{"target", "duration", "reject_with", "escalation", "escalation_memory", "ipv6_prefix"}
	case ActionLog:
		return []string{"prefix", "kernel", "duration", "target", "ipv6_prefix"}
	case ActionRateLimit:
		return []string{"rate", "burst", "target", "duration", "escalation", "escalation_memory", "ipv6_prefix"}
	}
	return []string{"target", "duration", "escalation", "escalation_memory", "ipv6_prefix"}
}

func allOptionKeys() []string {
	var all []string
	for k := range actionNames() {
		all = append(all, optionKeys(ActionKind(k))...)
	}
	return all
}

func (b *ruleReader) actions() {
	e, ok := b.fields["actions"]
	if !ok {
		return
	}
	if e.val.Kind != yaml.SequenceNode {
		b.errorAt(e.val, "begin each action with a dash: - type: iptables_block", "actions must be a list, not %s", describe(e.val))
		return
	}
	if len(e.val.Content) > maxActions {
		b.errorAt(e.val, "", "more than %d actions", maxActions)
		return
	}
	for _, n := range e.val.Content {
		if n = b.resolve(n); n == nil {
			return
		}
		b.action(n)
	}
}

// action reads one action and appends it to the rule.
func (b *ruleReader) action(n *yaml.Node) {
	fields, ok := b.mapping(n, "the action", []string{"type", "config", "enabled"}, func(key string) string {
		if contains(allOptionKeys(), key) {
			return "options of an action stand under its config:"
		}
		return ""
	})
	if !ok {
		return
	}
	a := Action{Enabled: true}
	if e, ok := fields["enabled"]; ok {
		a.Enabled, _ = b.boolean(e)
	}
	e, ok := fields["type"]
	if !ok {
		b.errorAt(n, "for example type: iptables_block", "the action has no type")
		return
	}
	kind, ok := b.actionKind(e)
	if !ok {
		return
	}
	a.Kind = kind
	if kind == ActionLog {
		a.Prefix = defaultLogPrefix
	}
	options := map[string]entry{}
	if config, ok := fields["config"]; ok {
		options, _ = b.mapping(config.val, "config of "+kind.String(), optionKeys(kind), nil)
	}
	b.targetOptions(&a, options)
	b.kindOptions(&a, e.val, options)
	b.rule.Actions = append(b.rule.Actions, a)
	b.checkBlockable(e.val, &a)
}

func (b *ruleReader) actionKind(e entry) (ActionKind, bool) {
	s, ok := b.text(e)
	if !ok {
		return 0, false
	}
	names := actionNames()
	if i := slices.Index(names, s); i >= 0 {
		return ActionKind(i), true
	}
	hint := didYouMean(s, names)
	if contains([]string{"drop", "deny", "ban"}, strings.ToLower(s)) {
		hint = "did you mean iptables_block?"
	} else if w := closest("iptables_"+s, names); w != "" {
		hint = "did you mean " + w + "?"
	}
	b.errorAt(e.val, hint, "unknown action type %q", s)
	return 0, false
}

// targetOptions reads what block, reject, rate limit and kernel log share.
func (b *ruleReader) targetOptions(a *Action, options map[string]entry) {
	if e, ok := options["target"]; ok {
		if s, ok := b.text(e); ok {
			t, err := backend.ParseTarget(s)
			if err != nil || s == "" {
				b.errorAt(e.val, didYouMean(s, []string{"source", "destination"}), "unknown target %q", s)
			}
			a.Target = t
		}
	}
	if e, ok := options["duration"]; ok {
		a.Duration, a.HasDuration = b.duration(e, time.Minute)
	}
	if e, ok := options["ipv6_prefix"]; ok {
		a.IPv6Prefix, _ = b.integer(e, 1, 128)
	}
	b.escalation(a, options)
}

// kindOptions reads the options that only one kind of action has.
func (b *ruleReader) kindOptions(a *Action, n *yaml.Node, options map[string]entry) {
	switch a.Kind {
	case ActionReject:
		b.rejectOptions(a, options)
	case ActionLog:
		b.logOptions(a, options)
	case ActionRateLimit:
		b.rateOptions(a, n, options)
	case ActionBlock:
	}
}

func (b *ruleReader) rejectOptions(a *Action, options map[string]entry) {
	e, ok := options["reject_with"]
	if !ok {
		return
	}
	s, ok := b.text(e)
	if !ok {
		return
	}
	known := []string{"tcp-reset", "icmp-port-unreachable"}
	switch s {
	case "tcp-reset":
		a.Reset = true
	case "icmp-port-unreachable", "icmp6-port-unreachable":
	default:
		b.errorAt(e.val, didYouMean(s, known), "unknown reject_with %q", s)
	}
}

// checkBlockable refuses an action on an address that the record has not.
func (b *ruleReader) checkBlockable(n *yaml.Node, a *Action) {
	if !a.blocks() && !a.Kernel {
		return
	}
	for _, t := range b.rule.Types {
		if !t.Blockable() {
			b.errorAt(n, "use iptables_log, or a rule on IPv4 or IPv6 records", "%s records carry no IP address that %s could act on", t, a.Kind)
			return
		}
	}
}
