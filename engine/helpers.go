package engine

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// helpers lists the helper functions of rule expressions.
func helpers() []helper {
	return slices.Concat(textHelpers(), addressHelpers(), timeHelpers())
}

func textHelpers() []helper {
	return []helper{{
		name: "MatchesPattern", usage: "MatchesPattern(text, pattern) bool",
		doc:    "whether the regular expression (RE2 syntax, a constant) matches anywhere in the text",
		params: []param{takesText, takesPattern}, result: new(func(...any) bool),
		run: runMatches, lower: lowerMatches,
	}, {
		name: "Contains", usage: "Contains(text or list, part) bool",
		doc:    "whether part occurs in the text, letter case included, or is an item of the list",
		params: []param{takesTexts, takesString}, result: new(func(...any) bool),
		run: runContains, lower: lowerContains,
	}, {
		name: "ContainsAny", usage: "ContainsAny(text, part, part... or list) bool",
		doc:    "whether one of the parts occurs in the text, letter case included",
		params: []param{takesText, takesList}, repeat: true, result: new(func(...any) bool),
		run: runContainsAny, lower: lowerContainsAny,
	}, {
		name: "HasKey", usage: "HasKey(map, key) bool",
		doc:    "whether the map (RequestHeader, Parameters ...) has the key, letter case included",
		params: []param{takesMap, takesString}, result: new(func(...any) bool),
		run: runHasKey, lower: lowerHasKey,
	}, {
		name: "ParsePort", usage: "ParsePort(text) int",
		doc:    "the port number that the text spells; an evaluation error (no match) if it is none from 0 to 65535",
		params: []param{takesString}, result: new(func(...any) int),
		run: runParsePort, lower: lowerParsePort,
	}, {
		name: "PortInRange", usage: "PortInRange(port, low, high) bool",
		doc:    "whether low <= port <= high",
		params: []param{takesInt, takesInt, takesInt}, result: new(func(...any) bool),
		run: runPortInRange, lower: lowerPortInRange,
	}}
}

func addressHelpers() []helper {
	return []helper{{
		name: "InSubnet", usage: "InSubnet(address, prefix, prefix...) bool",
		doc:    "whether the address lies in one of the prefixes (10.0.0.0/8, or a single address); false for what is no address",
		params: []param{takesString, takesPrefix}, repeat: true, result: new(func(...any) bool),
		run: runInSubnet, lower: lowerInSubnet,
	}, {
		name: "InAllowlist", usage: "InAllowlist(value, entry, entry... or list) bool",
		doc:    "whether the value equals an entry, or is an address within an entry that is a prefix",
		params: []param{takesString, takesEntries}, repeat: true, result: new(func(...any) bool),
		run: runInAllowlist, lower: lowerInAllowlist,
	}, {
		name: "IsPrivateIP", usage: "IsPrivateIP(address) bool",
		doc: "whether the address means something on this site only: RFC 1918, unique local (RFC 4193), " +
			"loopback, link-local; false for what is no address",
		params: []param{takesString}, result: new(func(...any) bool),
		run: addressTest(isPrivate), lower: lowerAddressTest(isPrivate),
	}, {
		name: "IsPublicIP", usage: "IsPublicIP(address) bool",
		doc: "whether the address is a host's on the Internet: not private, multicast, unspecified, " +
			"shared (100.64.0.0/10), documentation or reserved; false for what is no address",
		params: []param{takesString}, result: new(func(...any) bool),
		run: addressTest(isPublic), lower: lowerAddressTest(isPublic),
	}}
}

func isPrivate(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast()
}

// notPublic lists what IANA's special-purpose registries (RFC 6890) set aside
// and netip has no question for.
func notPublic() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "240.0.0.0/4", "100::/64", "2001:db8::/32", "3fff::/20",
	} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

func isPublic(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !isPrivate(a) && !within(a, notPublic())
}

func within(a netip.Addr, list []netip.Prefix) bool {
	for i := range list {
		if list[i].Contains(a) {
			return true
		}
	}
	return false
}

func addressTest(test func(netip.Addr) bool) func(*constants, []any) (any, error) {
	return func(_ *constants, args []any) (any, error) {
		s, err := argText(args[0])
		return err == nil && test(parseAddr(s)), err
	}
}

func runMatches(c *constants, args []any) (any, error) {
	pattern, err := argText(args[1])
	re := c.patterns[pattern]
	if err != nil || re == nil {
		return false, errors.Join(err, errors.New("the pattern is no constant"))
	}
	switch text := args[0].(type) {
	case string:
		return re.MatchString(text), nil
	case []byte:
		return text != nil && re.Match(text), nil
	}
	return false, fmt.Errorf("%T is no text", args[0])
}

