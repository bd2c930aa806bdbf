package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcap-guard/netcap-guard/firewall"
)

func prefixesEqual() cmp.Option {
	return cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
}

// readList reads a whole list: the good lines, and what is wrong with others.
func readList(t testing.TB, in io.Reader) (good []listed, bad []string) {
	t.Helper()
	l := newListReader(in)
	for {
		e, err := l.next()
		var wrong *errLine
		switch {
		case errors.Is(err, io.EOF):
			return good, bad
		case errors.As(err, &wrong):
			bad = append(bad, err.Error())
		case err != nil:
			t.Fatal(err)
		default:
			good = append(good, e)
		}
	}
}

func TestListFormats(t *testing.T) {
	p := netip.MustParsePrefix
	for _, tc := range []struct {
		name, text string
		good       []listed
		bad        []string // parts, one for each bad line
	}{
		{"nothing", "", nil, nil},
		{"comments", "# a list\n\n  # more\n", nil, nil},
		{"plain", "192.0.2.1\n198.51.100.0/24 # a network\n 2001:db8::1 \r\n::ffff:192.0.2.9", []listed{
			{line: 1, prefix: p("192.0.2.1/32")}, {line: 2, prefix: p("198.51.100.0/24")}, {line: 3, prefix: p("2001:db8::1/128")}, {line: 4, prefix: p("192.0.2.9/32")},
		}, nil},
		{"with the mark of its encoding", "\ufeff192.0.2.1\n", []listed{{line: 1, prefix: p("192.0.2.1/32")}}, nil},
		{"bad plain lines", "192.0.2.300\n192.0.2.1\nexample.org\n10.0.0.0/33\nfe80::1%eth0\n192.0.2.1 192.0.2.2\n", []listed{{line: 2, prefix: p("192.0.2.1/32")}},
			[]string{"line 1: ", "line 3: ", "line 4: ", "line 5: ", "line 6: "}},
		{"CSV", "ip,reason,for\n192.0.2.1,\"scanner, loud\",30m\n192.0.2.2\n\n192.0.2.3,,2h,more\n", []listed{
			{line: 2, prefix: p("192.0.2.1/32"), reason: "scanner, loud", life: "30m"}, {line: 3, prefix: p("192.0.2.2/32")}, {line: 5, prefix: p("192.0.2.3/32"), life: "2h"},
		}, nil},
		{"CSV in another order", "Reason, Action ,CIDR,Rate,Burst,Target\nflood,rate-limit,192.0.2.0/24,10/s,7,dst\n", []listed{
			{line: 2, prefix: p("192.0.2.0/24"), reason: "flood", action: "rate-limit", rate: "10/s", burst: "7", target: "dst"},
		}, nil},
		{"CSV without names", "192.0.2.1,2024-01-01,scanner\n192.0.2.2,x,\n192.0.2.3,,\n", []listed{{line: 1, prefix: p("192.0.2.1/32"), more: 2}, {line: 2, prefix: p("192.0.2.2/32"), more: 1}, {line: 3, prefix: p("192.0.2.3/32")}}, nil},
		{"one column with its name", "ip\n192.0.2.1\n192.0.2.2 \n", []listed{{line: 2, prefix: p("192.0.2.1/32")}, {line: 3, prefix: p("192.0.2.2/32")}}, nil},
		{"bad CSV", "ip,reason\n192.0.2.1,\"open\n,empty\nnobody,x\n192.0.2.2,fine\n", []listed{{line: 5, prefix: p("192.0.2.2/32"), reason: "fine"}},
			[]string{"line 2: CSV: ", "line 3: ", `line 4: invalid: "nobody"`}},
		{"JSON", `{"ip":"192.0.2.1"}
{"prefix":"192.0.2.0/24","for":"30m","reason":"r","target":"destination","action":"reject"}
{"ip":"192.0.2.2","duration":90,"rate":"5/s","burst":3,"unknown":{"x":[1]}}
{"ip":"192.0.2.3","for":0}`, []listed{
			{line: 1, prefix: p("192.0.2.1/32")},
			{line: 2, prefix: p("192.0.2.0/24"), life: "30m", reason: "r", target: "destination", action: "reject"},
			{line: 3, prefix: p("192.0.2.2/32"), life: "90m", rate: "5/s", burst: "3"},
			{line: 4, prefix: p("192.0.2.3/32"), life: "0m"},
		}, nil},
		{"what list prints", `{"prefix":"192.0.2.1/32","target":"source","action":"RATE_LIMIT","rule":"r","reason":"x","origin":"rule","created":"2026-01-02T03:04:05.678901Z","expires":null,"remaining":61.5,"packets":null,"limit":"10/second burst 5"}`,
			[]listed{{line: 1, prefix: p("192.0.2.1/32"), target: "source", action: "RATE_LIMIT", reason: "x", life: "1m1.5s", rate: "10/second", burst: "5"}}, nil},
		{"bad JSON", `{"ip":"192.0.2.1"
{"ip":5}
{}
{"ip":"192.0.2.1","prefix":"192.0.2.1"}
{"ip":"192.0.2.1"} {"ip":"192.0.2.2"}
{"ip":"192.0.2.1","for":-5}
{"ip":"192.0.2.1","for":[1]}
{"ip":"nobody"}
{"ip":"192.0.2.9"}`, []listed{{line: 9, prefix: p("192.0.2.9/32")}},
			[]string{"line 1: JSON", "line 2: JSON", "line 3: JSON: neither", "line 4: JSON: prefix and ip", "line 5: JSON: more than one", "line 6: JSON: -5", "line 7: JSON: ", "line 8: invalid"}},
		{"what list prints of a block without an end", `{"prefix":"192.0.2.1/32","expires":null,"remaining":null}
{"prefix":"192.0.2.2/32","remaining":null}
{"prefix":"192.0.2.3/32","for":"5m","expires":null,"remaining":null}
{"prefix":"192.0.2.4/32","expires":null,"remaining":"soon"}`, []listed{
			{line: 1, prefix: p("192.0.2.1/32"), life: "0"}, {line: 2, prefix: p("192.0.2.2/32")}, {line: 3, prefix: p("192.0.2.3/32"), life: "5m"},
		}, []string{`line 4: JSON: remaining "soon" is no number of seconds`}},
		{"JSON of other types", `{"ip":5}
{"ip":"192.0.2.1","burst":"3"}
{"ip":`, nil, []string{"line 1: JSON: ip is a number and must be a string", "line 2: JSON: burst is a string and must be a whole number",
			"line 3: JSON: the object does not end on its line"}},
		{"a column's name that is no header", "192.0.2.1\nhost\nnobody,ip\n192.0.2.2\n", []listed{{line: 1, prefix: p("192.0.2.1/32")}, {line: 4, prefix: p("192.0.2.2/32")}},
			[]string{`line 2: invalid: "host"`, `line 3: invalid: "nobody"`}},
		{"a comma in what is said of an address", "192.0.2.1 # ours, once\n192.0.2.2,x\n192.0.2.3 # theirs, now\n", []listed{
			{line: 1, prefix: p("192.0.2.1/32")}, {line: 2, prefix: p("192.0.2.2/32"), more: 1}, {line: 3, prefix: p("192.0.2.3/32")},
		}, nil},
		{"all of them", "192.0.2.1\n{\"ip\":\"192.0.2.2\"}\n192.0.2.3,x\n", []listed{
			{line: 1, prefix: p("192.0.2.1/32")}, {line: 2, prefix: p("192.0.2.2/32")}, {line: 3, prefix: p("192.0.2.3/32"), more: 1},
		}, nil},
		{"a line that is too long", "192.0.2.1\n" + strings.Repeat("x", 3*maxLine) + "\n192.0.2.2\n", []listed{{line: 1, prefix: p("192.0.2.1/32")}, {line: 3, prefix: p("192.0.2.2/32")}},
			[]string{"line 2: longer than"}},
		{"one at the end", strings.Repeat("x", 2*maxLine), nil, []string{"line 1: longer than"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			good, bad := readList(t, strings.NewReader(tc.text))
			if diff := cmp.Diff(tc.good, good, cmp.AllowUnexported(listed{}), prefixesEqual()); diff != "" {
				t.Error(diff)
			}
			if len(bad) != len(tc.bad) {
				t.Fatalf("bad lines %q, want %q", bad, tc.bad)
			}
			for i, want := range tc.bad {
				if !strings.HasPrefix(bad[i], want) {
					t.Errorf("%q, want %q", bad[i], want)
				}
			}
		})
	}
}

