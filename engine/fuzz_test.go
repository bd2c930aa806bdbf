package engine

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/record"
)

// script makes random expressions and records out of fuzz input.
type script struct{ r *rand.Rand }

func newScript(seed uint64) script { return script{rand.New(rand.NewPCG(seed, 0x6e65746361702d67))} }

func pick[T any](s script, list ...T) T { return list[s.r.IntN(len(list))] }

func (s script) integer() int {
	return pick(s, 0, 1, -1, 2, 3, 22, 53, 80, 255, 65535, math.MaxInt32, math.MinInt32, math.MaxUint32, math.MaxInt64, math.MinInt64)
}

func (s script) text() string {
	return pick(s, "", "a", "A", "ab", "union select", "10.0.0.1", "10.0.0.2", "::1", "fe80::1", "22", "65536",
		"/login?x=%27", "ünï", "sqlmap/1.0", "192.0.2.1", "2001:db8::1", "10.0.0.01")
}

// fill gives a value random contents.
func (s script) fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(s.r.IntN(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(s.integer()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(s.integer()))
	case reflect.Float64:
		v.SetFloat(pick(s, 0, 1, -1, 1.5, 7.9, math.Inf(1), math.NaN(), 3e9))
	case reflect.String:
		v.SetString(s.text())
	case reflect.Slice:
		if n := s.r.IntN(4); n > 0 && depth > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n-1, n-1))
			for i := range n - 1 {
				s.fill(v.Index(i), depth-1)
			}
		}
	case reflect.Pointer:
		if s.r.IntN(5) > 0 && depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			s.fill(v.Elem(), depth-1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(s.text()), reflect.ValueOf(s.text()))
	case reflect.Struct:
		for i := range v.NumField() {
			s.fill(v.Field(i), depth)
		}
	}
}

// record fills the set's record of type t, its address fields in step with
// the header, as decoders do it.
func (s script) record(t record.Type) *record.Set {
	set := &record.Set{Have: record.Of(t)}
	v := reflect.ValueOf(set.Record(t)).Elem()
	s.fill(v, 4)
	for name, addr := range map[string]*netip.Addr{"SrcIP": &set.Src, "DstIP": &set.Dst} {
		*addr = netip.MustParseAddr(pick(s, "10.0.0.1", "10.0.0.2", "192.0.2.1", "::1", "fe80::1", "2001:db8::1", "8.8.8.8", "::ffff:10.0.0.1"))
		if f := v.FieldByName(name); f.IsValid() {
			f.SetString(addr.String())
		}
	}
	return set
}

// path is an expression for something of a kind, with the base it starts
// from: "" for the record's own fields, "." for those of a predicate's item.
func (s script) path(t reflect.Type, base string, ok func(reflect.Type) bool, depth int) string {
	for range 20 {
		f := t.Field(s.r.IntN(t.NumField()))
		name := base + f.Name
		switch {
		case ok(f.Type):
			return name
		case f.Type.Kind() == reflect.Slice && ok(f.Type.Elem()):
			return fmt.Sprintf("%s[%d]", name, pick(s, 0, 1, -1, 2))
		case depth > 0 && f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Pointer:
			if p := s.path(f.Type.Elem().Elem(), fmt.Sprintf("%s[%d].", name, pick(s, 0, 1, -1, 2)), ok, depth-1); p != "" {
				return p
			}
		case depth > 0 && f.Type.Kind() == reflect.Pointer:
			if p := s.path(f.Type.Elem(), name+".", ok, depth-1); p != "" {
				return p
			}
		}
	}
	return ""
}

func kindIs(kinds ...reflect.Kind) func(reflect.Type) bool {
	return func(t reflect.Type) bool {
		for _, k := range kinds {
			if t.Kind() == k {
				return true
			}
		}
		return false
	}
}

func isNumberType(t reflect.Type) bool { return isInteger(t.Kind()) }

// scope is what an expression can name: a struct, and how its fields begin.
type scope struct {
	typ  reflect.Type
	base string
}

func (s script) or(p, fallback string) string {
	if p == "" {
		return fallback
	}
	return p
}

