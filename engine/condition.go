package engine

import (
	"math"
	"net/netip"
	"slices"

	"github.com/expr-lang/expr/ast"

	"github.com/netcap-guard/netcap-guard/record"
)

// maxCases bounds the conditions of one expression.
const maxCases = 64

// key is what conditions are about: a field of the record, an element or the
// length of one. Two rules that look at the same thing have keys of one name.
type key struct {
	name  string // the expression's own text
	field string // the record's field, "" where it is a part of one
	value value
}

// atom is one comparison of a key with constants, in the vocabulary of
// record.Test.
type atom struct {
	key *key
	record.Test
}

// dnf is a disjunction of conjunctions of atoms, taken from an expression.
// Where none of its cases holds, the expression is false, and evaluating it is
// no fault: so a rule that is passed over counts exactly what it would have
// counted. exact says the same of the other direction.
type dnf struct {
	cases [][]atom
	exact bool
}

func always() dnf    { return dnf{cases: [][]atom{nil}} }
func never() dnf     { return dnf{exact: true} }
func one(a atom) dnf { return dnf{cases: [][]atom{{a}}, exact: true} }

func (d dnf) or(e dnf) dnf {
	if len(d.cases)+len(e.cases) > maxCases {
		return always()
	}
	return dnf{slices.Concat(d.cases, e.cases), d.exact && e.exact}
}

func (d dnf) and(e dnf) dnf {
	if len(d.cases)*len(e.cases) > maxCases {
		// One side alone is implied, too: the one with fewer cases says more.
		if len(d.cases) <= len(e.cases) {
			return d.implied()
		}
		return e.implied()
	}
	out := dnf{exact: d.exact && e.exact}
	for _, x := range d.cases {
		for _, y := range e.cases {
			out.cases = append(out.cases, slices.Concat(x, y))
		}
	}
	return out
}

func (d dnf) implied() dnf { return dnf{cases: d.cases} }

// extractor takes conditions from a checked expression.
type extractor struct {
	lower *lowerer
	keys  map[string]*key
}

// conditions returns what an expression implies.
func (x *extractor) conditions(n ast.Node) dnf { return x.node(n, true) }