// failing is an input that ends with an error.
type failing struct{ text io.Reader }

var errBroken = errors.New("the pipe broke")

func (f failing) Read(p []byte) (int, error) {
	n, err := f.text.Read(p)
	if errors.Is(err, io.EOF) {
		err = errBroken
	}
	return n, err
}

func TestListOfABrokenPipe(t *testing.T) {
	l := newListReader(failing{strings.NewReader("192.0.2.1\n192.0.2.2")})
	if e, err := l.next(); err != nil || e.line != 1 {
		t.Fatalf("%+v, %v", e, err)
	}
	if e, err := l.next(); !errors.Is(err, errBroken) {
		t.Errorf("half a line is %+v, %v", e, err)
	}
}

// FuzzList: no list makes the reader panic or loop, every prefix it gives is
// canonical, and each line is either good, bad or nothing.
func FuzzList(f *testing.F) {
	for _, s := range []string{"192.0.2.1\n", "ip,reason\n192.0.2.1,x\n", `{"ip":"192.0.2.1","for":5}`, "\"", "a,\"\n,", "{\"ip\":\"::1\",\"remaining\":1e300}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		good, bad := readList(t, strings.NewReader(text))
		lines := strings.Count(text, "\n") + 1
		if len(good)+len(bad) > lines {
			t.Errorf("%d good and %d bad of %d lines", len(good), len(bad), lines)
		}
		last := 0
		for _, e := range good {
			if again, err := firewall.ParsePrefix(e.prefix.String()); err != nil || again != e.prefix {
				t.Errorf("prefix %v", e.prefix)
			}
			if e.line <= last || e.line > lines {
				t.Errorf("line %d after %d", e.line, last)
			}
			last = e.line
			_, _ = BlockRequest{Target: "source", Action: "drop"}.with(e) // must not panic
		}
	})
}

