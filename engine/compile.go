package engine

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	exprfile "github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"github.com/netcap-guard/netcap-guard/record"
)

// maxNodes bounds an expression's size after parsing.
const maxNodes = 2000

// matcher is a rule's expression, compiled for one record type. It is
// immutable.
type matcher struct {
	record record.Type
	// native is nil where the expression cannot be lowered; slow says why.
	native  func(*env) bool
	slow    string
	program *vm.Program
	// fields are the record's fields that an evaluation reads; names are all
	// that the expression mentions.
	fields, names []string
	// when is what the expression implies.
	when dnf
}

func (m *matcher) uses(name string) bool { return slices.Contains(m.names, name) }

// exprError is a mistake in an expression.
type exprError struct {
	offset        int // in characters
	message, hint string
}

func (e *exprError) Error() string { return e.message }

// compile parses, checks and lowers an expression for a record type. The
// error is an *exprError.
func compile(t record.Type, source string) (*matcher, error) {
	typ := reflect.TypeOf(t.New()).Elem()
	byName := map[string]*helper{}
	consts := newConstants()
	options := []expr.Option{
		expr.Env(reflect.Zero(typ).Interface()), expr.AsBool(), expr.WarnOnAny(),
		expr.MaxNodes(maxNodes),
		// What the rule says is what runs: no rewriting, so that the VM and
		// the closures start from one tree.
		expr.Optimize(false),
		// Detection runs on packet time.
		expr.DisableBuiltin("now"),
		expr.Patch(&clockPatcher{helpers: byName, field: clockField(typ)}),
	}
	list := helpers()
	for i := range list {
		h := &list[i]
		byName[h.name] = h
		options = append(options, expr.Function(h.name, func(args ...any) (any, error) { return h.run(consts, args) }, h.result))
	}
	program, err := expr.Compile(source, options...)
	if err != nil {
		return nil, translate(err, source, typ, byName)
	}
	check := &checker{consts: consts, helpers: byName, typ: typ, names: map[string]bool{}}
	root := program.Node()
	ast.Walk(&root, check)
	if check.err != nil {
		return nil, check.err
	}
	m := &matcher{record: t, program: program, names: slices.Sorted(maps.Keys(check.names))}
	l := &lowerer{record: t, typ: typ, consts: consts, helpers: byName, fields: map[string]bool{}}
	keys := *l
	keys.fields = map[string]bool{} // what the index reads the expression reads, too
	m.when = (&extractor{lower: &keys, keys: map[string]*key{}}).conditions(root)
	if m.native, err = l.lower(root); err != nil {
		m.native, m.slow = nil, err.Error()
		m.fields = m.names
		return m, nil
	}
	m.fields = slices.Sorted(maps.Keys(l.fields))
	return m, nil
}

// clockField is the record's own time.
func clockField(t reflect.Type) string {
	if _, ok := t.FieldByName("Timestamp"); ok {
		return "Timestamp"
	}
	return "TimestampLast"
}

// checker walks a checked tree once more: it checks the helpers' arguments
// and notes the fields that are named.
type checker struct {
	consts  *constants
	helpers map[string]*helper
	typ     reflect.Type
	names   map[string]bool
	err     *exprError
}

// Visit implements ast.Visitor.
func (c *checker) Visit(n *ast.Node) {
	if c.err != nil {
		return
	}
	switch n := (*n).(type) {
	case *ast.IdentifierNode:
		if _, ok := c.typ.FieldByName(n.Value); ok {
			c.names[n.Value] = true
		}
		if n.Value == "$env" {
			c.fail(n, errors.New("$env is not allowed; name the field"))
		}
	case *ast.CallNode:
		id, ok := n.Callee.(*ast.IdentifierNode)
		if !ok {
			return
		}
		if h := c.helpers[id.Value]; h != nil {
			if at, err := h.checkCall(c.consts, n); err != nil {
				c.fail(at, err)
			}
		}
	case *ast.BinaryNode:
		if n.Operator != "matches" {
			return
		}
		pattern, ok := constantText(n.Right)
		if !ok {
			c.fail(n.Right, errors.New("the pattern of matches must be a constant text"))
			return
		}
		if _, err := c.consts.pattern(pattern); err != nil {
			c.fail(n.Right, err)
		}
	}
}

