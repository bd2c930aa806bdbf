package engine

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcap-guard/netcap-guard/record"
)

// evaluate answers an expression on a record, natively and in the VM, which
// must agree.
func evaluate(t *testing.T, typ record.Type, source string, set *record.Set) (result bool, fails bool) {
	t.Helper()
	m, err := compile(typ, source)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	vm := newMachine()
	result, vmErr := vm.run(m.program, set.Record(typ))
	if m.native == nil {
		t.Fatalf("%s is not native: %s", source, m.slow)
	}
	compareBoth(t, m, source, set)
	return result, vmErr != nil
}

func TestAddressHelpers(t *testing.T) {
	for _, tc := range []struct {
		address         string
		private, public bool
		ten             bool // in 10.0.0.0/8 or fc00::/7
	}{
		{"10.1.2.3", true, false, true}, {"172.16.0.1", true, false, false}, {"172.32.0.1", false, true, false}, {"192.168.1.1", true, false, false},
		{"127.0.0.1", true, false, false}, {"169.254.1.1", true, false, false}, {"8.8.8.8", false, true, false}, {"100.64.0.1", false, false, false},
		{"224.0.0.1", false, false, false}, {"255.255.255.255", false, false, false}, {"0.0.0.0", false, false, false}, {"192.0.2.1", false, false, false},
		{"::1", true, false, false}, {"fe80::1", true, false, false}, {"fd00::1", true, false, true}, {"2606:4700::1", false, true, false},
		{"2001:db8::1", false, false, false}, {"ff02::1", false, false, false}, {"::", false, false, false}, {"::ffff:10.0.0.1", true, false, true},
		{"", false, false, false}, {"example.org", false, false, false}, {"10.0.0", false, false, false},
	} {
		t.Run(tc.address, func(t *testing.T) {
			set := &record.Set{}
			set.Src, _ = netip.ParseAddr(tc.address)
			set.TCP.SrcIP = tc.address
			set.HTTP.Host = tc.address // the same as a text that no Header holds
			for _, where := range []struct {
				typ   record.Type
				field string
			}{{record.TypeTCP, "SrcIP"}, {record.TypeHTTP, "Host"}} {
				for call, want := range map[string]bool{
					"IsPrivateIP(%s)": tc.private, "IsPublicIP(%s)": tc.public,
					`InSubnet(%s, "10.0.0.0/8", "fc00::/7")`: tc.ten, `InAllowlist(%s, ["10.0.0.0/8", "fc00::/7"])`: tc.ten,
				} {
					if got, fails := evaluate(t, where.typ, fmt.Sprintf(call, where.field), set); got != want || fails {
						t.Errorf(call+" = %v, %v, want %v", where.field, got, fails, want)
					}
				}
			}
		})
	}
}

func TestHelpers(t *testing.T) {
	local, err := time.ParseInLocation("2006-01-02 15:04:05", "2026-03-04 23:30:00", time.Local) // a Wednesday
	if err != nil {
		t.Fatal(err)
	}
	set := &record.Set{}
	set.HTTP = record.HTTP{
		Timestamp: local.UnixNano(), URL: "/a?q=UNION%20SELECT", Method: "GET", SrcPort: 4444, DstPort: 80, UserAgent: "22",
		RequestBody: []byte("user=admin&pass=1"), RequestHeader: map[string]string{"X-A": "b"},
	}
	set.SIP.Headers = []string{"Via", "From"}
	for _, tc := range []struct {
		source string
		want   bool
		fails  bool
	}{
		{`MatchesPattern(URL, "(?i)union.*select")`, true, false}, {`MatchesPattern(URL, "union.*select")`, false, false},
		{`MatchesPattern(RequestBody, "^user=")`, true, false}, {`MatchesPattern(ResponseBody, "")`, false, false},
		{`URL matches "^/a"`, true, false}, {`RequestBody matches "pass=[0-9]$"`, true, false},
		{`PortInRange(DstPort, 80, 90)`, true, false}, {`PortInRange(DstPort, 81, 90)`, false, false}, {`PortInRange(DstPort, 70, 80)`, true, false},
		{`ContainsAny(URL, "x", "UNION")`, true, false}, {`ContainsAny(URL, ["x", "union"])`, false, false}, {`ContainsAny(RequestBody, ["admin"])`, true, false},
		{`ContainsAny(URL, [])`, false, false}, {`ContainsAny(URL, "x", ["y", "q="])`, true, false},
		{`Contains(URL, "q=")`, true, false}, {`Contains(RequestBody, "root")`, false, false},
		{`HasKey(RequestHeader, "X-A") && RequestHeader["X-A"] == "b"`, true, false}, {`HasKey(RequestHeader, "x-a") or RequestHeader["x-a"] != ""`, false, false},
		{`ParsePort(UserAgent) == 22`, true, false}, {`ParsePort(Method) == 22`, false, true}, {`ParsePort("65536") > 0`, false, true},
		{`HourOfDay() == 23 && Weekday() == 3`, true, false}, {`HourOfDay(Timestamp + 3600000000000) == 0`, true, false},
		{`TimeInRange("22:00", "06:00")`, true, false}, {`TimeInRange("08:00", "23:30")`, false, false}, {`TimeInRange(Timestamp, "23:30", "23:31")`, true, false},
		{`IsBusinessHours()`, false, false}, {`IsBusinessHours(Timestamp - 12 * 3600000000000)`, true, false},
		{`DurationSince(Timestamp - 2500000000) == 2.5`, true, false}, {`FormatTime("2006-01-02 15:04") == "2026-03-04 23:30"`, true, false},
		{`InAllowlist(Method, "GET", "POST")`, true, false}, {`InAllowlist(URL, ["/a", "/b"])`, false, false},
		{`lower(Method) == "get" && upper("a" + "b") == "AB" && trim(" x ") == "x"`, true, false},
	} {
		t.Run(tc.source, func(t *testing.T) {
			if got, fails := evaluate(t, record.TypeHTTP, tc.source, set); got != tc.want || fails != tc.fails {
				t.Errorf("%v (fails %v), want %v (%v)", got, fails, tc.want, tc.fails)
			}
		})
	}
	if got, _ := evaluate(t, record.TypeSIP, `Contains(Headers, "Via") && !Contains(Headers, "Vi") && "From" in Headers`, set); !got {
		t.Error("Contains on a list")
	}
}