func TestLineWinsOverFlags(t *testing.T) {
	hour, minute := time.Hour, time.Minute
	flags := BlockRequest{For: "1h", HasFor: true, Reason: "flag", Target: "source", Action: "drop", Force: true}
	limits := BlockRequest{Target: "source", Action: "rate-limit", Rate: "10/s", Burst: 9}
	one := netip.MustParsePrefix("192.0.2.1/32")
	for _, tc := range []struct {
		name  string
		flags BlockRequest
		line  listed
		want  BlockEntry
		says  string
	}{
		{"nothing said", flags, listed{}, BlockEntry{Target: "source", Action: "drop", Reason: "flag", Force: true, Duration: &hour}, ""},
		{"all said", flags, listed{life: "1m", reason: "line", target: "dst", action: "rate-limit", rate: "1/s", burst: "2"},
			BlockEntry{Target: "dst", Action: "rate-limit", Reason: "line", Force: true, Duration: &minute, Rate: "1/s", Burst: 2}, ""},
		{"a limit of the flags", limits, listed{action: "RATE_LIMIT", burst: "3"}, BlockEntry{Target: "source", Action: "RATE_LIMIT", Rate: "10/s", Burst: 3}, ""},
		{"no limit after all", limits, listed{action: "DROP"}, BlockEntry{Target: "source", Action: "DROP"}, ""},
		{"a rate without a limit", flags, listed{rate: "1/s"}, BlockEntry{}, "rate and burst go with the action rate-limit"},
		{"a bad rate", limits, listed{rate: "1/fortnight"}, BlockEntry{}, "fortnight"},
		{"a bad burst", limits, listed{burst: "-1"}, BlockEntry{}, `burst "-1"`},
		{"a burst beyond the largest", limits, listed{burst: "4294967296"}, BlockEntry{}, "burst 4294967296"},
		{"columns without names", flags, listed{more: 2, reason: "x"}, BlockEntry{}, "2 more columns, but no header line names them (e.g. ip,for,reason)"},
		{"a column without a name", flags, listed{more: 1}, BlockEntry{}, "1 more column, but"},
		{"a bad life", flags, listed{life: "soon"}, BlockEntry{}, `duration "soon"`},
		{"a bad target", flags, listed{target: "left"}, BlockEntry{}, "left"},
		{"a log", flags, listed{action: "LOG"}, BlockEntry{}, `action "LOG"`},
		{"a long reason", flags, listed{reason: strings.Repeat("ä", maxReason)},
			BlockEntry{Target: "source", Action: "drop", Reason: strings.Repeat("ä", maxReason/2), Force: true, Duration: &hour}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.line.prefix, tc.want.Prefix = one, one
			got, err := tc.flags.with(tc.line)
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "--") {
					t.Errorf("error %v, want %q in it and no flag", err, tc.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, prefixesEqual()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// longList is a list of n lines of which every step-th is bad.
func longList(n, step int) string {
	var b strings.Builder
	a := netip.MustParseAddr("10.0.0.0")
	for i := 1; i <= n; i++ {
		if a = a.Next(); i%step == 0 {
			fmt.Fprintf(&b, "10.0.0.%d000\n", i)
			continue
		}
		b.WriteString(a.String() + "\n")
	}
	return b.String()
}

// TestFullInTheMiddle: what fitted is blocked, the rest is named.
func TestFullInTheMiddle(t *testing.T) {
	m, err := firewall.NewManager(&firewall.ManagerConfig{DryRun: true, MaxActiveBlocks: 120})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	var out bytes.Buffer
	v := &Verb{admin: &local{m: m}, std: Streams{In: strings.NewReader(longList(200, 1000)), Out: &out}}
	err = v.Block(t.Context(), "-", BlockRequest{Target: "source", Action: "drop"})
	if ExitCode(err) != ExitFailed || strings.Count(err.Error(), "\n") != 79 || !strings.Contains(err.Error(), "line 200: ") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("exit code %d: %v", ExitCode(err), err)
	}
	if n := len(m.GetActiveBlocks()); n != 120 || !strings.Contains(out.String(), "120 created, 80 failed") {
		t.Errorf("%d blocks, says %q", n, out.String())
	}
}

// TestKernelLogLimit: a source that floods has its share, and others theirs.
func TestKernelLogLimit(t *testing.T) {
	l, now := newLogLimit(), time.Unix(1700000000, 0)
	count := func(src string, n int) (passed int) {
		for range n {
			if l.allow(netip.MustParseAddr(src), now) {
				passed++
			}
		}
		return passed
	}
	if n := count("192.0.2.1", 1000); n != sourceLogBurst {
		t.Errorf("%d events at once, want %d", n, sourceLogBurst)
	}
	now = now.Add(time.Second)
	if n := count("192.0.2.1", 1000); n != sourceLogRate {
		t.Errorf("%d events after a second, want %d", n, sourceLogRate)
	}
	a := netip.MustParseAddr("10.0.0.0")
	total := 0
	for range 10_000 {
		if a = a.Next(); l.allow(a, now) {
			total++
		}
	}
	if total < totalLogBurst-sourceLogBurst-2*sourceLogRate || total > totalLogBurst {
		t.Errorf("%d events of all, want about %d", total, totalLogBurst)
	}
}
