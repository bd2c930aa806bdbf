package engine

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits within one rule file.
const (
	maxVisits   = 200_000 // nodes looked at, aliases followed included
	maxProblems = 500     // reported before the rest is only counted
)

// file is one rule file while it is being read.
type file struct {
	name   string
	lines  []string // as written
	report *Report
	visits int
	errors int
	// trapped holds the lines whose `expression: !…` was quoted to get past
	// the YAML parser.
	trapped map[int]int // line -> column of the !
}

func newFile(d document, report *Report) *file {
	text := strings.TrimPrefix(string(d.data), "\ufeff")
	return &file{name: d.name, lines: strings.Split(text, "\n"), report: report, trapped: map[int]int{}}
}

func (f *file) add(line, column int, hint, format string, args ...any) {
	f.errors++
	if f.errors > maxProblems {
		return
	}
	f.report.Errors = append(f.report.Errors, Problem{
		// YAML places an empty value behind the last line.
		File: f.name, Line: min(line, len(f.lines)), Column: column, Message: fmt.Sprintf(format, args...), Hint: hint,
		source: f.lines[min(line, len(f.lines))-1],
	})
}

// errorAt reports a mistake at a node.
func (f *file) errorAt(n *yaml.Node, hint, format string, args ...any) {
	f.add(n.Line, n.Column, hint, format, args...)
}

// warnAt reports something that is no mistake but probably not meant.
func (f *file) warnAt(n *yaml.Node, hint, format string, args ...any) {
	f.report.Warnings = append(f.report.Warnings, Problem{
		File: f.name, Line: n.Line, Column: n.Column, Message: fmt.Sprintf(format, args...), Hint: hint,
		source: f.lines[min(n.Line, len(f.lines))-1],
	})
}

// parse returns the document's top node, nil when there is none or it cannot
// be parsed (which has been reported then).
func (f *file) parse() *yaml.Node {
	top, err := parseYAML(strings.Join(f.lines, "\n"))
	if err != nil {
		repaired := f.quoteTagged()
		if len(f.trapped) == 0 {
			f.syntaxError(err)
			return nil
		}
		if top, err = parseYAML(repaired); err != nil {
			for line, column := range f.trapped {
				f.tagTrap(line, column)
			}
			f.syntaxError(err)
			return nil
		}
	}
	return top
}

func parseYAML(text string) (*yaml.Node, error) {
	dec := yaml.NewDecoder(strings.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if isEmpty(text) {
			return nil, nil
		}
		return nil, err
	}
	if dec.Decode(&more) == nil {
		return nil, fmt.Errorf("yaml: line %d: a second document begins here", more.Line)
	}
	return doc.Content[0], nil
}

// isEmpty reports whether a file holds nothing but comments.
func isEmpty(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line != "---" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

// syntaxError reports what the YAML parser said. Its position exists only in
// its text ("yaml: line 3: …"), and only as a line.
func (f *file) syntaxError(err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, msg, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, text = n, msg
			}
		}
	}
	hint := ""
	switch {
	case strings.Contains(text, "cannot start any token"):
		hint = "indent with spaces, not tabs; quote values that begin with @, ` or %"
	case fromParser(text):
		// The parser, unlike its scanner, counts lines from 0, and names the
		// line on which the construct begins.
		if line > 1 || strings.Contains(err.Error(), "line 1: ") {
			line++
		}
		hint = "look for the mistake, often in the indentation, in what begins here"
	}
	line = min(line, len(f.lines))
	l := f.lines[line-1]
	f.add(line, 1+len(l)-len(strings.TrimLeft(l, " \t")), hint, "not valid YAML: %s", text)
}

// fromParser tells the YAML parser's own messages from its scanner's.
func fromParser(text string) bool {
	missing, ok := strings.CutPrefix(text, "did not find expected ")
	return ok && contains([]string{"<document start>", "node content", "'-' indicator", "key", "',' or ']'", "',' or '}'"}, missing)
}

// taggedExpression finds the trap of the specification's own style:
// `expression: !QR && …` on one line, where YAML takes !QR for a tag.
func taggedExpression() *regexp.Regexp {
	return regexp.MustCompile(`^(\s*(?:-\s+)?expression\s*:\s+)(!.*)$`)
}

// quoteTagged puts quotes around the expressions that YAML takes for tags, so
// that the rest of the file can be checked in the same go.
func (f *file) quoteTagged() string {
	pattern := taggedExpression()
	out := make([]string, len(f.lines))
	for i, l := range f.lines {
		out[i] = l
		if m := pattern.FindStringSubmatch(strings.TrimRight(l, "\r")); m != nil {
			out[i] = m[1] + "'" + strings.ReplaceAll(m[2], "'", "''") + "'"
			f.trapped[i+1] = len([]rune(m[1])) + 1
		}
	}
	return strings.Join(out, "\n")
}

func (f *file) tagTrap(line, column int) {
	f.add(line, column, `write it in quotes, or as a block: expression: | and the expression on the next line`,
		"YAML takes the ! at the beginning of this expression for a tag")
}

// resolve follows an alias. It returns nil, having reported it, once the
// file's budget of nodes is used up, which is what an alias bomb runs into.
func (f *file) resolve(n *yaml.Node) *yaml.Node {
	f.visits++
	if f.visits == maxVisits {
		f.errorAt(n, "", "the file is too large: aliases expand it to more than %d nodes", maxVisits)
	}
	if f.visits >= maxVisits {
		return nil
	}
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// entry is one key of a mapping with its value; val is resolved.
type entry struct {
	key, val *yaml.Node
}

// mapping reads a mapping whose keys must be among known. Problems are
// reported; misplaced may explain a key that is known elsewhere. A key with a
// null value is left out. It returns false if n is no mapping at all.
func (f *file) mapping(n *yaml.Node, what string, known []string, misplaced func(key string) string) (map[string]entry, bool) {
	if n.Kind != yaml.MappingNode {
		f.errorAt(n, "", "%s must be a mapping of keys and values, not %s", what, describe(n))
		return nil, false
	}
	fields := make(map[string]entry, len(n.Content)/2)
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := f.resolve(n.Content[i]), f.resolve(n.Content[i+1])
		if key == nil || val == nil {
			return fields, true
		}
		if line, ok := seen[key.Value]; ok {
			f.errorAt(key, "", "%s appears twice in %s, first on line %d", key.Value, what, line)
			continue
		}
		seen[key.Value] = key.Line
		if !contains(known, key.Value) || key.Kind != yaml.ScalarNode {
			f.unknownKey(key, what, known, misplaced)
			continue
		}
		if val.Tag != "!!null" {
			fields[key.Value] = entry{key, val}
		}
	}
	return fields, true
}

func (f *file) unknownKey(key *yaml.Node, what string, known []string, misplaced func(string) string) {
	hint := ""
	if misplaced != nil {
		hint = misplaced(key.Value)
	}
	if key.Value == "<<" {
		hint = "merge keys are not supported; repeat the keys, or use an alias for a whole value"
	}
	if hint == "" {
		hint = didYouMean(key.Value, known)
	}
	f.errorAt(key, hint, "unknown key %q in %s", key.Value, what)
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// describe names a node's kind for an error message.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	}
	return strconv.Quote(shorten(n.Value, 40))
}

// shorten cuts s to n characters for a message.
func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}
