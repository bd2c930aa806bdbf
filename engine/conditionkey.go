package engine

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/netcap-guard/netcap-guard/record"
)

// key returns what a node names, nil where it is no field, element or length
// that native code can read.
func (x *extractor) key(n ast.Node) *key {
	if !isPath(n) {
		return nil
	}
	name := n.String()
	if k, ok := x.keys[name]; ok {
		return k
	}
	v, err := x.lower.node(n)
	var k *key
	if err == nil && v.class != isPlace && v.class != isFloat {
		k = &key{name: name, value: v}
		if id, ok := n.(*ast.IdentifierNode); ok {
			k.field = id.Value
		}
	}
	x.keys[name] = k
	return k
}

// isPath reports whether a node is a field, or steps into one by names and
// constant indices, or asks for the length of such.
func isPath(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return true
	case *ast.MemberNode:
		_, constant := constantOf(n.Property)
		return constant && !n.Optional && isPath(n.Node)
	case *ast.BuiltinNode:
		return n.Name == "len" && len(n.Arguments) == 1 && isPath(n.Arguments[0])
	}
	return false
}

// literalKey is the key whose text holds every literal that the node's text
// holds, letter case aside; ascii: only what is ASCII in the literals.
func (x *extractor) literalKey(n ast.Node) (k *key, ascii bool) {
	for {
		b, ok := n.(*ast.BuiltinNode)
		if !ok || len(b.Arguments) != 1 || b.Name != "lower" && b.Name != "upper" && b.Name != "trim" {
			break
		}
		n, ascii = b.Arguments[0], ascii || b.Name != "trim"
	}
	if k = x.key(n); k != nil && k.value.class != isText && k.value.class != isBytes {
		return nil, false
	}
	return k, ascii
}

// contains: the text holds one of the parts.
func (x *extractor) contains(n ast.Node, parts []string, want bool) dnf {
	k, ascii := x.literalKey(n)
	if k == nil || !want {
		return always()
	}
	var literals []string
	for _, p := range parts {
		if ascii {
			p = longestASCII(p)
		}
		literals = append(literals, p)
	}
	return containsAny(k, literals)
}

// containsAny is the condition that a text holds one of the literals. A
// literal that says nothing makes it none.
func containsAny(k *key, literals []string) dnf {
	folded := make([]string, 0, len(literals))
	for _, s := range literals {
		f := string(record.Fold([]byte(s)))
		if f == "" || strings.ToValidUTF8(s, "") != s {
			return always()
		}
		folded = append(folded, f)
	}
	if len(folded) == 0 {
		return never().implied()
	}
	slices.Sort(folded)
	return one(atom{k, record.Test{Op: record.ContainsAny, Texts: slices.Compact(folded)}}).implied()
}

// longestASCII is the longest run of ASCII in s.
func longestASCII(s string) string {
	best := ""
	for _, run := range strings.FieldsFunc(s, func(r rune) bool { return r >= 0x80 }) {
		if len(run) > len(best) {
			best = run
		}
	}
	return best
}

func (x *extractor) matches(n ast.Node, pattern string, want bool) dnf {
	k, ascii := x.literalKey(n)
	if k == nil || !want {
		return always()
	}
	literals := patternLiterals(pattern)
	if ascii {
		for i := range literals {
			literals[i] = longestASCII(literals[i])
		}
	}
	if literals == nil {
		return always()
	}
	return containsAny(k, literals)
}

// call reads the helpers that compare with constants.
func (x *extractor) call(n *ast.CallNode, want bool) dnf {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok || len(n.Arguments) < 2 {
		return always()
	}
	switch id.Value {
	case "MatchesPattern":
		if pattern, ok := constantText(n.Arguments[1]); ok {
			return x.matches(n.Arguments[0], pattern, want)
		}
	case "Contains", "ContainsAny":
		if parts, ok := constantTexts(n.Arguments[1:]); ok {
			return x.contains(n.Arguments[0], parts, want)
		}
	case "PortInRange":
		k := x.key(n.Arguments[0])
		low, _ := constantOf(n.Arguments[1])
		high, _ := constantOf(n.Arguments[2])
		lo, okLow := low.(int)
		hi, okHigh := high.(int)
		if k != nil && okLow && okHigh {
			return x.unlessFault(n.Arguments[0], between(k, int64(lo), int64(hi), want))
		}
	case "InSubnet":
		return x.inSubnet(n, want)
	}
	return always()
}