// TestFunctionsAreDocumented: every helper that expressions know is listed,
// and the list is complete for the specification.
func TestFunctionsAreDocumented(t *testing.T) {
	var names []string
	for _, f := range Functions() {
		name, _, _ := strings.Cut(f.Usage, "(")
		names = append(names, name)
		if f.Doc == "" {
			t.Errorf("%s has no description", name)
		}
	}
	slices.Sort(names)
	want := []string{"Contains", "ContainsAny", "DurationSince", "FormatTime", "HasKey", "HourOfDay", "InAllowlist", "InSubnet",
		"IsBusinessHours", "IsPrivateIP", "IsPublicIP", "MatchesPattern", "ParsePort", "PortInRange", "TimeInRange", "Weekday"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

// TestWant: decoders are asked for what an evaluation reads, and not to spell
// out addresses that are compared as addresses.
func TestWant(t *testing.T) {
	for _, tc := range []struct {
		source string
		want   string
	}{
		{`SYN && DstPort == 22`, "DstPort SYN"},
		{`InSubnet(SrcIP, "10.0.0.0/8") && IsPrivateIP(DstIP)`, ""},
		{`SrcIP == "192.0.2.1" || DstIP != "::1"`, ""},
		{`SrcIP == "example"`, "SrcIP"},
		{`SrcIP == DstIP`, "DstIP SrcIP"},
		{`InSubnet(SrcIP, "10.0.0.0/8") && SrcIP startsWith "10.1"`, "SrcIP"},
		{`SrcIP in ["10.0.0.1", "x"]`, "SrcIP"},
		{`InAllowlist(SrcIP, "10.0.0.1", "x")`, "SrcIP"}, {`InAllowlist(SrcIP, "10.0.0.1")`, ""},
		{`MatchesPattern(DstIP, "^10")`, "DstIP"}, {`ContainsAny(DstIP, "a")`, "DstIP"}, {`len(DstIP) > 3`, "DstIP"},
		{`SrcIP + "x" == "y"`, "SrcIP"}, {`lower(SrcIP) == "y"`, "SrcIP"}, {`SrcIP matches "y"`, "SrcIP"}, {`ParsePort(SrcIP) == 1`, "SrcIP"},
		{`HourOfDay() == 3`, "Timestamp"},
		{`len(map(Options, .OptionType)) > 0 && InSubnet(SrcIP, "::/0")`, "Options SrcIP"},
	} {
		t.Run(tc.source, func(t *testing.T) {
			m, err := compile(record.TypeTCP, tc.source)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(m.fields, " "); got != tc.want {
				t.Errorf("wants %q, want %q", got, tc.want)
			}
		})
	}
}

// TestLayout: a record's address computed from the set is the one that the
// set itself hands out.
func TestLayout(t *testing.T) {
	l, set := newLayout(), &record.Set{}
	for _, typ := range record.Types() {
		if got, want := uintptr(l.record(set, typ).p), reflect.ValueOf(set.Record(typ)).Pointer(); got != want {
			t.Errorf("%v at %x, want %x", typ, got, want)
		}
	}
}

// TestTracking: whose matches are counted together.
func TestTracking(t *testing.T) {
	const host, other = "203.0.113.1", "203.0.113.2"
	for _, tc := range []struct {
		name, options string
		sources       []string
		sameTarget    bool
		alerts        int
	}{
		{"source", "", []string{host, other, host, other}, true, 0},
		{"source three times", "", []string{host, host, other, host}, true, 1},
		{"source with several destinations", "", []string{host, host, host}, false, 1},
		{"destination", "track_by: destination", []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"}, true, 1},
		{"destinations", "track_by: destination", []string{host, host, host}, false, 0},
		{"pair", "track_by: pair", []string{host, host, host}, true, 1},
		{"pairs", "track_by: pair", []string{host, host, host}, false, 0},
		{"rule", "track_by: rule", []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"}, false, 1},
		{"IPv6 addresses", "", []string{"2001:db8::1", "2001:db8::2", "2001:db8::3"}, true, 0},
		{"IPv6 prefix", "actions: [{type: iptables_block, config: {ipv6_prefix: 64}}]", []string{"2001:db8::1", "2001:db8::2", "2001:db8::3"}, true, 1},
		{"IPv6 prefixes", "actions: [{type: iptables_block, config: {ipv6_prefix: 64}}]", []string{"2001:db8::1", "2001:db8:0:1::2", "2001:db8::3"}, true, 0},
		{"IPv6 prefix, IPv4 sources", "actions: [{type: iptables_block, config: {ipv6_prefix: 64}}]", []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"}, true, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, w := start(t, "- {name: r, type: TCP, expression: SYN, threshold: 3, "+strings.TrimSuffix(tc.options, ",")+"}", &journal{})
			for i, src := range tc.sources {
				set := syn(uint64(i+1), src, float64(i))
				if !tc.sameTarget {
					set.Dst = hostAddr(i)
				}
				w.Evaluate(set)
			}
			if got := e.Stats().Rules["r"].Alerts; got != uint64(tc.alerts) {
				t.Errorf("%d alerts, want %d", got, tc.alerts)
			}
		})
	}
}

// TestDistinctField: different values count, the same one does not.
func TestDistinctField(t *testing.T) {
	for _, tc := range []struct {
		name, field string
		change      func(set *record.Set, i int)
		alerts      uint64
	}{
		{"ports", "DstPort", func(s *record.Set, i int) { s.TCP.DstPort = int32(i) }, 1},
		{"one port", "DstPort", func(s *record.Set, i int) {}, 0},
		{"other ports", "SrcPort", func(s *record.Set, i int) { s.TCP.DstPort = int32(i) }, 0},
		{"addresses, not spelt out", "DstIP", func(s *record.Set, i int) { s.Dst = hostAddr(i) }, 1},
		{"texts", "FlagsStr", func(s *record.Set, i int) { s.TCP.FlagsStr = strings.Repeat("x", i) }, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := &journal{}
			e, w := start(t, "- {name: r, type: TCP, expression: SYN, distinct_field: "+tc.field+", distinct_threshold: 5}", j)
			for i := range 8 {
				set := syn(uint64(i+1), "203.0.113.1", float64(i/2))
				tc.change(set, i)
				w.Evaluate(set)
			}
			if got := e.Stats().Rules["r"]; !sameCounts(got, RuleStats{Matches: 8, Alerts: tc.alerts}) {
				t.Errorf("%+v, want %d alerts", got, tc.alerts)
			}
			if want := e.Want(); tc.field != "DstIP" && !want.Field(record.TypeTCP, tc.field) {
				t.Errorf("the decoder is not asked for %s", tc.field)
			}
		})
	}
}

// TestWideUnsigned: above 2^63 an unsigned field is negative where integers
// compare, as in expr, and large where fractions do.
func TestWideUnsigned(t *testing.T) {
	set := &record.Set{}
	set.NTP.TransmitTimestamp = 1<<63 + 1<<62
	for source, want := range map[string]bool{
		"TransmitTimestamp / 2 > 6e18": true, "TransmitTimestamp > 1.5": true, "TransmitTimestamp > 1": false, "TransmitTimestamp ** 1 > 1e19": true,
	} {
		if got, _ := evaluate(t, record.TypeNTP, source, set); got != want {
			t.Errorf("%s is %v, want %v", source, got, want)
		}
	}
}
