package engine

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/record"
)

// mustLoad loads one rule file that must be without errors.
func mustLoad(t testing.TB, text string) (*RuleSet, Report) {
	t.Helper()
	rs, report := Load(Bytes("rules.yml", []byte(text)))
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	return rs, report
}

// TestBrokenFiles compares what Load says of every broken file, all read in
// one go, with the golden file.
func TestBrokenFiles(t *testing.T) {
	rs, report := Load(Path("testdata/broken"))
	if rs != nil {
		t.Error("a rule set in spite of errors")
	}
	var out bytes.Buffer
	for _, p := range report.Errors {
		fmt.Fprintf(&out, "%s\n%s", filepath.ToSlash(p.Error()), p.Excerpt())
	}
	out.WriteString("\nwarnings:\n")
	for _, p := range report.Warnings {
		if !strings.Contains(p.Message, "is not yet served: no decoder") { // which types are is the decoders' business
			fmt.Fprintf(&out, "%s\n%s", filepath.ToSlash(p.Error()), p.Excerpt())
		}
	}
	compareGolden(t, "testdata/broken.golden", out.Bytes())
}

// compareGolden compares with a golden file; `go test -args -update` writes it.
func compareGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	if update := flag.CommandLine.Lookup("update"); update != nil && update.Value.String() == "true" {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the golden files")
	flag.Parse()
	os.Exit(m.Run())
}

// TestGoldenPositions reads the positions of the golden file back and looks
// at what stands there, so that a wrong golden file cannot pass.
func TestGoldenPositions(t *testing.T) {
	for _, tc := range []struct{ file, message, at string }{
		{"expressions.yml", `has no field "DstPrt"`, "DstPrt =="},
		{"expressions.yml", `no field "Nme"`, "Nme)"},
		{"expressions.yml", `no field "Typ"`, "Typ =="},
		{"expressions.yml", `has no field "Hst"`, `Hst ==`},
		{"expressions.yml", `has no field "URI"`, `URI contains`},
		{"expressions.yml", `has no field "Paylod"`, `Paylod ==`},
		{"expressions.yml", `no function "InSubnett"`, `InSubnett(`},
		{"expressions.yml", `has no field "Sin"`, `Sin`},
		{"expressions.yml", "mismatched types", `== "22"`},
		{"helpers.yml", "missing closing )", `"(union"`},
		{"helpers.yml", "PortInRange: argument 1", `"1", 2`},
		{"helpers.yml", `10.0.0.0/33`, `"10.0.0.0/33"`},
		{"keys.yml", `unknown key "nme"`, "nme:"},
		{"keys.yml", "threshold is negative", "-1"},
		{"keys.yml", `no rule "distnct"`, "distnct,"},
		{"actions.yml", `unknown action type "block"`, "block"},
		{"actions.yml", "30x", "30x}"},
		{"limits.yml", "10/fortnight", "10/fortnight,"},
		{"limits.yml", "burst must be at most", "4294967296"},
		{"limits.yml", "ipv6_prefix must be at least 1", "0}"},
		{"limits.yml", "at byte 2 cannot be in one", "'a \"quoted"},
		{"tag.yml", "takes the !", "!QR && len"},
		{"tag.yml", `unknown key "expresion"`, "expresion"},
	} {
		t.Run(tc.file+" "+tc.message, func(t *testing.T) {
			_, report := Load(Path("testdata/broken/" + tc.file))
			text, err := os.ReadFile("testdata/broken/" + tc.file)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(text), "\n")
			for _, p := range report.Errors {
				if !strings.Contains(p.Error(), tc.message) {
					continue
				}
				if rest := string([]rune(lines[p.Line-1])[p.Column-1:]); !strings.HasPrefix(rest, tc.at) {
					t.Errorf("%v points at %q", p, rest)
				}
				return
			}
			t.Error("not reported")
		})
	}
}

