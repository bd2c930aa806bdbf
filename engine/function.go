package engine

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// Function describes one helper function of rule expressions, for
// documentation.
type Function struct {
	// Usage is the call with its arguments and result.
	Usage string
	// Doc says what it does.
	Doc string
}

// Functions lists the helper functions that expressions can call beside
// expr-lang's own operators and builtins. Wherever a number is asked for any
// integer type will do; where a text is asked for, a text or a bytes field.
func Functions() []Function {
	var list []Function
	for _, f := range helpers() {
		list = append(list, Function{f.usage, f.doc})
	}
	return list
}

// param is what a helper accepts in one place.
type param uint8

const (
	takesText     param = iota // string or []byte
	takesString                // string
	takesInt                   // any integer
	takesPattern               // constant RE2
	takesPrefix                // string; a constant must be an address or a prefix
	takesList                  // the rest: strings, or one list of strings
	takesEntries               // as takesList; constants may be prefixes
	takesMap                   // map with text keys
	takesClock                 // constant "15:04"
	takesTexts                 // string, []byte or []string
	takesConstant              // constant string
)

// helper is one function.
type helper struct {
	name       string
	usage, doc string
	params     []param
	optional   int // how many of the last params may be left out
	repeat     bool
	result     any // func type, for expr's checker
	// clock is where the packet time goes if the caller leaves it out: at the
	// front or at the end; 0 = the function takes none.
	clock int
	run   func(c *constants, args []any) (any, error)
	lower func(l *lowerer, args []ast.Node) (value, error)
}

const (
	clockFirst = iota + 1
	clockLast
)

// constants are the patterns and prefixes of one expression, compiled when it
// is loaded. They are only read afterwards.
type constants struct {
	patterns map[string]*pattern
	prefixes map[string]netip.Prefix
}

func newConstants() *constants {
	return &constants{patterns: map[string]*pattern{}, prefixes: map[string]netip.Prefix{}}
}

const (
	maxPattern = 4096 // bytes
	// maxInstructions bounds a pattern's memory and its time a byte.
	maxInstructions = 20_000
)

// pattern is a regular expression, and the literals of which one is in every
// text that it matches; nil where there are none. Looking for them first costs
// about a nanosecond a byte, the expression up to a hundred.
type pattern struct {
	*regexp.Regexp
	needles *automaton
}

// matchText reports whether the pattern matches anywhere in s.
func (p *pattern) matchText(s string) bool {
	return (p.needles == nil || in(p.needles, s)) && p.MatchString(s)
}

// matchBytes is matchText for bytes; nil ones match nothing, as in expr.
func (p *pattern) matchBytes(b []byte) bool {
	return b != nil && (p.needles == nil || in(p.needles, b)) && p.Match(b)
}

// pattern compiles a regular expression (RE2), once.
func (c *constants) pattern(s string) (*pattern, error) {
	if p := c.patterns[s]; p != nil {
		return p, nil
	}
	if len(s) > maxPattern {
		return nil, fmt.Errorf("the pattern is longer than %d bytes", maxPattern)
	}
	tree, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("bad pattern: %w", err)
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil || len(prog.Inst) > maxInstructions {
		return nil, fmt.Errorf("the pattern is too complex (more than %d instructions)", maxInstructions)
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("bad pattern: %w", err)
	}
	p := &pattern{Regexp: re}
	if list := patternLiterals(s); list != nil {
		p.needles = newAutomaton([][]string{list})
	}
	c.patterns[s] = p
	return p, nil
}

// prefix parses an address or a prefix; an IPv4-mapped IPv6 one is IPv4.
func (c *constants) prefix(s string) (netip.Prefix, error) {
	if p, ok := c.prefixes[s]; ok {
		return p, nil
	}
	p, err := parsePrefix(s)
	if err == nil {
		c.prefixes[s] = p
	}
	return p, err
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an IP address nor a prefix", s)
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// parseAddr reads a record's address text as a Header would hold it.
func parseAddr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// constantText evaluates a text made of constants.
func constantText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.BinaryNode:
		a, okA := constantText(n.Left)
		b, okB := constantText(n.Right)
		return a + b, n.Operator == "+" && okA && okB
	}
	return "", false
}

