package engine

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
)

// call lowers a helper function.
func (l *lowerer) call(n *ast.CallNode) (value, error) {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return value{}, cannot("a computed function")
	}
	h := l.helpers[id.Value]
	if h == nil {
		return value{}, cannot("the function %s", id.Value)
	}
	return h.lower(l, n.Arguments)
}

func (l *lowerer) integer(n ast.Node) (func(*env) int, error) {
	v, err := l.node(n)
	if err == nil && v.class != isInt {
		err = cannot("a computed number")
	}
	return v.i, err
}

// address lowers an argument that is an address: a field that the Header
// holds is taken from there, which parses and allocates nothing and yields
// the same as its text would.
func (l *lowerer) address(n ast.Node) (func(*env) netip.Addr, error) {
	v, err := l.node(n)
	if err != nil {
		return nil, err
	}
	if v.class != isText {
		return nil, cannot("an address that is no text")
	}
	if v.header != nil {
		h := v.header
		return func(e *env) netip.Addr { return h(e).Unmap().WithZone("") }, nil
	}
	s := l.text(v)
	return func(e *env) netip.Addr { return parseAddr(s(e)) }, nil
}

func lowerAddressTest(test func(netip.Addr) bool) func(*lowerer, []ast.Node) (value, error) {
	return func(l *lowerer, args []ast.Node) (value, error) {
		a, err := l.address(args[0])
		return value{class: isBool, b: func(e *env) bool { return test(a(e)) }}, err
	}
}

func lowerInSubnet(l *lowerer, args []ast.Node) (value, error) {
	a, err := l.address(args[0])
	texts, ok := constantTexts(args[1:])
	if err != nil || !ok {
		return value{}, errors.Join(err, cannot("InSubnet without constants"))
	}
	list := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		if list[i], err = l.consts.prefix(t); err != nil {
			return value{}, err
		}
	}
	return boolValue(func(e *env) bool { return within(a(e), list) })
}

func lowerInAllowlist(l *lowerer, args []ast.Node) (value, error) {
	entries, ok := constantTexts(args[1:])
	v, err := l.node(args[0])
	if err != nil || !ok {
		return value{}, errors.Join(err, cannot("InAllowlist without constants"))
	}
	if v.class != isText {
		return value{}, cannot("a value that is no text")
	}
	var list []netip.Prefix
	for _, e := range entries {
		if p, ok := l.consts.prefixes[e]; ok {
			list = append(list, p)
		}
	}
	a, err := l.address(args[0])
	if err != nil {
		return value{}, err
	}
	if v.header != nil && len(list) == len(entries) {
		return boolValue(func(e *env) bool { return within(a(e), list) })
	}
	equal := oneOf(l.text(v), entries)
	return boolValue(func(e *env) bool { return equal(e) || within(a(e), list) })
}

func lowerHasKey(l *lowerer, args []ast.Node) (value, error) {
	m, err := l.node(args[0])
	k, err2 := l.node(args[1])
	if err := errors.Join(err, err2); err != nil {
		return value{}, err
	}
	if !isDictionary(m.typ) || k.class != isText {
		return value{}, cannot("HasKey on this map")
	}
	addr, key := m.addr, l.text(k)
	return boolValue(func(e *env) bool {
		r := addr(e)
		if r.isNil() {
			return false
		}
		_, ok := r.dictionary()[key(e)]
		return ok
	})
}

func lowerParsePort(l *lowerer, args []ast.Node) (value, error) {
	v, err := l.node(args[0])
	if err != nil {
		return value{}, err
	}
	if v.class != isText {
		return value{}, cannot("a port that is no text")
	}
	s := l.text(v)
	return intValue(func(e *env) int {
		n, ok := parsePort(s(e))
		if !ok {
			e.fail(badArgument)
		}
		return n
	})
}

func lowerPortInRange(l *lowerer, args []ast.Node) (value, error) {
	port, err := l.integer(args[0])
	low, err2 := l.integer(args[1])
	high, err3 := l.integer(args[2])
	return value{class: isBool, b: func(e *env) bool {
		// All three, always: one that fails makes the call fail.
		p, from, to := port(e), low(e), high(e)
		return from <= p && p <= to
	}}, errors.Join(err, err2, err3)
}