func TestLoadEverything(t *testing.T) {
	rs, report := mustLoad(t, `
rules:
  - name: full
    description: all keys
    type: nc_icmp
    expression: PayloadSize > 9
    severity: CRITICAL
    threshold: 5
    threshold_window: 2m
    track_by: pair
    tags: one
    mitre: [T1, T2]
    enabled: false
    actions:
      - type: iptables_reject
        enabled: no
        config: {target: dst, duration: 1w2d, reject_with: tcp-reset, ipv6_prefix: 64}
      - type: iptables_rate_limit
        config: {rate: 5/s, burst: 9, duration: 90}
      - type: iptables_log
        config: {prefix: "X: "}
      - type: iptables_block
        config: {duration: 0}
  - name: bare
    type: TCP
    expression: SYN
    actions:
`)
	full, bare := rs.Rules()[0], rs.Rules()[1]
	want := []Action{
		{Kind: ActionReject, Target: backend.Destination, Duration: 9 * 24 * time.Hour, HasDuration: true, Reset: true, IPv6Prefix: 64},
		{Kind: ActionRateLimit, Enabled: true, Duration: 90 * time.Minute, HasDuration: true, Limit: backend.Limit{Rate: 5, Per: time.Second, Burst: 9}},
		{Kind: ActionLog, Enabled: true, Prefix: "X: "},
		{Kind: ActionBlock, Enabled: true, HasDuration: true},
	}
	if diff := cmp.Diff(want, full.Actions); diff != "" {
		t.Error(diff)
	}
	if full.Enabled || full.Severity != Critical || full.Window != 2*time.Minute || full.TrackBy != TrackPair ||
		len(full.Types) != 2 || len(full.MITRE) != 2 || full.Tags[0] != "one" || full.Threshold != 5 {
		t.Errorf("%+v", full)
	}
	if !bare.Enabled || bare.Severity != Medium || bare.Window != time.Minute || bare.TrackBy != TrackSource || bare.Line != 24 {
		t.Errorf("%+v", bare)
	}
	if len(report.Warnings) != 0 {
		t.Errorf("warnings %v", report.Warnings)
	}
}

func TestTrackByFollowsTheTarget(t *testing.T) {
	for _, tc := range []struct {
		name, actions, track string
		want                 TrackBy
	}{
		{"no action", "", "", TrackSource},
		{"source", "{type: iptables_block}", "", TrackSource},
		{"destination", "{type: iptables_block, config: {target: destination}}", "", TrackDestination},
		{"both", "{type: iptables_block}, {type: iptables_block, config: {target: dst}}", "", TrackSource},
		{"a log has no say", "{type: iptables_log, config: {target: dst}}", "", TrackSource},
		{"said", "{type: iptables_block, config: {target: dst}}", "track_by: rule", TrackRule},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rs, _ := mustLoad(t, fmt.Sprintf("- name: a\n  type: TCP\n  expression: SYN\n  threshold: 3\n  actions: [%s]\n  %s\n", tc.actions, tc.track))
			if got := rs.Rules()[0].TrackBy; got != tc.want {
				t.Errorf("tracks by %v, want %v", got, tc.want)
			}
		})
	}
}

// TestNoWarningsOfHalfARule: what a rule with a mistake would mean is not
// known, alone and beside others.
func TestNoWarningsOfHalfARule(t *testing.T) {
	const whole = "- {name: whole, type: TCP, expression: SYN, threshold: 9, actions: [{type: iptables_block, config: {duration: 5m}}]}\n"
	for _, rest := range []string{
		"type: TCP, expression: SYN, threshold: ten, threshold_window: 5, actions: [{type: iptables_block, config: {duration: 2h}}]",
		"type: TCP, expression: SYN, treshold: 10, actions: [{type: iptables_block, config: {duration: 2h}}]",
		"type: TPC, expression: SYN",
	} {
		_, report := Load(Bytes("r.yml", []byte(whole+"- {name: a, "+rest+"}")))
		if len(report.Errors) != 1 || len(report.Warnings) != 0 {
			t.Errorf("%s: errors %v, warnings %v; want one error alone", rest, report.Errors, report.Warnings)
		}
	}
}