func (x *extractor) inSubnet(n *ast.CallNode, want bool) dnf {
	k := x.key(n.Arguments[0])
	texts, ok := constantTexts(n.Arguments[1:])
	if k == nil || !ok || k.value.header == nil {
		return always()
	}
	t := record.Test{Op: record.Within}
	if !want {
		t.Op = record.NotWithin
	}
	var err error
	t.Prefixes = make([]netip.Prefix, len(texts))
	for i, text := range texts {
		if t.Prefixes[i], err = parsePrefix(text); err != nil {
			return always()
		}
	}
	return one(atom{k, t})
}

// mayFault reports whether evaluating an expression can be an error. What is
// not known for sure can.
func (x *extractor) mayFault(n ast.Node) bool {
	any := func(list ...ast.Node) bool { return slices.ContainsFunc(list, x.mayFault) }
	switch n := n.(type) {
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.StringNode, *ast.IdentifierNode:
		return false
	case *ast.UnaryNode:
		return any(n.Node)
	case *ast.BinaryNode:
		if n.Operator == "in" {
			if list, ok := n.Right.(*ast.ArrayNode); ok {
				return any(n.Left) || any(list.Nodes...)
			}
			if r, ok := n.Right.(*ast.BinaryNode); ok && r.Operator == ".." {
				_, err := x.lower.in(n)
				return err != nil || any(n.Left)
			}
		}
		return n.Operator == "%" || n.Operator == ".." || n.Operator == "??" || any(n.Left, n.Right)
	case *ast.MemberNode:
		id, ok := n.Node.(*ast.IdentifierNode)
		return !ok || !isDictionary(id.Type()) || x.mayFault(n.Property)
	case *ast.ConditionalNode:
		return any(n.Cond, n.Exp1, n.Exp2)
	case *ast.BuiltinNode:
		return !slices.Contains([]string{"len", "lower", "upper", "trim"}, n.Name) || any(n.Arguments...)
	case *ast.CallNode:
		id, ok := n.Callee.(*ast.IdentifierNode)
		return !ok || x.lower.helpers[id.Value] == nil || id.Value == "ParsePort" || faultsInArguments(n, x)
	}
	return true
}

// faultsInArguments looks at a call's arguments; a list of constants is none.
func faultsInArguments(n *ast.CallNode, x *extractor) bool {
	for _, arg := range n.Arguments {
		if list, ok := arg.(*ast.ArrayNode); ok {
			if slices.ContainsFunc(list.Nodes, x.mayFault) {
				return true
			}
		} else if x.mayFault(arg) {
			return true
		}
	}
	return false
}

// vocabulary is the conditions as others can use them: those on the record's
// own fields.
func (d dnf) vocabulary(t record.Type) record.Conditions {
	out := record.Conditions{Type: t, Exact: d.exact}
	for _, c := range d.cases {
		var tests record.Case
		flags := record.Test{Field: record.FieldFlags, Op: record.OneOf, Values: []int64{0}}
		contradiction := false
		for _, a := range c {
			bit := int64(0)
			if t == record.TypeTCP {
				bit = record.FlagBit(a.key.field)
			}
			switch {
			case a.key.field == "":
				out.Exact = false
			case bit != 0:
				on := a.Values[0] * bit
				contradiction = contradiction || flags.Mask&bit != 0 && flags.Values[0]&bit != on
				flags.Mask |= bit
				flags.Values[0] |= on
			default:
				test := a.Test
				test.Field = a.key.field
				tests = append(tests, test)
			}
		}
		if flags.Mask != 0 {
			tests = append(record.Case{flags}, tests...)
		}
		if !contradiction {
			out.Cases = append(out.Cases, tests)
		}
	}
	return out
}
