package record

import (
	"bytes"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// Operator says how a Test compares a field.
type Operator uint8

// The operators. Which of a Test's lists they read follows from the field:
// Values for numbers and booleans (0 and 1), Texts for texts, Prefixes for
// addresses.
const (
	// OneOf: the value, after the mask, is one of the list.
	OneOf Operator = iota
	// NoneOf: the value, after the mask, is none of the list.
	NoneOf
	// Between: Values[0] <= value <= Values[1], after the mask.
	Between
	// NotBetween: value < Values[0] or value > Values[1], after the mask.
	NotBetween
	// Within: the address lies in one of Prefixes.
	Within
	// NotWithin: the address lies in none of Prefixes.
	NotWithin
	// ContainsAny: the text, or the bytes, hold one of Texts, whatever the
	// case of their ASCII letters is.
	ContainsAny
)

// String is the operator as Test.String writes it.
func (o Operator) String() string {
	return [...]string{"in", "not in", "between", "not between", "within", "not within", "contains"}[o]
}

// FieldFlags names what no field of a TCP record is: its flags as one number,
// as they stand in the header. Tests of SYN, ACK and the other flags of one
// case are one test of FieldFlags with a Mask.
const FieldFlags = "Flags"

// flagNS is the bit of FieldFlags beside the eight of a Segment (RFC 3540).
const flagNS = 1 << 8

// FlagBit is the bit of FieldFlags that a TCP record's boolean field has (FIN 1,
// SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128, NS 256), 0 for any
// other name.
func FlagBit(field string) int64 {
	if i := slices.Index([]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS"}, field); i >= 0 {
		return 1 << i
	}
	return 0
}

// Test is one condition on one field of a record.
type Test struct {
	// Field is a top-level field of the record, or FieldFlags.
	Field string
	// Mask is applied to a number before it is compared; 0 = the whole number.
	Mask int64
	Op   Operator
	// Values are numbers as Go's int64; unsigned fields of 64 bits wrap.
	Values   []int64
	Texts    []string
	Prefixes []netip.Prefix
}

// Case is a conjunction: it holds where all of its tests do. An empty case
// holds always.
type Case []Test

// Conditions are what a rule's expression asks of a record of one type, as
// far as Tests can say it: wherever the expression is true, at least one of
// Cases holds. No case at all means that the expression is never true.
// Consumers (the engine's index, filters in the kernel) may leave out tests,
// never cases.
type Conditions struct {
	Type  Type
	Cases []Case
	// Exact: the other way round, too: where a case holds, the expression is
	// true. Otherwise the cases are only implied by it.
	Exact bool
}

// Hold reports whether a set's record satisfies the conditions. It is the
// meaning of the vocabulary, by reflection; packet paths compile it instead.
func (c Conditions) Hold(s *Set) bool {
	return slices.ContainsFunc(c.Cases, func(k Case) bool {
		return !slices.ContainsFunc(k, func(t Test) bool { return !t.Holds(c.Type, s) })
	})
}

// Holds reports whether a set's record of a type passes the test. A field
// that the record has not passes none.
func (t Test) Holds(typ Type, s *Set) bool {
	if t.Op == Within || t.Op == NotWithin {
		a := s.Src
		if strings.HasPrefix(t.Field, "Dst") || t.Field == "ServerIP" {
			a = s.Dst
		}
		a = a.Unmap().WithZone("")
		in := slices.ContainsFunc(t.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
		return in == (t.Op == Within)
	}
	if t.Field == FieldFlags && typ == TypeTCP {
		return t.number(s.TCP.flags())
	}
	f := reflect.ValueOf(s.Record(typ)).Elem().FieldByName(t.Field)
	switch {
	case !f.IsValid():
		return false
	case f.Kind() == reflect.Bool:
		if f.Bool() {
			return t.number(1)
		}
		return t.number(0)
	case f.CanInt():
		return t.number(f.Int())
	case f.CanUint():
		return t.number(int64(f.Uint()))
	case f.Kind() == reflect.String:
		return t.text(f.String())
	case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Uint8:
		return t.text(string(f.Bytes()))
	}
	return false
}

func (t Test) number(v int64) bool {
	if t.Mask != 0 {
		v &= t.Mask
	}
	switch t.Op {
	case OneOf:
		return slices.Contains(t.Values, v)
	case NoneOf:
		return !slices.Contains(t.Values, v)
	case Between:
		return t.Values[0] <= v && v <= t.Values[1]
	case NotBetween:
		return v < t.Values[0] || t.Values[1] < v
	case Within, NotWithin, ContainsAny:
	}
	return false
}

func (t Test) text(s string) bool {
	switch t.Op {
	case OneOf:
		return slices.Contains(t.Texts, s)
	case NoneOf:
		return !slices.Contains(t.Texts, s)
	case ContainsAny:
		folded := Fold([]byte(s))
		return slices.ContainsFunc(t.Texts, func(part string) bool { return bytes.Contains(folded, Fold([]byte(part))) })
	case Between, NotBetween, Within, NotWithin:
	}
	return false
}

// Fold is the text as ContainsAny compares it: ASCII letters in lower case,
// and the four other characters that Unicode's case mappings, and with them
// regular expressions, lower and upper, take for an ASCII letter, as that
// letter: U+017F is an s, U+212A a k, U+0130 and U+0131 are an i. It returns a
// copy.
func Fold(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		b, width := FoldByte(text, i)
		out, i = append(out, b), i+width-1
	}
	return out
}

// FoldByte is one step of Fold: the byte that stands for what begins at
// text[i], and how many bytes of text that is.
func FoldByte[T string | []byte](text T, i int) (folded byte, width int) {
	b := text[i]
	switch {
	case 'A' <= b && b <= 'Z':
		return b + 'a' - 'A', 1
	case b == 0xc5 && i+1 < len(text) && text[i+1] == 0xbf:
		return 's', 2
	case b == 0xc4 && i+1 < len(text) && text[i+1]|1 == 0xb1:
		return 'i', 2
	case b == 0xe2 && i+2 < len(text) && text[i+1] == 0x84 && text[i+2] == 0xaa:
		return 'k', 3
	}
	return b, 1
}

// flags are the record's flags as FieldFlags numbers them.
func (r *TCP) flags() int64 {
	var n int64
	for i, on := range [...]bool{r.FIN, r.SYN, r.RST, r.PSH, r.ACK, r.URG, r.ECE, r.CWR, r.NS} {
		if on {
			n |= 1 << i
		}
	}
	return n
}