// checkCall checks the arguments of a call against the helper's parameters
// and compiles its constants.
func (h *helper) checkCall(c *constants, n *ast.CallNode) (ast.Node, error) {
	got, most := len(n.Arguments), len(h.params)
	if got < most-h.optional || got > most && !h.repeat {
		return n, fmt.Errorf("wrong number of arguments, write %s", h.usage)
	}
	for i, arg := range n.Arguments {
		p := h.params[min(i, most-1)]
		if err := p.check(c, arg); err != nil {
			return arg, fmt.Errorf("%s: argument %d %w", h.name, i+1, err)
		}
	}
	return nil, nil
}

// check says what is wrong with an argument, nil if nothing is.
func (p param) check(c *constants, n ast.Node) error {
	kind := n.Type()
	text, constant := constantText(n)
	var err error
	switch p {
	case takesInt:
		if !isInteger(kind.Kind()) {
			return fmt.Errorf("must be a whole number, not %v", kind)
		}
	case takesMap:
		if kind.Kind() != reflect.Map || kind.Key().Kind() != reflect.String {
			return fmt.Errorf("must be a map with text keys, not %v", kind)
		}
	case takesList, takesEntries:
		return p.checkList(c, n)
	case takesText, takesTexts:
		if !textual(kind) && (p == takesText || kind != reflect.TypeFor[[]string]()) {
			return fmt.Errorf("must be a text, not %v", kind)
		}
	default:
		if kind.Kind() != reflect.String {
			return fmt.Errorf("must be a text, not %v", kind)
		}
		switch {
		case p == takesString:
		case p == takesPrefix && constant:
			_, err = c.prefix(text)
		case p == takesPrefix:
		case !constant:
			return fmt.Errorf("must be a constant text")
		case p == takesPattern:
			_, err = c.pattern(text)
		case p == takesClock:
			_, err = parseClock(text)
		}
	}
	if err != nil {
		return fmt.Errorf("is wrong: %w", err)
	}
	return nil
}

func textual(t reflect.Type) bool {
	return t.Kind() == reflect.String || t == reflect.TypeFor[[]byte]()
}

func (p param) checkList(c *constants, n ast.Node) error {
	items := []ast.Node{n}
	if list, ok := n.(*ast.ArrayNode); ok {
		items = list.Nodes
	} else if n.Type() == reflect.TypeFor[[]string]() {
		return nil
	}
	for _, item := range items {
		if item.Type().Kind() != reflect.String {
			return fmt.Errorf("must be a text or a list of texts, not %v", item.Type())
		}
		if text, ok := constantText(item); ok && p == takesEntries {
			if pre, err := parsePrefix(text); err == nil {
				c.prefixes[text] = pre
			} else if host, _, ok := strings.Cut(text, "/"); ok && parseAddr(host).IsValid() {
				return fmt.Errorf("is wrong: %w", err)
			}
		}
	}
	return nil
}

// The following turn what the VM passes into what the helpers compute with.

func argText(v any) (string, error) {
	switch s := v.(type) {
	case string:
		return s, nil
	case []byte:
		return string(s), nil
	}
	return "", fmt.Errorf("%T is no text", v)
}

func argInt(v any) (int, error) {
	r := reflect.ValueOf(v)
	switch {
	case r.CanInt():
		return int(r.Int()), nil
	case r.CanUint():
		return int(r.Uint()), nil
	}
	return 0, fmt.Errorf("%T is no whole number", v)
}

// argTexts flattens texts and lists of texts.
func argTexts(args []any) ([]string, error) {
	var out []string
	for _, a := range args {
		switch v := a.(type) {
		case string:
			out = append(out, v)
		case []string:
			out = append(out, v...)
		case []any:
			for _, item := range v {
				s, err := argText(item)
				if err != nil {
					return nil, err
				}
				out = append(out, s)
			}
		default:
			return nil, fmt.Errorf("%T is no text and no list of texts", a)
		}
	}
	return out, nil
}

func parsePort(s string) (int, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 16)
	return int(n), err == nil
}
