package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"

	"github.com/expr-lang/expr/ast"

	"github.com/netcap-guard/netcap-guard/record"
)

// env is what a native expression sees: one record. A fault ends the
// evaluation as an error; what closures return after it is never looked at,
// so they return zeros and go on.
type env struct {
	rec   ref
	hdr   *record.Header
	fault fault
	// scope holds the current element of each any, all, none, one and count
	// around the expression, outermost first.
	scope [maxScopes]ref
}

const maxScopes = 4

// fault says why an evaluation failed.
type fault uint8

const (
	noFault fault = iota
	outOfRange
	nilAccess
	zeroDivision
	badArgument
)

func (f fault) err() error {
	switch f {
	case outOfRange:
		return errors.New("index out of range")
	case nilAccess:
		return errors.New("field of a record that is not there")
	case zeroDivision:
		return errors.New("integer divide by zero")
	case badArgument:
		return errors.New("an argument has no meaning")
	case noFault:
	}
	return nil
}

func (e *env) fail(f fault) {
	if e.fault == noFault {
		e.fault = f
	}
}

// class is what a lowered expression yields.
type class uint8

const (
	isPlace class = iota // something in memory: struct, slice, map
	isBool
	isInt
	isFloat
	isText
	isBytes
)

// value is a lowered expression: of the closures the one of its class is set.
type value struct {
	class class
	b     func(*env) bool
	i     func(*env) int
	f     func(*env) float64
	s     func(*env) string
	y     func(*env) []byte
	// kind is the Go kind of an integer: expr keeps it for a minus sign and
	// for the way to float64.
	kind reflect.Kind
	// constant: the value is con, whatever the record.
	constant bool
	con      any // bool, int, float64 or string
	place
}

// place is where a value lies in memory.
type place struct {
	typ reflect.Type // nil for computed values
	// addr is the address of the value; for pointers it is followed, and nil
	// if the pointer is.
	addr func(*env) ref
	// top: the place is the record's own field at offset.
	top    bool
	offset uintptr
	// header is the address in the record.Header that a text field spells
	// out; nil for every other field.
	header func(*env) netip.Addr
	field  string
}

// unsupported says why an expression cannot be lowered.
type unsupported string

func (u unsupported) Error() string { return string(u) }

func cannot(format string, args ...any) error { return unsupported(fmt.Sprintf(format, args...)) }

// lowerer turns one checked expression into closures over one record type.
type lowerer struct {
	record  record.Type
	typ     reflect.Type
	consts  *constants
	helpers map[string]*helper
	fields  map[string]bool // top-level fields that are read
	scopes  []reflect.Type  // element types of the predicates around
}

// lower returns the expression as a closure, or an error that says what
// stands in the way. Fields read are noted in l.fields only for as far as they
// are really loaded.
func (l *lowerer) lower(n ast.Node) (func(*env) bool, error) {
	v, err := l.node(n)
	if err != nil {
		return nil, err
	}
	if v.class != isBool {
		return nil, cannot("it yields no boolean")
	}
	return v.b, nil
}

func (l *lowerer) node(n ast.Node) (value, error) {
	switch n := n.(type) {
	case *ast.BoolNode:
		return constBool(n.Value), nil
	case *ast.IntegerNode:
		return constInt(n.Value), nil
	case *ast.FloatNode:
		return constFloat(n.Value), nil
	case *ast.StringNode:
		return constText(n.Value), nil
	case *ast.IdentifierNode:
		return l.identifier(n)
	case *ast.MemberNode:
		return l.member(n)
	case *ast.PointerNode:
		return l.pointer(n)
	case *ast.UnaryNode:
		return l.unary(n)
	case *ast.BinaryNode:
		return l.binary(n)
	case *ast.ConditionalNode:
		return l.conditional(n)
	case *ast.BuiltinNode:
		return l.builtin(n)
	case *ast.CallNode:
		return l.call(n)
	}
	return value{}, cannot("%s", describeNode(n))
}

// describeNode names a construct for check's list of slow rules.
func describeNode(n ast.Node) string {
	switch n.(type) {
	case *ast.ChainNode:
		return "optional chaining (?.)"
	case *ast.SliceNode:
		return "slicing ([a:b])"
	case *ast.ArrayNode:
		return "a list outside of in"
	case *ast.MapNode:
		return "a map"
	case *ast.NilNode:
		return "nil"
	case *ast.VariableDeclaratorNode, *ast.SequenceNode:
		return "let"
	}
	return fmt.Sprintf("%q", shorten(n.String(), 40))
}

func constBool(b bool) value {
	return value{class: isBool, b: func(*env) bool { return b }, constant: true, con: b}
}

func constInt(i int) value {
	return value{class: isInt, i: func(*env) int { return i }, kind: reflect.Int, constant: true, con: i}
}

func constFloat(f float64) value {
	return value{class: isFloat, f: func(*env) float64 { return f }, constant: true, con: f}
}

func constText(s string) value {
	return value{class: isText, s: func(*env) string { return s }, constant: true, con: s}
}

func boolValue(f func(*env) bool) (value, error)     { return value{class: isBool, b: f}, nil }
func floatValue(f func(*env) float64) (value, error) { return value{class: isFloat, f: f}, nil }
func textValue(f func(*env) string) (value, error)   { return value{class: isText, s: f}, nil }
func intValue(f func(*env) int) (value, error) {
	return value{class: isInt, i: f, kind: reflect.Int}, nil
}

// float is a number as float64, converted from its own kind as expr does it.
func (v value) float() func(*env) float64 {
	if v.class == isFloat {
		return v.f
	}
	i := v.i
	if v.kind == reflect.Uint64 || v.kind == reflect.Uint {
		return func(e *env) float64 { return float64(uint64(i(e))) }
	}
	return func(e *env) float64 { return float64(i(e)) }
}

func (v value) number() bool { return v.class == isInt || v.class == isFloat }
