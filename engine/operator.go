package engine

import (
	"math"
	"reflect"
	"strings"

	"github.com/expr-lang/expr/ast"
)

func (l *lowerer) unary(n *ast.UnaryNode) (value, error) {
	v, err := l.node(n.Node)
	if err != nil {
		return value{}, err
	}
	switch {
	case (n.Operator == "!" || n.Operator == "not") && v.class == isBool:
		return not(v), nil
	case n.Operator == "+" && v.number():
		return v, nil
	case n.Operator == "-" && v.class == isFloat:
		if f, ok := v.con.(float64); ok {
			return constFloat(-f), nil
		}
		f := v.f
		return floatValue(func(e *env) float64 { return -f(e) })
	case n.Operator == "-" && v.class == isInt:
		if i, ok := v.con.(int); ok {
			return constInt(-i), nil
		}
		return value{class: isInt, i: negated(v), kind: v.kind}, nil
	}
	return value{}, cannot("the operator %s", n.Operator)
}

func not(v value) value {
	if b, ok := v.con.(bool); ok {
		return constBool(!b)
	}
	b := v.b
	out := value{class: isBool, b: func(e *env) bool { return !b(e) }}
	if off := v.offset; v.top {
		out.b = func(e *env) bool { return !e.rec.at(off).bool() }
	}
	return out
}

// negated is -v in v's own kind, as expr computes it: it wraps there.
func negated(v value) func(*env) int {
	i := v.i
	switch v.kind {
	case reflect.Int8:
		return func(e *env) int { return int(-int8(i(e))) }
	case reflect.Int16:
		return func(e *env) int { return int(-int16(i(e))) }
	case reflect.Int32:
		return func(e *env) int { return int(-int32(i(e))) }
	case reflect.Uint8:
		return func(e *env) int { return int(-uint8(i(e))) }
	case reflect.Uint16:
		return func(e *env) int { return int(-uint16(i(e))) }
	case reflect.Uint32:
		return func(e *env) int { return int(-uint32(i(e))) }
	}
	return func(e *env) int { return -i(e) }
}

func (l *lowerer) binary(n *ast.BinaryNode) (value, error) {
	switch n.Operator {
	case "in":
		return l.in(n)
	case "matches":
		return l.matchesOperator(n)
	case "==", "!=":
		if _, ok := n.Right.(*ast.NilNode); ok {
			return l.compareNil(n.Left, n.Operator)
		}
		if _, ok := n.Left.(*ast.NilNode); ok {
			return l.compareNil(n.Right, n.Operator)
		}
	}
	x, err := l.node(n.Left)
	if err != nil {
		return value{}, err
	}
	y, err := l.node(n.Right)
	if err != nil {
		return value{}, err
	}
	switch n.Operator {
	case "&&", "and", "||", "or":
		return l.logic(n.Operator, x, y)
	case "==", "!=", "<", "<=", ">", ">=":
		return l.compare(n.Operator, x, y)
	case "+", "-", "*", "/", "%", "**", "^":
		return l.arithmetic(n.Operator, x, y)
	case "contains", "startsWith", "endsWith":
		return l.textOperator(n.Operator, x, y)
	}
	return value{}, cannot("the operator %s", n.Operator)
}

func (l *lowerer) logic(op string, x, y value) (value, error) {
	if x.class != isBool || y.class != isBool {
		return value{}, cannot("the operator %s on what is no boolean", op)
	}
	a, b := x.b, y.b
	if op == "||" || op == "or" {
		return boolValue(func(e *env) bool { return a(e) || b(e) })
	}
	return boolValue(func(e *env) bool { return a(e) && b(e) })
}

// compareNil compares a pointer with nil, which is true for a nil one.
func (l *lowerer) compareNil(n ast.Node, op string) (value, error) {
	v, err := l.node(n)
	if err != nil {
		return value{}, err
	}
	if v.class != isPlace || v.typ.Kind() != reflect.Struct {
		return value{}, cannot("nil")
	}
	addr, want := v.addr, op == "=="
	return boolValue(func(e *env) bool { return addr(e).isNil() == want })
}