func (s script) intExpr(sc scope, depth int) string {
	if depth <= 0 || s.r.IntN(3) == 0 {
		if s.r.IntN(3) == 0 {
			return s.literal(s.integer())
		}
		return s.or(s.path(sc.typ, sc.base, isNumberType, 2), "1")
	}
	switch s.r.IntN(9) {
	case 7:
		return fmt.Sprintf("(%s ? int(%s) : int(%s))", s.boolExpr(sc, depth-1), s.intExpr(sc, depth-1), s.intExpr(sc, depth-1))
	case 8:
		return s.filtered(sc, depth)
	case 0:
		return fmt.Sprintf("(%s %s %s)", s.intExpr(sc, depth-1), pick(s, "+", "-", "*", "%"), s.intExpr(sc, depth-1))
	case 1:
		return "(-" + s.intExpr(sc, 0) + ")"
	case 2:
		return "len(" + s.textExpr(sc, depth-1) + ")"
	case 3:
		return "len(" + s.or(s.path(sc.typ, sc.base, kindIs(reflect.Slice, reflect.Map), 1), `"x"`) + ")"
	case 4:
		return "int(" + s.intExpr(sc, depth-1) + ")"
	case 5:
		return "ParsePort(" + s.textExpr(sc, depth-1) + ")"
	}
	return pick(s, "HourOfDay()", "Weekday()", "HourOfDay("+s.intExpr(sc, depth-1)+")")
}

// literal writes an integer so that expr can read it back.
func (s script) literal(i int) string {
	if i == math.MinInt64 {
		i++
	}
	if i < 0 {
		return fmt.Sprintf("(%d)", i)
	}
	return fmt.Sprint(i)
}

func (s script) floatExpr(sc scope, depth int) string {
	switch s.r.IntN(5) {
	case 0:
		return pick(s, "1.5", "0.0", "7.9")
	case 1:
		return fmt.Sprintf("(%s / %s)", s.intExpr(sc, depth-1), s.intExpr(sc, depth-1))
	case 2:
		return fmt.Sprintf("(%s ** 2)", s.intExpr(sc, depth-1))
	case 3:
		return "DurationSince(" + s.intExpr(sc, depth-1) + ")"
	}
	return s.or(s.path(sc.typ, sc.base, kindIs(reflect.Float64), 1), "float("+s.intExpr(sc, depth-1)+")")
}

func (s script) textExpr(sc scope, depth int) string {
	if depth <= 0 || s.r.IntN(3) > 0 {
		if s.r.IntN(3) == 0 {
			return fmt.Sprintf("%q", s.text())
		}
		return s.or(s.path(sc.typ, sc.base, kindIs(reflect.String), 2), `"x"`)
	}
	switch s.r.IntN(5) {
	case 4:
		return fmt.Sprintf("(%s ? %s : %s)", s.boolExpr(sc, depth-1), s.textExpr(sc, depth-1), s.textExpr(sc, depth-1))
	case 0:
		return fmt.Sprintf("(%s + %s)", s.textExpr(sc, depth-1), s.textExpr(sc, depth-1))
	case 1:
		if m := s.path(sc.typ, sc.base, kindIs(reflect.Map), 0); m != "" {
			return fmt.Sprintf("%s[%q]", m, s.text())
		}
	case 2:
		return `FormatTime("15:04")`
	}
	return pick(s, "lower", "upper", "trim") + "(" + s.textExpr(sc, depth-1) + ")"
}