func TestWarnings(t *testing.T) {
	const block = "actions: [{type: iptables_block}]"
	for _, tc := range []struct{ name, rule, want string }{
		{"a threshold", "type: TCP, expression: SYN, threshold: 5, " + block, ""},
		{"no threshold", "type: TCP, expression: SYN, " + block, "blocks on a single match"},
		{"threshold 1", "type: TCP, expression: SYN, threshold: 1, " + block, "blocks on a single match"},
		{"disabled", "type: TCP, expression: SYN, enabled: false, " + block, ""},
		{"log only", "type: TCP, expression: SYN, actions: [{type: iptables_log}]", ""},
		{"DNS both ways", "type: DNS, expression: ANCount > 9, threshold: 5, " + block, "add !QR"},
		{"DNS queries", "type: DNS, expression: '!QR && ANCount > 9', threshold: 5, " + block, ""},
		{"DNS destination", "type: DNS, expression: ANCount > 9, threshold: 5, actions: [{type: iptables_block, config: {target: dst}}]", ""},
		{"NTP both ways", "type: NTP, expression: Stratum > 9, threshold: 5, " + block, "ask for Mode"},
		{"counted together", "type: TCP, expression: SYN, threshold: 5, track_by: rule, " + block, "counts all addresses together"},
		{"type not served", "type: SMTP, expression: IsResponse", "not yet served: no decoder of this release emits SMTP records"},
		{"sequence", "type: TCP, expression: SYN, sequence: {after: a, within: 60}", ""},
		{"escalation", "type: TCP, expression: SYN, threshold: 5, actions: [{type: iptables_block, config: {escalation: [10m, 1h]}}]", ""},
		{"steps that do not grow", "type: TCP, expression: SYN, threshold: 5, actions: [{type: iptables_block, config: {escalation: [10m, 0, 1h]}}]", "do not grow"},
		{"escalation and duration", "type: TCP, expression: SYN, threshold: 5, actions: [{type: iptables_block, config: {duration: 1h, escalation: [10m]}}]", "duration does nothing"},
		{"confirmed", "type: TCP, expression: PSH, confirmed: true", ""},
		{"not confirmed", "type: HTTP, expression: IsResponse, confirmed: false", "confirmed: false lets forged packets"},
		{"nothing to confirm", "type: TCP, expression: PSH, confirmed: false", "confirmed: false does nothing"},
		{"a SYN confirmed", "type: TCP, expression: SYN && !ACK, confirmed: true", "a SYN comes before the handshake is complete"},
		{"UDP confirmed", "type: UDP, expression: DstPort == 1, confirmed: true", "UDP has no handshake that could be confirmed"},
		{"always true", "type: TCP, expression: SYN || !SYN", "is always true"},
		{"a field that is never filled", "type: HTTP, expression: 'Ja4h == \"x\"'", "Ja4h of HTTP is always empty"},
		{"the same of one of two types", "type: TLS, expression: 'SrcMAC == \"x\"'", "SrcMAC of TLSServerHello is always empty"},
		{"plainly true", "type: UDP, expression: 'true'", "is always true"},
		{"never true", "type: TCP, expression: SYN && ACK && !SYN", "is never true"},
		{"a range that is none", "type: UDP, expression: DstPort in 9..1", "is never true"},
		{"a window alone", "type: TCP, expression: SYN, threshold_window: 10", "threshold_window does nothing without threshold"},
		{"forgeable", "type: UDP, expression: DstPort == 1, actions: [{type: iptables_block, config: {duration: 2h}}]", "one UDP packet in anybody's name blocks that address for 2h0m0s"},
		{"forgeable for good", "type: TCP, expression: SYN, actions: [{type: iptables_block, config: {duration: 0}}]", "one TCP packet in anybody's name blocks that address forever"},
		{"both thresholds", "type: TCP, expression: SYN, threshold: 3, distinct_field: DstPort, distinct_threshold: 3", "threshold 3 adds nothing: 3 different values take as many matches"},
		{"both thresholds that say something", "type: TCP, expression: SYN, threshold: 4, distinct_field: DstPort, distinct_threshold: 3", ""},
		{"kernel log", "type: TCP, expression: SYN, actions: [{type: iptables_log, config: {kernel: true, duration: 1h}}]", ""},
		{"log with a duration", "type: TCP, expression: SYN, actions: [{type: iptables_log, config: {duration: 1h}}]", "does nothing in a log without kernel: true"},
		{"slow", "type: DNS, expression: 'len(map(Questions, .Type)) > 1'", "slow expression VM because of the function map"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, report := mustLoad(t, "- {name: a, "+tc.rule+"}")
			var all strings.Builder
			for _, w := range report.Warnings {
				all.WriteString(w.Error() + "\n")
			}
			if tc.want == "" && len(report.Warnings) > 0 || !strings.Contains(all.String(), tc.want) {
				t.Errorf("warnings %q, want %q", all.String(), tc.want)
			}
		})
	}
}