func (l *lowerer) arithmetic(op string, x, y value) (value, error) {
	if op == "+" && x.class == isText && y.class == isText {
		if a, b, ok := both[string](x, y); ok {
			return constText(a + b), nil
		}
		a, b := l.text(x), l.text(y)
		return textValue(func(e *env) string { return a(e) + b(e) })
	}
	if !x.number() || !y.number() {
		return value{}, cannot("the operator %s on what is no number", op)
	}
	a, b := x.float(), y.float()
	switch op {
	case "/":
		return floatValue(func(e *env) float64 { return a(e) / b(e) })
	case "**", "^":
		return floatValue(func(e *env) float64 { return math.Pow(a(e), b(e)) })
	}
	if x.class == isInt && y.class == isInt {
		return intArithmetic(op, x.i, y.i)
	}
	switch op {
	case "+":
		return floatValue(func(e *env) float64 { return a(e) + b(e) })
	case "-":
		return floatValue(func(e *env) float64 { return a(e) - b(e) })
	case "*":
		return floatValue(func(e *env) float64 { return a(e) * b(e) })
	}
	return value{}, cannot("the operator %s on a fraction", op)
}

// intArithmetic computes in Go's int, as expr does whatever the operands'
// kinds are.
func intArithmetic(op string, a, b func(*env) int) (value, error) {
	switch op {
	case "+":
		return intValue(func(e *env) int { return a(e) + b(e) })
	case "-":
		return intValue(func(e *env) int { return a(e) - b(e) })
	case "*":
		return intValue(func(e *env) int { return a(e) * b(e) })
	}
	return intValue(func(e *env) int {
		x, y := a(e), b(e)
		if y == 0 {
			e.fail(zeroDivision)
			return 0
		}
		return x % y
	})
}

// both returns two constants of one type.
func both[T any](x, y value) (a, b T, ok bool) {
	a, okA := x.con.(T)
	b, okB := y.con.(T)
	return a, b, okA && okB
}

// text is a value's text. Only through here may the text of a field be read
// that the Header holds as an address: it is what makes the decoder spell it
// out.
func (l *lowerer) text(v value) func(*env) string {
	if v.header != nil {
		l.fields[v.field] = true
	}
	return v.s
}

func (l *lowerer) textOperator(op string, x, y value) (value, error) {
	if x.class != isText || y.class != isText {
		return value{}, cannot("the operator %s on what is no text", op)
	}
	a, b := l.text(x), l.text(y)
	switch op {
	case "contains":
		return boolValue(func(e *env) bool { return strings.Contains(a(e), b(e)) })
	case "startsWith":
		return boolValue(func(e *env) bool { return strings.HasPrefix(a(e), b(e)) })
	}
	return boolValue(func(e *env) bool { return strings.HasSuffix(a(e), b(e)) })
}

func (l *lowerer) matchesOperator(n *ast.BinaryNode) (value, error) {
	x, err := l.node(n.Left)
	if err != nil {
		return value{}, err
	}
	pattern, ok := constantText(n.Right)
	if !ok {
		return value{}, cannot("a pattern that is no constant")
	}
	p, err := l.consts.pattern(pattern)
	if err != nil {
		return value{}, err
	}
	return l.matchText(x, p)
}

// matchText matches a text, or bytes.
func (l *lowerer) matchText(x value, p *pattern) (value, error) {
	switch x.class {
	case isText:
		s := l.text(x)
		return boolValue(func(e *env) bool { return p.matchText(s(e)) })
	case isBytes:
		y := x.y
		return boolValue(func(e *env) bool { return p.matchBytes(y(e)) })
	}
	return value{}, cannot("a pattern on what is no text")
}

// conditional is a ? b : c and if a { b } else { c }.
func (l *lowerer) conditional(n *ast.ConditionalNode) (value, error) {
	c, err := l.node(n.Cond)
	if err != nil {
		return value{}, err
	}
	x, err := l.node(n.Exp1)
	if err != nil {
		return value{}, err
	}
	y, err := l.node(n.Exp2)
	if err != nil {
		return value{}, err
	}
	if c.class != isBool {
		return value{}, cannot("a condition that is no boolean")
	}
	switch cond := c.b; {
	case x.class == isBool && y.class == isBool:
		return boolValue(choose(cond, x.b, y.b))
	case x.class == isInt && y.class == isInt && x.kind == y.kind:
		return value{class: isInt, i: choose(cond, x.i, y.i), kind: x.kind}, nil
	case x.class == isFloat && y.class == isFloat:
		return floatValue(choose(cond, x.f, y.f))
	case x.class == isText && y.class == isText:
		return textValue(choose(cond, l.text(x), l.text(y)))
	}
	return value{}, cannot("a condition with values of two types")
}

// choose evaluates one side alone, as expr does.
func choose[T any](cond func(*env) bool, x, y func(*env) T) func(*env) T {
	return func(e *env) T {
		if cond(e) {
			return x(e)
		}
		return y(e)
	}
}
