package engine

import (
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/netcap-guard/netcap-guard/record"
)

// Limits on the literals of one pattern.
const (
	maxLiterals   = 64
	maxLiteralLen = 64
	minLiteralLen = 2 // a shorter one is in every text
)

// literals are what is known of the texts that a part of a pattern matches,
// folded as record.Fold does it: exact lists all of them, or every match holds
// one of need. Nil says nothing.
type literals struct {
	exact, need []string
}

// patternLiterals returns texts of which every match of the pattern (RE2
// syntax) holds at least one, letter case aside; nil where there are none.
func patternLiterals(pattern string) []string {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil
	}
	list := literalsOf(re).best()
	if weight(list) < minLiteralLen {
		return nil
	}
	return list
}

// best is what must be in a match.
func (l literals) best() []string {
	if l.exact != nil && weight(l.exact) >= weight(l.need) {
		return l.exact
	}
	return l.need
}

// weight is the length of the shortest literal: how much the list says.
func weight(list []string) int {
	if len(list) == 0 {
		return 0
	}
	w := len(list[0])
	for _, s := range list[1:] {
		w = min(w, len(s))
	}
	return w
}

func literalsOf(re *syntax.Regexp) literals {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText,
		syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return literals{exact: []string{""}}
	case syntax.OpLiteral:
		return literalRunes(re)
	case syntax.OpCharClass:
		return literalClass(re)
	case syntax.OpCapture:
		return literalsOf(re.Sub[0])
	case syntax.OpConcat:
		return concat(re.Sub)
	case syntax.OpAlternate:
		return alternate(re.Sub)
	case syntax.OpPlus:
		return literals{need: literalsOf(re.Sub[0]).best()}
	case syntax.OpRepeat:
		if re.Min > 0 {
			return literals{need: literalsOf(re.Sub[0]).best()}
		}
	case syntax.OpQuest:
		if sub := literalsOf(re.Sub[0]); sub.exact != nil && len(sub.exact) < maxLiterals {
			return literals{exact: append(slices.Clone(sub.exact), "")}
		}
	case syntax.OpNoMatch, syntax.OpAnyCharNotNL, syntax.OpAnyChar, syntax.OpStar:
	}
	return literals{}
}

// foldRune is how a rune of a pattern looks in a folded text; ok is false
// where that is not one thing: bytes that are no UTF-8 match U+FFFD, and
// beyond ASCII letters of either case stay as they are.
func foldRune(r rune, anyCase bool) (string, bool) {
	s := string(record.Fold([]byte(string(r))))
	switch {
	case r == utf8.RuneError:
		return "", false
	case anyCase && s[0] >= utf8.RuneSelf && unicode.SimpleFold(r) != r:
		return "", false
	}
	return s, true
}

func literalRunes(re *syntax.Regexp) literals {
	var parts []literals
	for _, r := range re.Rune {
		if s, ok := foldRune(r, re.Flags&syntax.FoldCase != 0); ok {
			parts = append(parts, literals{exact: []string{s}})
		} else {
			parts = append(parts, literals{})
		}
	}
	return join(parts)
}

// literalClass spells out small classes, like [sS] or [._-].
func literalClass(re *syntax.Regexp) literals {
	var out []string
	for i := 0; i < len(re.Rune); i += 2 {
		if re.Rune[i+1]-re.Rune[i] > 8 || len(out) > 8 {
			return literals{}
		}
		for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
			s, ok := foldRune(r, false)
			if !ok {
				return literals{}
			}
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return literals{exact: slices.Compact(out)}
}

func concat(subs []*syntax.Regexp) literals {
	parts := make([]literals, len(subs))
	for i, s := range subs {
		parts[i] = literalsOf(s)
	}
	return join(parts)
}

// join is parts one after another: neighbours that are known exactly make
// longer literals; of all literals that a match must hold the longest count.
func join(parts []literals) literals {
	current, whole := []string{""}, true
	var need []string
	offer := func(list []string) {
		if weight(list) > weight(need) || weight(list) == weight(need) && len(list) < len(need) {
			need = list
		}
	}
	for _, p := range parts {
		if p.exact != nil && len(p.exact)*len(current) <= maxLiterals && longest(current)+longest(p.exact) <= maxLiteralLen {
			current = cross(current, p.exact)
			continue
		}
		whole = false
		offer(current)
		offer(p.need)
		current = []string{""}
		if p.exact != nil {
			current = p.exact
		}
	}
	if whole {
		return literals{exact: current}
	}
	offer(current)
	if weight(need) == 0 {
		need = nil
	}
	return literals{need: need}
}

func longest(list []string) int {
	n := 0
	for _, s := range list {
		n = max(n, len(s))
	}
	return n
}

func cross(a, b []string) []string {
	var out []string
	for _, x := range a {
		for _, y := range b {
			out = append(out, x+y)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func alternate(subs []*syntax.Regexp) literals {
	var out literals
	exact := true
	for _, s := range subs {
		sub := literalsOf(s)
		best := sub.best()
		if weight(best) == 0 && sub.exact == nil {
			return literals{}
		}
		exact = exact && sub.exact != nil
		out.exact = append(out.exact, sub.exact...)
		out.need = append(out.need, best...)
	}
	if len(out.exact) > maxLiterals || !exact {
		out.exact = nil
	}
	if len(out.need) > maxLiterals || weight(out.need) == 0 {
		out.need = nil
	}
	return out
}