func (s script) boolExpr(sc scope, depth int) string {
	if depth <= 0 {
		return s.or(s.path(sc.typ, sc.base, kindIs(reflect.Bool), 2), "true")
	}
	order := pick(s, "==", "!=", "<", "<=", ">", ">=")
	switch s.r.IntN(16) {
	case 0, 1:
		return fmt.Sprintf("(%s %s %s)", s.boolExpr(sc, depth-1), pick(s, "&&", "||", "and", "or", "==", "!="), s.boolExpr(sc, depth-1))
	case 2:
		return pick(s, "!", "not ") + "(" + s.boolExpr(sc, depth-1) + ")"
	case 3, 4:
		return fmt.Sprintf("(%s %s %s)", s.intExpr(sc, depth-1), order, s.intExpr(sc, depth-1))
	case 5:
		return fmt.Sprintf("(%s %s %s)", s.intExpr(sc, depth-1), order, s.floatExpr(sc, depth-1))
	case 6:
		return fmt.Sprintf("(%s %s %s)", s.textExpr(sc, depth-1), order, s.textExpr(sc, depth-1))
	case 7:
		if s.r.IntN(4) == 0 {
			return fmt.Sprintf("%s(%s, %s)", pick(s, "hasPrefix", "hasSuffix"), s.textExpr(sc, depth-1), s.textExpr(sc, depth-1))
		}
		return fmt.Sprintf("(%s %s %s)", s.textExpr(sc, depth-1), pick(s, "contains", "startsWith", "endsWith"), s.textExpr(sc, depth-1))
	case 8:
		return fmt.Sprintf("(%s %s [%d, %d, 22])", s.intExpr(sc, 1), pick(s, "in", "not in"), pick(s, 0, 2, 80), -s.r.IntN(3))
	case 9:
		return fmt.Sprintf("(%s in [%q, %q])", s.textExpr(sc, depth-1), s.text(), s.text())
	case 10:
		return fmt.Sprintf("(%s in %d..%d)", s.intExpr(sc, 1), pick(s, 0, 1, 2, 22), pick(s, 2, 3, 22, 53, 80, 255))
	case 11:
		return s.predicate(sc, depth)
	case 12:
		return fmt.Sprintf("(%s ? %s : %s)", s.boolExpr(sc, depth-1), s.boolExpr(sc, depth-1), s.boolExpr(sc, depth-1))
	case 13:
		return s.member(sc, depth)
	}
	return s.helper(sc, depth)
}

// member asks whether something is in a field that is a list or a map, or
// compares a pointer with nil.
func (s script) member(sc scope, depth int) string {
	list := s.path(sc.typ, sc.base, func(t reflect.Type) bool { return t == reflect.TypeFor[[]string]() }, 1)
	ints := s.path(sc.typ, sc.base, func(t reflect.Type) bool { return t == reflect.TypeFor[[]int32]() }, 1)
	dict := s.path(sc.typ, sc.base, isDictionary, 0)
	ptr := s.path(sc.typ, sc.base, kindIs(reflect.Pointer), 1)
	switch {
	case list != "" && s.r.IntN(2) == 0:
		return fmt.Sprintf("(%s in %s)", s.textExpr(sc, depth-1), list)
	case ints != "" && s.r.IntN(2) == 0:
		return fmt.Sprintf("(%s in %s)", s.intExpr(sc, depth-1), ints)
	case dict != "" && s.r.IntN(2) == 0:
		return fmt.Sprintf("(%q in %s || HasKey(%s, %s))", s.text(), dict, dict, s.textExpr(sc, depth-1))
	case ptr != "":
		return fmt.Sprintf("(%s %s nil)", ptr, pick(s, "==", "!="))
	}
	return "true"
}

func (s script) predicate(sc scope, depth int) string {
	for range 10 {
		f := sc.typ.Field(s.r.IntN(sc.typ.NumField()))
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Pointer {
			inner := scope{f.Type.Elem().Elem(), "."}
			body := s.boolExpr(inner, depth-1)
			if s.r.IntN(4) == 0 {
				return fmt.Sprintf("(count(%s%s, %s) > %d)", sc.base, f.Name, body, s.r.IntN(3))
			}
			return fmt.Sprintf("%s(%s%s, %s)", pick(s, "any", "all", "none", "one"), sc.base, f.Name, body)
		}
	}
	return s.boolExpr(sc, depth-1)
}

// filtered counts the items of a list that a predicate lets through.
func (s script) filtered(sc scope, depth int) string {
	for range 10 {
		f := sc.typ.Field(s.r.IntN(sc.typ.NumField()))
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Pointer {
			return fmt.Sprintf("len(filter(%s%s, %s))", sc.base, f.Name, s.boolExpr(scope{f.Type.Elem().Elem(), "."}, depth-1))
		}
	}
	return "3"
}