// node returns the conditions under which a boolean expression yields want.
func (x *extractor) node(n ast.Node, want bool) dnf {
	switch n := n.(type) {
	case *ast.BoolNode:
		if n.Value == want {
			return dnf{cases: [][]atom{nil}, exact: true}
		}
		return never()
	case *ast.UnaryNode:
		if n.Operator == "!" || n.Operator == "not" {
			return x.node(n.Node, !want)
		}
	case *ast.BinaryNode:
		return x.binary(n, want)
	case *ast.ConditionalNode:
		if !x.mayFault(n.Cond) {
			yes := x.node(n.Cond, true).and(x.node(n.Exp1, want))
			return yes.or(x.node(n.Cond, false).and(x.node(n.Exp2, want)))
		}
	case *ast.CallNode:
		return x.call(n, want)
	case *ast.IdentifierNode, *ast.MemberNode:
		if k := x.key(n); k != nil && k.value.class == isBool {
			return one(atom{k, record.Test{Op: record.OneOf, Values: []int64{boolInt(want)}}})
		}
	}
	return always()
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (x *extractor) binary(n *ast.BinaryNode, want bool) dnf {
	switch n.Operator {
	case "&&", "and":
		return x.junction(n, want, want)
	case "||", "or":
		return x.junction(n, want, !want)
	case "==", "!=", "<", "<=", ">", ">=":
		return x.compare(n, want)
	case "in":
		return x.in(n, want)
	case "contains", "startsWith", "endsWith":
		if part, ok := constantText(n.Right); ok {
			return x.contains(n.Left, []string{part}, want)
		}
	case "matches":
		if pattern, ok := constantText(n.Right); ok {
			return x.matches(n.Left, pattern, want)
		}
	}
	return always()
}

// junction joins the conditions of both sides. Where both must hold, those of
// the second count only if evaluating the first cannot be a fault: a packet
// on which it is must not be passed over.
func (x *extractor) junction(n *ast.BinaryNode, want, both bool) dnf {
	a := x.node(n.Left, want)
	switch {
	case !both:
		return a.or(x.node(n.Right, want))
	case x.mayFault(n.Left):
		return a.implied()
	}
	return a.and(x.node(n.Right, want))
}

// compare reads key op constant, whichever side the constant is on.
func (x *extractor) compare(n *ast.BinaryNode, want bool) dnf {
	left, right, op := n.Left, n.Right, n.Operator
	if _, ok := constantOf(left); ok {
		left, right, op = right, left, mirrored(op)
	}
	c, ok := constantOf(right)
	k := x.key(left)
	if !ok || k == nil {
		return always()
	}
	if !want {
		op = map[string]string{"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}[op]
	}
	switch c := c.(type) {
	case int:
		if k.value.class == isInt {
			return x.unlessFault(left, compareInts(k, op, int64(c)))
		}
	case bool:
		if k.value.class == isBool && (op == "==" || op == "!=") {
			return one(atom{k, record.Test{Op: record.OneOf, Values: []int64{boolInt(c == (op == "=="))}}})
		}
	case string:
		return compareTexts(k, op, c)
	}
	return always()
}

// unlessFault is d, unless d does not look at a key whose evaluation can be a
// fault: then the rule has to look.
func (x *extractor) unlessFault(n ast.Node, d dnf) dnf {
	if (len(d.cases) == 0 || len(d.cases[0]) == 0) && x.mayFault(n) {
		return always()
	}
	return d
}

func compareInts(k *key, op string, c int64) dnf {
	low, high := int64(math.MinInt64), int64(math.MaxInt64)
	switch op {
	case "==":
		return one(atom{k, record.Test{Op: record.OneOf, Values: []int64{c}}})
	case "!=":
		return one(atom{k, record.Test{Op: record.NoneOf, Values: []int64{c}}})
	case "<", ">=":
		if op == ">=" {
			low = c
		} else if c == low {
			return never()
		} else {
			high = c - 1
		}
	case ">", "<=":
		if op == "<=" {
			high = c
		} else if c == high {
			return never()
		} else {
			low = c + 1
		}
	}
	return one(atom{k, record.Test{Op: record.Between, Values: []int64{low, high}}})
}

func compareTexts(k *key, op, text string) dnf {
	switch {
	case k.value.class != isText || op != "==" && op != "!=":
	case k.value.header != nil:
		// The header's address, unmapped, is implied by its text.
		if a := parseAddr(text); op == "==" && a.IsValid() {
			return one(atom{k, record.Test{Op: record.Within, Prefixes: []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}}}).implied()
		}
	case op == "==":
		return one(atom{k, record.Test{Op: record.OneOf, Texts: []string{text}}})
	default:
		return one(atom{k, record.Test{Op: record.NoneOf, Texts: []string{text}}})
	}
	return always()
}

// in reads key in [constants] and key in low..high.
func (x *extractor) in(n *ast.BinaryNode, want bool) dnf {
	k := x.key(n.Left)
	if k == nil {
		return always()
	}
	if r, ok := n.Right.(*ast.BinaryNode); ok && r.Operator == ".." && k.value.class == isInt {
		low, okLow := constantOf(r.Left)
		high, okHigh := constantOf(r.Right)
		lo, isLow := low.(int)
		hi, isHigh := high.(int)
		if okLow && okHigh && isLow && isHigh {
			return x.unlessFault(n.Left, between(k, int64(lo), int64(hi), want))
		}
		return always()
	}
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok {
		return always()
	}
	t := record.Test{Op: record.OneOf}
	if !want {
		t.Op = record.NoneOf
	}
	for _, item := range list.Nodes {
		switch c, _ := constantOf(item); c := c.(type) {
		case int:
			t.Values = append(t.Values, int64(c))
		case string:
			t.Texts = append(t.Texts, c)
		default:
			return always()
		}
	}
	switch {
	case len(list.Nodes) == 0:
		return always()
	case k.value.header != nil:
		return addressIn(k, t)
	case k.value.class == isInt && t.Texts == nil, k.value.class == isText && t.Values == nil:
		return one(atom{k, t})
	}
	return always()
}

// addressIn is an address among texts: those that are no addresses equal none.
func addressIn(k *key, t record.Test) dnf {
	if t.Op != record.OneOf || t.Values != nil {
		return always()
	}
	out := record.Test{Op: record.Within}
	for _, text := range t.Texts {
		if a := parseAddr(text); a.IsValid() {
			out.Prefixes = append(out.Prefixes, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if out.Prefixes == nil {
		return never().implied()
	}
	return one(atom{k, out}).implied()
}

func between(k *key, low, high int64, want bool) dnf {
	switch {
	case low > high && want:
		return never()
	case low > high:
		return dnf{cases: [][]atom{nil}, exact: true}
	case want:
		return one(atom{k, record.Test{Op: record.Between, Values: []int64{low, high}}})
	}
	return one(atom{k, record.Test{Op: record.NotBetween, Values: []int64{low, high}}})
}

// constantOf is an expression's value where that is a literal.
func constantOf(n ast.Node) (any, bool) {
	switch n := n.(type) {
	case *ast.IntegerNode:
		return n.Value, true
	case *ast.BoolNode:
		return n.Value, true
	case *ast.UnaryNode:
		if i, ok := n.Node.(*ast.IntegerNode); ok && n.Operator == "-" {
			return -i.Value, true
		}
	}
	if s, ok := constantText(n); ok {
		return s, true
	}
	return nil, false
}