func runContains(_ *constants, args []any) (any, error) {
	part, err := argText(args[1])
	if list, ok := args[0].([]string); ok {
		return slices.Contains(list, part), err
	}
	text, err2 := argText(args[0])
	return strings.Contains(text, part), errors.Join(err, err2)
}

func runContainsAny(_ *constants, args []any) (any, error) {
	parts, err := argTexts(args[1:])
	if err != nil {
		return false, err
	}
	text, err := argText(args[0])
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) }), err
}

func runHasKey(_ *constants, args []any) (any, error) {
	key, err := argText(args[1])
	m, ok := args[0].(map[string]string)
	if !ok {
		return false, fmt.Errorf("%T is no map of texts", args[0])
	}
	_, found := m[key]
	return found, err
}

func runParsePort(_ *constants, args []any) (any, error) {
	s, err := argText(args[0])
	n, ok := parsePort(s)
	if err == nil && !ok {
		err = fmt.Errorf("%q is no port", shorten(s, 40))
	}
	return n, err
}

func runPortInRange(_ *constants, args []any) (any, error) {
	port, err := argInt(args[0])
	low, err2 := argInt(args[1])
	high, err3 := argInt(args[2])
	return low <= port && port <= high, errors.Join(err, err2, err3)
}

func runInSubnet(c *constants, args []any) (any, error) {
	s, err := argText(args[0])
	if err != nil {
		return false, err
	}
	a := parseAddr(s)
	for _, arg := range args[1:] {
		text, err := argText(arg)
		if err != nil {
			return false, err
		}
		p, ok := c.prefixes[text]
		if !ok {
			if p, err = parsePrefix(text); err != nil {
				return false, err
			}
		}
		if p.Contains(a) {
			return true, nil
		}
	}
	return false, nil
}

func runInAllowlist(c *constants, args []any) (any, error) {
	entries, err := argTexts(args[1:])
	if err != nil {
		return false, err
	}
	s, err := argText(args[0])
	a := parseAddr(s)
	return slices.ContainsFunc(entries, func(e string) bool {
		p, ok := c.prefixes[e]
		return e == s || ok && p.Contains(a)
	}), err
}

// lowerMatches and the following are the same helpers as closures.
func lowerMatches(l *lowerer, args []ast.Node) (value, error) {
	x, err := l.node(args[0])
	if err != nil {
		return value{}, err
	}
	pattern, _ := constantText(args[1])
	re, err := l.consts.pattern(pattern)
	if err != nil {
		return value{}, err
	}
	return l.matchText(x, re)
}

func lowerContains(l *lowerer, args []ast.Node) (value, error) {
	part, ok := constantText(args[1])
	x, err := l.node(args[0])
	if err != nil || !ok {
		return value{}, errors.Join(err, cannot("Contains without a constant"))
	}
	if x.class == isPlace {
		addr := x.addr
		return boolValue(func(e *env) bool {
			r := addr(e)
			return !r.isNil() && slices.Contains(r.texts(), part)
		})
	}
	return l.containsAny(x, []string{part})
}

func lowerContainsAny(l *lowerer, args []ast.Node) (value, error) {
	parts, ok := constantTexts(args[1:])
	x, err := l.node(args[0])
	if err != nil || !ok {
		return value{}, errors.Join(err, cannot("ContainsAny without constants"))
	}
	return l.containsAny(x, parts)
}

func (l *lowerer) containsAny(x value, parts []string) (value, error) {
	if x.class == isBytes {
		y := x.y
		raw := make([][]byte, len(parts))
		for i, p := range parts {
			raw[i] = []byte(p)
		}
		return boolValue(func(e *env) bool {
			b := y(e)
			return slices.ContainsFunc(raw, func(p []byte) bool { return bytes.Contains(b, p) })
		})
	}
	if x.class != isText {
		return value{}, cannot("a text function on what is no text")
	}
	s := l.text(x)
	return boolValue(func(e *env) bool {
		text := s(e)
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
	})
}

// constantTexts flattens constant texts and lists of them.
func constantTexts(args []ast.Node) ([]string, bool) {
	var out []string
	for _, a := range args {
		items := []ast.Node{a}
		if list, ok := a.(*ast.ArrayNode); ok {
			items = list.Nodes
		}
		for _, item := range items {
			s, ok := constantText(item)
			if !ok {
				return nil, false
			}
			out = append(out, s)
		}
	}
	return out, true
}