// builtin lowers the builtins of expr that rules use most.
func (l *lowerer) builtin(n *ast.BuiltinNode) (value, error) {
	switch n.Name {
	case "any", "all", "none", "one", "count":
		if len(n.Arguments) == 2 {
			return l.predicate(n)
		}
	case "len", "lower", "upper", "trim", "int", "float":
		if len(n.Arguments) == 1 {
			if list, ok := n.Arguments[0].(*ast.BuiltinNode); ok && n.Name == "len" && list.Name == "filter" && len(list.Arguments) == 2 {
				return l.predicate(&ast.BuiltinNode{Name: "count", Arguments: list.Arguments})
			}
			return l.simpleBuiltin(n)
		}
	case "hasPrefix", "hasSuffix":
		if len(n.Arguments) == 2 {
			return l.affix(n)
		}
	}
	return value{}, cannot("the function %s", n.Name)
}

// affix lowers the functions that do what startsWith and endsWith do.
func (l *lowerer) affix(n *ast.BuiltinNode) (value, error) {
	x, err := l.node(n.Arguments[0])
	y, err2 := l.node(n.Arguments[1])
	if err := errors.Join(err, err2); err != nil {
		return value{}, err
	}
	return l.textOperator(map[string]string{"hasPrefix": "startsWith", "hasSuffix": "endsWith"}[n.Name], x, y)
}

func (l *lowerer) simpleBuiltin(n *ast.BuiltinNode) (value, error) {
	v, err := l.node(n.Arguments[0])
	if err != nil {
		return value{}, err
	}
	switch {
	case n.Name == "len":
		return l.length(v)
	case n.Name == "int" && v.class == isInt:
		return intValue(v.i)
	case n.Name == "int" && v.class == isFloat:
		f := v.f
		return intValue(func(e *env) int { return int(f(e)) })
	case n.Name == "float" && v.number():
		return floatValue(v.float())
	case v.class != isText:
		return value{}, cannot("the function %s on this operand", n.Name)
	}
	s := l.text(v)
	switch n.Name {
	case "lower":
		return textValue(func(e *env) string { return strings.ToLower(s(e)) })
	case "upper":
		return textValue(func(e *env) string { return strings.ToUpper(s(e)) })
	case "trim":
		return textValue(func(e *env) string { return strings.TrimSpace(s(e)) })
	}
	return value{}, cannot("the function %s on a text", n.Name)
}

// length counts items, and the characters of a text.
func (l *lowerer) length(v value) (value, error) {
	addr := v.addr
	switch {
	case v.class == isText:
		s := l.text(v)
		return intValue(func(e *env) int { return utf8.RuneCountInString(s(e)) })
	case v.class == isBytes || v.class == isPlace && v.typ.Kind() == reflect.Slice:
		if off := v.offset; v.top {
			return intValue(func(e *env) int { return e.rec.at(off).sliceLen() })
		}
		return intValue(func(e *env) int {
			if r := addr(e); !r.isNil() {
				return r.sliceLen()
			}
			return 0
		})
	case isDictionary(v.typ):
		return intValue(func(e *env) int {
			if r := addr(e); !r.isNil() {
				return len(r.dictionary())
			}
			return 0
		})
	}
	return value{}, cannot("len of this operand")
}

// predicate lowers any, all, none, one and count over a slice.
func (l *lowerer) predicate(n *ast.BuiltinNode) (value, error) {
	list, err := l.node(n.Arguments[0])
	if err != nil {
		return value{}, err
	}
	p, ok := n.Arguments[1].(*ast.PredicateNode)
	if list.class != isPlace || list.typ.Kind() != reflect.Slice || !ok || len(l.scopes) == maxScopes {
		return value{}, cannot("%s on this operand", n.Name)
	}
	depth := len(l.scopes)
	l.scopes = append(l.scopes, list.typ.Elem())
	body, err := l.lower(p.Node)
	l.scopes = l.scopes[:depth]
	if err != nil {
		return value{}, err
	}
	addr, size := list.addr, list.typ.Elem().Size()
	// count goes through the list until it has seen stop items.
	count := func(e *env, want bool, stop int) int {
		r, seen := addr(e), 0
		if r.isNil() {
			return 0
		}
		for i := 0; i < r.sliceLen() && seen < stop && e.fault == noFault; i++ {
			e.scope[depth] = r.element(i, size)
			if body(e) == want {
				seen++
			}
		}
		return seen
	}
	const all = int(^uint(0) >> 1)
	switch n.Name {
	case "any":
		return boolValue(func(e *env) bool { return count(e, true, 1) > 0 })
	case "none":
		return boolValue(func(e *env) bool { return count(e, true, 1) == 0 })
	case "all":
		return boolValue(func(e *env) bool { return count(e, false, 1) == 0 })
	case "one":
		return boolValue(func(e *env) bool { return count(e, true, all) == 1 })
	}
	return intValue(func(e *env) int { return count(e, true, all) })
}
