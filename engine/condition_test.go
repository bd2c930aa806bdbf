package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/record"
)

func TestConditions(t *testing.T) {
	for _, tc := range []struct {
		typ        record.Type
		expr, want string
	}{
		{record.TypeTCP, "SYN && !ACK && PayloadSize == 0", "Flags & 0x12 in [2] and PayloadSize in [0] (exact)"},
		{record.TypeTCP, "DstPort == 22 && SYN && !ACK", "Flags & 0x12 in [2] and DstPort in [22] (exact)"},
		{record.TypeTCP, "DstPort in [23, 2323] && SYN == true && ACK != true", "Flags & 0x12 in [2] and DstPort in [23 2323] (exact)"},
		{record.TypeTCP, "not (SYN || 1024 > DstPort)", "Flags & 0x2 in [0] and DstPort between [1024 9223372036854775807] (exact)"},
		{record.TypeTCP, "DstPort in 1..1023 or PortInRange(SrcPort, 1, 9)", "DstPort between [1 1023] or SrcPort between [1 9] (exact)"},
		{record.TypeTCP, "SYN && !SYN", "nothing (exact)"},
		{record.TypeTCP, "SYN || true", "Flags & 0x2 in [2] or anything (exact)"},
		{record.TypeTCP, "SYN ? DstPort == 1 : DstPort == 2", "Flags & 0x2 in [2] and DstPort in [1] or Flags & 0x2 in [0] and DstPort in [2] (exact)"},
		{record.TypeTCP, "SYN && Window * 2 > 9", "Flags & 0x2 in [2] (implied)"},
		{record.TypeTCP, `InSubnet(SrcIP, "10.0.0.0/8", "::1") && DstIP == "192.0.2.1"`, "SrcIP within [10.0.0.0/8 ::1/128] and DstIP within [192.0.2.1/32] (implied)"},
		{record.TypeTCP, `!InSubnet(SrcIP, "10.0.0.0/8")`, "SrcIP not within [10.0.0.0/8] (exact)"},
		{record.TypeTCP, "SeqNum % AckNum == 1 && SYN", "anything (implied)"},
		{record.TypeTCP, "SYN && SeqNum % AckNum == 1 && ACK", "Flags & 0x2 in [2] (implied)"},
		{record.TypeTCP, `MatchesPattern(Payload, "(?i)union.*select")`, `Payload contains ["select"] (implied)`},
		{record.TypeHTTP, `Method == "POST" && URL contains "/Login"`, `Method in ["POST"] and URL contains ["/login"] (implied)`},
		{record.TypeHTTP, `ContainsAny(lower(UserAgent), ["sqlmap", "nikto"])`, `UserAgent contains ["nikto" "sqlmap"] (implied)`},
		{record.TypeHTTP, `URL matches "(a|b)"`, "anything (implied)"},
		{record.TypeDNS, "!QR && len(Questions) > 0 && Questions[0].Type in [255, 252]", "QR in [0] (implied)"},
		{record.TypeUDP, "DstPort not in [53, 443] && SrcPort != 53", "DstPort not in [53 443] and SrcPort not in [53] (exact)"},
		{record.TypeIPv4, "TTL < 5 || Protocol not in 1..17", "TTL between [-9223372036854775808 4] or Protocol not between [1 17] (exact)"},
	} {
		t.Run(tc.expr, func(t *testing.T) {
			m, err := compile(tc.typ, tc.expr)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.when.vocabulary(tc.typ).String(); got != tc.typ.String()+": "+tc.want {
				t.Errorf("%s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestPatternLiterals(t *testing.T) {
	for pattern, want := range map[string][]string{
		"(?i)(union.*select|insert.*into|drop.*table)": {"insert", "select", "table"},
		"(?i)/(wp-login|login|signin)\\b":              {"/login", "/signin", "/wp-login"},
		"sqlmap":                                       {"sqlmap"},
		"^GET /(a|b)c":                                 {"get /ac", "get /bc"},
		"a*b?":                                         nil,
		"(abc)?":                                       nil,
		"(abc)+x":                                      {"abc"},
		"(foo){2,}":                                    {"foo"},
		"(foo){0,3}":                                   nil,
		"[sS][eE]lect":                                 {"select"},
		"(?i)größe":                                    {"gr"},
		"größe":                                        {"größe"},
		"foo|.*":                                       nil,
		"\\.\\./":                                      {"../"},
		"a\\x{FFFD}bc":                                 {"bc"},
		"x(y":                                          nil,
	} {
		t.Run(pattern, func(t *testing.T) {
			got := patternLiterals(pattern)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// randomPattern makes a regular expression of a small alphabet.
func randomPattern(r *rand.Rand, depth int) string {
	atom := func() string {
		return []string{"a", "B", "k", "s", "ſ", "é", "ab", "[aks]", "[^a]", ".", "\u212a", "i", "İ", "(?:", "\\b"}[r.IntN(15)]
	}
	if depth == 0 {
		if a := atom(); a != "(?:" {
			return a
		}
		return "ks"
	}
	switch r.IntN(6) {
	case 0:
		return "(" + randomPattern(r, depth-1) + "|" + randomPattern(r, depth-1) + ")"
	case 1:
		return "(?:" + randomPattern(r, depth-1) + ")" + []string{"*", "+", "?", "{1,2}", "{2}"}[r.IntN(5)]
	case 2:
		return "(?i:" + randomPattern(r, depth-1) + ")"
	}
	return randomPattern(r, depth-1) + randomPattern(r, depth-1)
}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(12) {
		b.WriteString([]string{"a", "b", "A", "B", "k", "K", "s", "S", "ſ", "é", "É", "\u212a", "i", "İ", "ı", "\xff", "\xc5", " "}[r.IntN(18)])
	}
	return b.String()
}

// FuzzPatternLiterals: where a pattern matches, one of its literals is there,
// and the automaton finds it.
func FuzzPatternLiterals(f *testing.F) {
	addSeeds(f, 800)
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		pattern := randomPattern(r, 4)
		if tree, err := syntax.Parse(pattern, syntax.Perl); err != nil || tree == nil {
			return
		}
		list := patternLiterals(pattern)
		if list == nil {
			return
		}
		re, a := regexp.MustCompile(pattern), newAutomaton([][]string{list})
		for range 30 {
			text := randomText(r)
			held := record.Test{Op: record.ContainsAny, Field: "URL", Texts: list}.Holds(record.TypeHTTP, &record.Set{HTTP: record.HTTP{URL: text}})
			if re.MatchString(text) && !held {
				t.Fatalf("%q matches %q, which holds none of %q", pattern, text, list)
			}
			if held && !in(a, text) || held && !in(a, []byte(text)) {
				t.Fatalf("%q holds one of %q, the automaton finds none", text, list)
			}
		}
	})
}

// FuzzConditions: where a random expression is true on a random record, its
// conditions hold; where they are exact, the other way round, too; and where
// they do not hold, its evaluation is no fault.
func FuzzConditions(f *testing.F) {
	addSeeds(f, 800)
	f.Fuzz(func(t *testing.T, seed uint64) {
		s := newScript(seed)
		typ := pick(s, record.Types()...)
		source := s.boolExpr(scope{reflect.TypeOf(typ.New()).Elem(), ""}, 4)
		m, err := compile(typ, source)
		if err != nil {
			return
		}
		vm, when := newMachine(), m.when.vocabulary(typ)
		for range 20 {
			set := s.record(typ)
			got, err := vm.run(m.program, set.Record(typ))
			switch held := when.Hold(set); {
			case (got || err != nil) && !held:
				t.Fatalf("%s: %v (%v)\nconditions %s\nrecord %+v", source, got, err, when, set.Record(typ))
			case held && when.Exact && !got:
				t.Fatalf("%s: false (%v)\nconditions %s\nrecord %+v", source, err, when, set.Record(typ))
			}
		}
	})
}

// FuzzIndex: with and without the index, and in the VM, random rule sets count
// the same matches and the same errors.
func FuzzIndex(f *testing.F) {
	addSeeds(f, 60)
	f.Fuzz(func(t *testing.T, seed uint64) {
		s := newScript(seed)
		typ := pick(s, record.TypeTCP, record.TypeDNS, record.TypeUDP, record.TypeTCP)
		var rules strings.Builder
		for i := range 12 {
			source := s.boolExpr(scope{reflect.TypeOf(typ.New()).Elem(), ""}, 1+i%4)
			if i%3 == 0 {
				source = fmt.Sprintf("%s && DstPort == %d", source, s.integer()&0xffff)
			}
			fmt.Fprintf(&rules, "- {name: r%d, type: %s, expression: %q, threshold: 1000}\n", i, typ, source)
		}
		rs, report := Load(Bytes("rules.yml", []byte(rules.String())))
		if report.Err() != nil {
			return // an expression that is too complex
		}
		var engines []*Engine
		var workers []*Worker
		for _, mode := range []Evaluation{EvaluateIndexed, EvaluateNative, EvaluateVM} {
			e := New(rs, Config{Evaluation: mode, Lossless: true, TrackerEntries: 64, TrackerStamps: 64})
			engines, workers = append(engines, e), append(workers, e.NewWorker())
		}
		for range 60 {
			set := s.record(typ)
			for _, w := range workers {
				w.Evaluate(set)
			}
		}
		want := engines[2].Stats().Rules
		for i, e := range engines[:2] {
			if got := e.Stats().Rules; !maps.EqualFunc(got, want, sameCounts) {
				t.Fatalf("way %d:\n%v\nVM:\n%v\n%s", i, got, want, rules.String())
			}
		}
	})
}

// sameCounts compares all that does not depend on how fast the machine is.
func sameCounts(a, b RuleStats) bool {
	return a.Matches == b.Matches && a.Errors == b.Errors && a.Alerts == b.Alerts
}

// TestIndexedRulesAreSkipped keeps the index from being right because it lets
// everything through.
func TestIndexedRulesAreSkipped(t *testing.T) {
	var rules strings.Builder
	for i := range 100 {
		fmt.Fprintf(&rules, "- {name: p%d, type: TCP, expression: 'SYN && DstPort == %d'}\n", i, i)
		fmt.Fprintf(&rules, "- {name: r%d, type: TCP, expression: 'DstPort in %d..%d && FIN'}\n", i, 1000+10*i, 1009+10*i)
		fmt.Fprintf(&rules, "- {name: n%d, type: TCP, expression: 'InSubnet(SrcIP, \"10.%d.0.0/16\")'}\n", i, i)
		fmt.Fprintf(&rules, "- {name: l%d, type: TCP, expression: 'MatchesPattern(Payload, \"(?i)needle%d[a-z]\")'}\n", i, i)
	}
	e, w := start(t, rules.String(), &journal{})
	a := e.active.Load()
	x := a.index[record.TypeTCP]
	for _, tc := range []struct {
		name string
		tcp  record.TCP
		most int
	}{
		{"nothing fits", record.TCP{ACK: true, DstPort: 50}, 0},
		{"a port", record.TCP{SYN: true, DstPort: 50}, 1},
		{"a range", record.TCP{FIN: true, DstPort: 1055}, 1},
		{"a literal", record.TCP{ACK: true, Payload: []byte("a NEEDLE7 in hay")}, 1},
		{"two digits hold one, too", record.TCP{ACK: true, Payload: []byte("a NEEDLE77x in hay")}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set := background()
			set.TCP = tc.tcp
			w.env = env{rec: w.layout.record(set, record.TypeTCP), hdr: &set.Header}
			c := candidates{words: make([]uint64, a.words)}
			x.collect(&w.env, &c)
			n, word := 0, 0
			for c.next(&word) >= 0 {
				n++
			}
			if n != tc.most {
				t.Errorf("%d candidates, want %d", n, tc.most)
			}
		})
	}
}