func (s script) helper(sc scope, depth int) string {
	text := s.textExpr(sc, depth-1)
	if s.r.IntN(2) == 0 && sc.base == "" {
		if _, ok := sc.typ.FieldByName("SrcIP"); ok {
			text = pick(s, "SrcIP", "DstIP")
		}
	}
	switch s.r.IntN(11) {
	case 0:
		return fmt.Sprintf("InSubnet(%s, %q, %q)", text, pick(s, "10.0.0.0/8", "fe80::/10", "::1"), pick(s, "192.0.2.1", "::ffff:0:0/96"))
	case 1:
		return "IsPrivateIP(" + text + ")"
	case 2:
		return "IsPublicIP(" + text + ")"
	case 3:
		return fmt.Sprintf("PortInRange(%s, %s, %s)", s.intExpr(sc, depth-1), s.intExpr(sc, depth-1), s.intExpr(sc, depth-1))
	case 4:
		return fmt.Sprintf("ContainsAny(%s, [%q, %q])", text, s.text(), s.text())
	case 5:
		return fmt.Sprintf("ContainsAny(%s, %q, %q)", text, s.text(), s.text())
	case 6:
		return fmt.Sprintf("InAllowlist(%s, %q, [%q, \"10.0.0.0/8\"])", text, s.text(), s.text())
	case 7:
		return fmt.Sprintf("(%s matches %q)", s.or(s.path(sc.typ, sc.base, textual, 1), text), pick(s, "(?i)UNION.*select", "^$", "[0-9]+", ""))
	case 8:
		return fmt.Sprintf("Contains(%s, %q)", text, s.text())
	case 9:
		return fmt.Sprintf("(%s == %q)", text, s.text())
	}
	return fmt.Sprintf("MatchesPattern(%s, %q)", text, pick(s, "(?i)union", "a|b", "^10[.]"))
}

// compareBoth evaluates an expression natively and in the VM.
func compareBoth(t *testing.T, m *matcher, source string, set *record.Set) {
	t.Helper()
	vm := newMachine()
	want, vmErr := vm.run(m.program, set.Record(m.record))
	e := env{rec: newLayout().record(set, m.record), hdr: &set.Header}
	got := m.native(&e)
	if failed := e.fault != noFault; failed != (vmErr != nil) {
		t.Fatalf("%s: %s\nnative fault %v, VM error %v\nrecord %+v", m.record, source, e.fault, vmErr, set.Record(m.record))
	}
	if vmErr == nil && got != want {
		t.Fatalf("%s: %s\nnative %v, VM %v\nrecord %+v", m.record, source, got, want, set.Record(m.record))
	}
}

// addSeeds gives a fuzz target whose input is a seed so many of them: a test
// run tries them all, a fuzzer needs a few to begin with.
func addSeeds(f *testing.F, n uint64) {
	f.Helper()
	if on := flag.Lookup("test.fuzz"); on != nil && on.Value.String() != "" {
		n = min(n, 40)
	}
	for seed := range n {
		f.Add(seed)
	}
}

// FuzzNativeVersusVM holds the closures to the answers of the expression VM,
// evaluation errors included, on random expressions and records.
func FuzzNativeVersusVM(f *testing.F) {
	addSeeds(f, 2000)
	f.Fuzz(func(t *testing.T, seed uint64) {
		s := newScript(seed)
		typ := pick(s, record.Types()...)
		source := s.boolExpr(scope{reflect.TypeOf(typ.New()).Elem(), ""}, 4)
		m, err := compile(typ, source)
		if err != nil {
			if strings.Contains(err.Error(), "too complex") {
				return
			}
			t.Fatalf("%s: %s: %v", typ, source, err)
		}
		if m.native == nil {
			return
		}
		for range 20 {
			compareBoth(t, m, source, s.record(typ))
		}
	})
}

// TestGeneratorReachesNative keeps the fuzz test from passing because nothing
// is ever lowered.
func TestGeneratorReachesNative(t *testing.T) {
	native, total := 0, 400
	why := map[string]int{}
	for seed := range uint64(total) {
		s := newScript(seed)
		typ := pick(s, record.Types()...)
		m, err := compile(typ, s.boolExpr(scope{reflect.TypeOf(typ.New()).Elem(), ""}, 4))
		if err != nil {
			t.Fatal(err)
		}
		if m.native != nil {
			native++
		} else {
			why[m.slow]++
		}
	}
	if native < total*8/10 {
		t.Errorf("%d of %d random expressions are native: %v", native, total, why)
	}
}