// TestShadowedRules: a rule that another makes superfluous is warned of.
func TestShadowedRules(t *testing.T) {
	rule := func(name string, threshold, window int, duration string) string {
		return fmt.Sprintf("- {name: %s, type: TCP, expression: SYN && !ACK, threshold: %d, threshold_window: %d, actions: [{type: iptables_block, config: {duration: %s}}]}\n",
			name, threshold, window, duration)
	}
	for _, tc := range []struct{ name, rules, want string }{
		{"flood before scan", rule("scan", 50, 10, "1h") + rule("flood", 20, 10, "6h"), `"scan" adds nothing: rule "flood"`},
		{"the flood blocks longer", rule("scan", 50, 10, "1h") + rule("flood", 100, 5, "6h"), ""},
		{"shorter window", rule("a", 50, 10, "1h") + rule("b", 50, 5, "1h"), `"b" adds nothing: rule "a"`},
		{"twice the same", rule("a", 50, 10, "1h") + rule("b", 50, 10, "1h"), `"b" adds nothing: rule "a"`},
		{"slower and longer", rule("a", 10, 10, "1h") + rule("b", 50, 300, "1h"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, report := mustLoad(t, tc.rules)
			text := fmt.Sprint(report.Warnings)
			if tc.want == "" && len(report.Warnings) > 0 || !strings.Contains(text, tc.want) {
				t.Errorf("warnings %s, want %q", text, tc.want)
			}
		})
	}
}

// TestUnservedDoesNotRun: what is not executed is not half executed.
func TestUnservedDoesNotRun(t *testing.T) {
	rs, _ := mustLoad(t, `
- {name: runs, type: TCP, expression: SYN}
- {name: disabled, type: TCP, expression: SYN, enabled: false}
- {name: later, type: SMTP, expression: IsResponse}
- {name: another, type: IMAP, expression: IsResponse}
`)
	var runs []string
	for _, r := range rs.Rules() {
		if r.Runs() {
			runs = append(runs, r.Name)
		} else if r.Enabled && len(r.Unserved()) == 0 {
			t.Errorf("%s does not run, and nothing says why", r.Name)
		}
	}
	if diff := cmp.Diff([]string{"runs"}, runs); diff != "" {
		t.Error(diff)
	}
	if w := rs.Want(); w.Types != record.Of(record.TypeTCP) {
		t.Errorf("wants types %b", w.Types)
	}
}

