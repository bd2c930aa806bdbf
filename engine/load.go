package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/record"
)

// Limits on a rule set.
const (
	maxRules      = 10_000
	maxActions    = 16 // a rule
	maxExpression = 16 << 10
	maxThreshold  = 100_000
	maxDistinct   = 100_000
	maxTextLength = 4096
	defaultWindow = time.Minute
	maxWindow     = 366 * 24 * time.Hour
)

// loader collects the rules of all sources.
type loader struct {
	report Report
	rules  []*Rule
	names  map[string]string // rule name -> where it stands
	// backend is what is to enforce the actions; empty = not settled yet.
	backend string
	// sequences names the rules that sequence.after must find.
	sequences []sequenceRef
	placed    []placedRule
}

// placedRule is a rule without a mistake and where it stands.
type placedRule struct {
	file *file
	node *yaml.Node
	rule *Rule
}

// sequenceRef is a sequence.after to be looked at once all rules are read:
// where it and its group_by stand (nil without one), and in which rule.
type sequenceRef struct {
	file        *file
	node, group *yaml.Node
	rule        *Rule
}

// Load reads, checks and compiles the rules of all sources. Every mistake of
// every file is in the Report; the RuleSet is nil if there is any.
// What only some backends can express is a warning.
func Load(sources ...Source) (*RuleSet, Report) { return LoadFor("", sources...) }

// LoadFor is Load for the named backend, as firewall.BackendNFT and
// BackendIPTables: what it cannot express is a mistake. Any other name is a
// backend that is not settled yet.
func LoadFor(backendName string, sources ...Source) (*RuleSet, Report) {
	l := &loader{names: map[string]string{}, backend: backendName}
	for _, s := range sources {
		if s.read == nil {
			continue
		}
		docs, problems := s.read()
		l.report.Errors = append(l.report.Errors, problems...)
		for _, d := range docs {
			f := newFile(d, &l.report)
			l.load(f)
			if more := f.errors - maxProblems; more > 0 {
				f.report.Errors = append(f.report.Errors, Problem{File: f.name, Line: len(f.lines), Column: 1,
					Message: fmt.Sprintf("%d more problems in this file are not shown", more)})
			}
		}
	}
	l.checkSequences()
	l.lintShadowed()
	sortByPosition(l.report.Errors)
	sortByPosition(l.report.Warnings)
	if len(l.report.Errors) > 0 {
		return nil, l.report
	}
	return &RuleSet{rules: l.rules}, l.report
}

func (l *loader) load(f *file) {
	top := f.parse()
	if top == nil || top.Tag == "!!null" {
		return
	}
	list := top
	if top.Kind == yaml.MappingNode {
		fields, _ := f.mapping(top, "the file", []string{"rules"}, func(key string) string {
			if contains(ruleKeys(), key) {
				return "a rule is an item of a list: begin it with a dash, or put it under rules:"
			}
			return ""
		})
		rules, ok := fields["rules"]
		if !ok {
			return
		}
		list = rules.val
	}
	if list.Kind != yaml.SequenceNode {
		f.errorAt(list, "write rules: and below it a list, each rule with a dash", "rules must be a list, not %s", describe(list))
		return
	}
	for _, n := range list.Content {
		if n = f.resolve(n); n == nil {
			return
		}
		if len(l.rules) >= maxRules {
			f.errorAt(n, "", "more than %d rules", maxRules)
			return
		}
		if r := l.rule(f, n); r != nil {
			l.rules = append(l.rules, r)
		}
	}
}

func ruleKeys() []string {
	return []string{"name", "description", "type", "expression", "severity", "threshold", "threshold_window",
		"track_by", "distinct_field", "distinct_threshold", "sequence", "confirmed", "actions", "enabled", "tags", "mitre"}
}

// rule reads one rule. It returns nil if the node is no mapping; what is wrong
// inside is reported, and the rest of the rule is checked all the same.
func (l *loader) rule(f *file, n *yaml.Node) *Rule {
	before := f.errors
	fields, ok := f.mapping(n, "the rule", ruleKeys(), misplacedInRule)
	if !ok {
		return nil
	}
	r := &Rule{Enabled: true, Window: defaultWindow, File: f.name, Line: n.Line}
	b := &ruleReader{loader: l, file: f, node: n, fields: fields, rule: r}
	b.name()
	b.texts()
	b.types()
	b.threshold()
	b.actions()
	b.tracking()
	b.options()
	b.expression()
	if f.errors == before {
		b.lint() // of half a rule it would warn of what is not so
		l.placed = append(l.placed, placedRule{f, n, r})
	}
	return r
}