func (c *checker) fail(at ast.Node, err error) {
	c.err = &exprError{offset: at.Location().From, message: err.Error()}
}

// translate turns expr-lang's errors, which are text, into ours. It is the
// one place that reads that text.
func translate(err error, source string, typ reflect.Type, functions map[string]*helper) *exprError {
	out := &exprError{message: err.Error()}
	if fe, ok := errors.AsType[*exprfile.Error](err); ok {
		out.offset, out.message = fe.From, fe.Message
	}
	out.message = strings.ReplaceAll(out.message, "record.", "")
	if m := regexp.MustCompile(`^unknown name (\w+)$`).FindStringSubmatch(out.message); m != nil {
		out.message = fmt.Sprintf("%s has no field %q", typ.Name(), m[1])
		out.hint = didYouMean(m[1], fieldNames(typ))
		if rest := []rune(source)[out.offset:]; strings.HasPrefix(string(rest), m[1]+"(") {
			out.message = fmt.Sprintf("there is no function %q", m[1])
			out.hint = didYouMean(m[1], slices.Sorted(maps.Keys(functions)))
		}
		if m[1] == "now" {
			out.hint = "rules run on packet time: Timestamp, HourOfDay(), DurationSince(time)"
		}
	}
	if strings.Contains(out.message, `Operator("=")`) {
		out.hint = "compare with =="
	}
	if m := regexp.MustCompile(`^type \*?(\w+) has no field (\w+)$`).FindStringSubmatch(out.message); m != nil {
		out.message = fmt.Sprintf("%s has no field %q", m[1], m[2])
		if sub := reachable(typ, m[1]); sub != nil {
			out.hint = didYouMean(m[2], fieldNames(sub))
		}
	}
	if m := regexp.MustCompile(`^expected bool, but got (.*)$`).FindStringSubmatch(out.message); m != nil {
		out.message = fmt.Sprintf("the expression yields %s, not true or false", m[1])
		out.hint = "compare it with something"
	}
	out.message = strings.Join(strings.Fields(out.message), " ")
	return out
}

// reachable finds the struct type of a name among a record's sub-records.
func reachable(t reflect.Type, name string) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	if t.Name() == name {
		return t
	}
	for i := range t.NumField() {
		if found := reachable(t.Field(i).Type, name); found != nil {
			return found
		}
	}
	return nil
}

// expression reads and compiles the rule's expression for each of its types.
func (b *ruleReader) expression() {
	e, ok := b.fields["expression"]
	if !ok {
		b.missing("expression")
		return
	}
	if column, ok := b.trapped[e.val.Line]; ok {
		b.tagTrap(e.val.Line, column)
		return
	}
	if strings.HasPrefix(e.val.Tag, "!") && !strings.HasPrefix(e.val.Tag, "!!") {
		b.tagTrap(e.val.Line, e.val.Column)
		return
	}
	source, ok := b.text(e)
	if !ok {
		return
	}
	if strings.TrimSpace(source) == "" {
		b.errorAt(e.val, "", "expression is empty")
		return
	}
	if len(source) > maxExpression {
		b.errorAt(e.val, "", "expression is longer than %d bytes", maxExpression)
		return
	}
	b.rule.Expression = strings.TrimSpace(source)
	for _, t := range b.rule.Types {
		m, err := compile(t, source)
		if ee, ok := errors.AsType[*exprError](err); ok {
			line, column := b.locate(e.val, source, ee.offset)
			b.add(line, column, ee.hint, "expression: %s", ee.message)
			return
		}
		b.rule.matchers = append(b.rule.matchers, m)
		if m.native == nil {
			b.warnAt(e.val, "it costs some hundred nanoseconds a record", "%s runs in the slow expression VM because of %s", b.label(), m.slow)
		}
	}
}