func TestSources(t *testing.T) {
	rule := func(name string) []byte { return []byte("- {name: " + name + ", type: TCP, expression: SYN}\n") }
	dir := t.TempDir()
	for name, text := range map[string][]byte{
		"b.yml": rule("second"), "a.yaml": []byte("rules:\n  - {name: first, type: TCP, expression: SYN}\n"),
		"c.txt": []byte("not a rule file"), ".hidden.yml": []byte("nor this"), "d.yml": []byte("# nothing\n"), "e.yml": nil,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "sub.yml"), 0o700); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("# filler\n"), maxFileSize/9+1)
	for _, tc := range []struct {
		name  string
		src   Source
		rules string
		err   string
	}{
		{"folder", Path(dir), "first second", ""},
		{"file", Path(filepath.Join(dir, "b.yml")), "second", ""},
		{"bytes", Bytes("x", rule("x")), "x", ""},
		{"bytes with a BOM", Bytes("x", append([]byte("\ufeff"), rule("x")...)), "x", ""},
		{"CRLF", Bytes("x", bytes.ReplaceAll([]byte("- name: x\n  type: TCP\n  expression: |\n    SYN\n"), []byte("\n"), []byte("\r\n"))), "x", ""},
		{"file system", FS(fstest.MapFS{"z.yml": {Data: rule("z")}, "y.yml": {Data: rule("y")}}, "fs"), "y z", ""},
		{"zero", Source{}, "", ""},
		{"missing", Path(filepath.Join(dir, "none")), "", "cannot read rules: no such file"},
		{"too large", Bytes("x", big), "", "larger than"},
		{"too large in a folder", FS(fstest.MapFS{"z.yml": {Data: big}, "y.yml": {Data: []byte("- 5")}}, "fs"), "", "larger than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rs, report := Load(tc.src)
			if err := report.Err(); tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				return
			} else if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, r := range rs.Rules() {
				names = append(names, r.Name)
			}
			if got := strings.Join(names, " "); got != tc.rules {
				t.Errorf("rules %q, want %q", got, tc.rules)
			}
		})
	}
}

// TestBombs: files made to blow up end in an error, not in a full memory.
func TestBombs(t *testing.T) {
	aliases := "- &r {name: a, type: TCP, expression: SYN}\n" + strings.Repeat("- *r\n", 5000)
	actions := "- name: a\n  type: TCP\n  expression: SYN\n  threshold: 2\n  actions: &a [" + strings.Repeat("{type: iptables_log},", 16) + "]\n"
	var more strings.Builder
	for i := range 9000 {
		fmt.Fprintf(&more, "- {name: n%d, type: TCP, expression: SYN, tags: &t%d [a], mitre: *t%d, actions: *a}\n", i, i, i)
	}
	actions += more.String()
	for _, tc := range []struct{ name, text, want string }{
		{"alias of a rule", aliases, "is taken by"},
		{"alias in itself", "- &r [*r]", "must be a mapping"},
		{"actions by alias", actions, "aliases expand it"},
		{"deep nesting", strings.Repeat("[", 200_000), "not valid YAML"},
		{"long expression", "- {name: a, type: TCP, expression: '" + strings.Repeat("SYN &&", 4000) + " SYN'}", "longer than"},
		{"many nodes", "- {name: a, type: TCP, expression: '" + strings.Repeat("SYN||", 2500) + " SYN'}", "nodes"},
		{"nested parentheses", "- {name: a, type: TCP, expression: '" + strings.Repeat("(", 8000) + "SYN" + strings.Repeat(")", 8000) + "'}", ""},
		{"many problems", strings.Repeat("- 5\n", 2000), "more problems in this file are not shown"},
		{"many actions", "- {name: a, type: TCP, expression: SYN, actions: [" + strings.Repeat("{type: iptables_log},", 17) + "]}", "more than 16 actions"},
		{"many tags", "- {name: a, type: TCP, expression: SYN, tags: [" + strings.Repeat("a,", 65) + "]}", "more than 64 items"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, report := Load(Bytes("bomb.yml", []byte(tc.text)))
			if len(report.Errors) > maxProblems+1 {
				t.Errorf("%d problems", len(report.Errors))
			}
			if err := report.Err(); tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %.300v, want %q", err, tc.want)
			}
		})
	}
}