func misplacedInRule(key string) string {
	if contains(allOptionKeys(), key) {
		return key + " is an option of an action: it stands under the action's config:"
	}
	return ""
}

// ruleReader reads the keys of one rule into it.
type ruleReader struct {
	*loader
	*file
	node   *yaml.Node
	fields map[string]entry
	rule   *Rule
}

func (b *ruleReader) missing(key string) {
	b.errorAt(b.node, "", "%s has no %s", b.label(), key)
}

// label names the rule in a message.
func (b *ruleReader) label() string {
	if b.rule.Name != "" {
		return fmt.Sprintf("rule %q", b.rule.Name)
	}
	return "the rule"
}

func (b *ruleReader) name() {
	e, ok := b.fields["name"]
	if !ok {
		b.missing("name")
		return
	}
	name, ok := b.text(e)
	if !ok {
		return
	}
	name = strings.TrimSpace(name)
	switch {
	case name == "":
		b.errorAt(e.val, "", "name is empty")
		return
	case len(name) > backend.MaxRuleName:
		b.errorAt(e.val, "the kernel's comments have no room for more", "name is %d bytes long, at most %d are allowed",
			len(name), backend.MaxRuleName)
	}
	for _, c := range name {
		if !unicode.IsPrint(c) {
			b.errorAt(e.val, "", "name holds the unprintable character %q", c)
			break
		}
	}
	if where, ok := b.names[name]; ok {
		b.errorAt(e.val, "", "the name %q is taken by the rule at %s", name, where)
	} else {
		b.names[name] = fmt.Sprintf("%s:%d", b.file.name, e.val.Line)
	}
	b.rule.Name = name
}

func (b *ruleReader) texts() {
	r := b.rule
	if e, ok := b.fields["description"]; ok {
		if s, ok := b.text(e); ok {
			r.Description = strings.TrimSpace(shorten(s, maxTextLength))
		}
	}
	if e, ok := b.fields["severity"]; ok {
		if s, ok := b.text(e); ok {
			if r.Severity, ok = ParseSeverity(s); !ok || s == "" {
				b.errorAt(e.val, didYouMean(s, []string{"info", "low", "medium", "high", "critical"}), "unknown severity %q", s)
			}
		}
	}
	if e, ok := b.fields["enabled"]; ok {
		r.Enabled, _ = b.boolean(e)
	}
	if e, ok := b.fields["tags"]; ok {
		r.Tags = b.file.texts(e)
	}
	if e, ok := b.fields["mitre"]; ok {
		r.MITRE = b.file.texts(e)
	}
}

func (b *ruleReader) types() {
	e, ok := b.fields["type"]
	if !ok {
		b.missing("type")
		return
	}
	s, ok := b.text(e)
	if !ok {
		return
	}
	types, ok := record.ParseType(strings.TrimSpace(s))
	if !ok {
		b.errorAt(e.val, didYouMean(strings.TrimPrefix(s, "NC_"), typeNames()), "unknown record type %q", s)
		return
	}
	b.rule.Types = types
}

func typeNames() []string {
	names := []string{"ICMP", "TLS"}
	for _, t := range record.Types() {
		names = append(names, t.String())
	}
	return names
}

// checkSequences finds the rules that sequences name: they must be there,
// hold the fields of the group, and run.
func (l *loader) checkSequences() {
	for _, ref := range l.sequences {
		name := ref.rule.Sequence.After
		i := slices.IndexFunc(l.rules, func(r *Rule) bool { return r.Name == name })
		if i < 0 {
			hint := ""
			if w := closest(name, slices.Sorted(maps.Keys(l.names))); w != "" {
				hint = "did you mean " + w + "?"
			}
			ref.file.errorAt(ref.node, hint, "sequence.after: there is no rule %q", name)
			continue
		}
		after := l.rules[i]
		if ref.group != nil {
			b := &ruleReader{loader: l, file: ref.file, rule: after}
			for _, f := range ref.rule.Sequence.GroupBy {
				b.recordField(ref.group, fmt.Sprintf("group_by (records of %q)", name), f, groupable)
			}
		}
		if ref.rule.Enabled && !after.Runs() {
			ref.file.warnAt(ref.node, "", "rule %q never fires: rule %q, which has to match before, does not run", ref.rule.Name, name)
		}
	}
}
