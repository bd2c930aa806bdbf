package engine

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// compare lowers == != < <= > >=. Integers of any kind compare as Go's int,
// with a fraction on either side as float64, as in expr.
func (l *lowerer) compare(op string, x, y value) (value, error) {
	if x.constant && !y.constant {
		x, y, op = y, x, mirrored(op)
	}
	equality := op == "==" || op == "!="
	switch {
	case x.class == isInt && y.class == isInt:
		if c, ok := y.con.(int); ok {
			return boolValue(compareIntConst(op, x, c))
		}
		return boolValue(compareOrdered(op, x.i, y.i))
	case x.number() && y.number():
		return boolValue(compareOrdered(op, x.float(), y.float()))
	case x.class == isText && y.class == isText:
		if same := l.compareAddress(x, y); same != nil && equality {
			want := op == "=="
			return boolValue(func(e *env) bool { return same(e) == want })
		}
		return boolValue(compareOrdered(op, l.text(x), l.text(y)))
	case x.class == isBool && y.class == isBool && equality:
		a, b, want := x.b, y.b, op == "=="
		return boolValue(func(e *env) bool { return (a(e) == b(e)) == want })
	}
	return value{}, cannot("the operator %s on these operands", op)
}

// mirrored is the operator with its sides exchanged.
func mirrored(op string) string {
	switch op {
	case "<":
		return ">"
	case "<=":
		return ">="
	case ">":
		return "<"
	case ">=":
		return "<="
	}
	return op
}

func compareOrdered[T cmp.Ordered](op string, a, b func(*env) T) func(*env) bool {
	switch op {
	case "==":
		return func(e *env) bool { return a(e) == b(e) }
	case "!=":
		return func(e *env) bool { return a(e) != b(e) }
	case "<":
		return func(e *env) bool { return a(e) < b(e) }
	case "<=":
		return func(e *env) bool { return a(e) <= b(e) }
	case ">":
		return func(e *env) bool { return a(e) > b(e) }
	}
	return func(e *env) bool { return a(e) >= b(e) }
}

// compareIntConst is the comparison most rules consist of. An int32 field of
// the record itself, which a port is, takes one call instead of three.
func compareIntConst(op string, x value, c int) func(*env) bool {
	if off := x.offset; x.top && x.kind == reflect.Int32 {
		switch op {
		case "==":
			return func(e *env) bool { return int(e.rec.at(off).int32()) == c }
		case "!=":
			return func(e *env) bool { return int(e.rec.at(off).int32()) != c }
		case "<":
			return func(e *env) bool { return int(e.rec.at(off).int32()) < c }
		case ">":
			return func(e *env) bool { return int(e.rec.at(off).int32()) > c }
		}
	}
	return compareOrdered(op, x.i, func(*env) int { return c })
}

// compareAddress compares a field that the Header holds as an address with a
// constant, without spelling the address out: an address has one canonical
// text, so equal texts are equal addresses, and a text that is not canonical
// equals none. It returns nil where that does not apply.
func (l *lowerer) compareAddress(x, y value) func(*env) bool {
	text, ok := y.con.(string)
	if x.header == nil || !ok {
		return nil
	}
	want, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	canonical, addr := want.String() == text, x.header
	return func(e *env) bool { return canonical && addr(e) == want }
}

// in lowers x in [constants], x in low..high, x in a field, "key" in a map.
func (l *lowerer) in(n *ast.BinaryNode) (value, error) {
	x, err := l.node(n.Left)
	if err != nil {
		return value{}, err
	}
	switch right := n.Right.(type) {
	case *ast.ArrayNode:
		return l.inList(x, right.Nodes)
	case *ast.BinaryNode:
		if right.Operator == ".." {
			return l.inRange(x, right)
		}
	}
	y, err := l.node(n.Right)
	if err != nil {
		return value{}, err
	}
	if y.class != isPlace {
		return value{}, cannot("in on this operand")
	}
	addr := y.addr
	switch {
	case isDictionary(y.typ) && x.class == isText:
		s := l.text(x)
		return boolValue(func(e *env) bool {
			r := addr(e)
			if r.isNil() {
				return false
			}
			_, ok := r.dictionary()[s(e)]
			return ok
		})
	case y.typ == reflect.TypeFor[[]string]() && x.class == isText:
		s := l.text(x)
		return boolValue(func(e *env) bool {
			r, want := addr(e), s(e)
			return !r.isNil() && slices.Contains(r.texts(), want)
		})
	case y.typ == reflect.TypeFor[[]int32]() && x.class == isInt:
		i := x.i
		return boolValue(func(e *env) bool {
			r, want := addr(e), i(e)
			return !r.isNil() && slices.ContainsFunc(r.int32s(), func(v int32) bool { return int(v) == want })
		})
	}
	return value{}, cannot("in on %s", y.typ)
}

func (l *lowerer) inList(x value, nodes []ast.Node) (value, error) {
	var ints []int
	var texts []string
	for _, n := range nodes {
		v, err := l.node(n)
		if err != nil {
			return value{}, err
		}
		switch c := v.con.(type) {
		case int:
			ints = append(ints, c)
		case string:
			texts = append(texts, c)
		default:
			return value{}, cannot("a list of what is not constant")
		}
	}
	switch {
	case x.class == isInt && len(texts) == 0:
		i := x.i
		return boolValue(oneOf(i, ints))
	case x.class == isText && len(ints) == 0:
		return boolValue(oneOf(l.text(x), texts))
	}
	return value{}, cannot("a list of mixed types")
}

// oneOf looks a value up in a short list, or in a set.
func oneOf[T comparable](x func(*env) T, list []T) func(*env) bool {
	if len(list) <= 8 {
		return func(e *env) bool { return slices.Contains(list, x(e)) }
	}
	set := make(map[T]struct{}, len(list))
	for _, v := range list {
		set[v] = struct{}{}
	}
	return func(e *env) bool {
		_, ok := set[x(e)]
		return ok
	}
}

func (l *lowerer) inRange(x value, n *ast.BinaryNode) (value, error) {
	low, err := l.node(n.Left)
	if err != nil {
		return value{}, err
	}
	high, err := l.node(n.Right)
	if err != nil {
		return value{}, err
	}
	lo, hi, ok := both[int](low, high)
	if !ok || x.class != isInt || hi-lo >= memoryBudget-1 {
		return value{}, cannot("a range that is not constant, too long, or not for integers")
	}
	i := x.i
	return boolValue(func(e *env) bool { v := i(e); return lo <= v && v <= hi })
}
