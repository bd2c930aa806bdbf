package guard

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTestRules runs the verb on one capture: five SYNs of one source to port
// 22, three of another.
func TestTestRules(t *testing.T) {
	dir := t.TempDir()
	capture, rules := filepath.Join(dir, "a.pcap"), filepath.Join(dir, "rules.yml")
	s := newScene(t)
	for i := range 5 {
		s.tcp("192.0.2.1", "198.51.100.1", uint16(4000+i), 22, "S", nil)
	}
	for i := range 3 {
		s.tcp("2001:db8::2", "2001:db8::1", uint16(4000+i), 22, "S", nil)
	}
	s.write(capture)
	writeText(t, rules, "- {name: ssh, type: TCP, expression: SYN && DstPort == 22, threshold: 3}\n- {name: telnet, type: TCP, expression: DstPort == 23}\n")
	for _, tc := range []struct {
		name, expect, out, err string
		code                   int
	}{
		{"met", "alerts: [{rule: ssh, source: 192.0.2.1, packet: 3}, {rule: ssh, destination: '2001:DB8::1'}]\nno_alerts: [{rule: telnet}]\nstrict: true\n", "ok: CAPTURE: 3 expectations met, 2 alerts\n", "", ExitOK},
		{"times", "alerts: [{rule: ssh, times: 2}, {rule: telnet, times: 0}]", "ok: CAPTURE: 2 expectations met, 2 alerts\n", "", ExitOK},
		{"another packet", "alerts: [{rule: ssh, source: 192.0.2.1, packet: 5}]",
			"CAPTURE: not as EXPECT expects (- expected, + found)\n- ssh for 192.0.2.1 at packet 5\n+ ssh for 192.0.2.1 to 198.51.100.1 at packet 3\n+ ssh for 2001:db8::2 to 2001:db8::1 at packet 8\n", "not as expected", ExitFailed},
		{"missing", "alerts: [{rule: telnet}]", "CAPTURE: not as EXPECT expects (- expected, + found)\n- telnet\n", "not as expected", ExitFailed},
		{"too often", "alerts: [{rule: ssh, times: 1}]", "CAPTURE: not as EXPECT expects (- expected, + found)\n- ssh, 1 times\n+ found 2 times\n", "not as expected", ExitFailed},
		{"must not", "no_alerts: [{rule: ssh, source: '2001:db8::2'}]", "CAPTURE: not as EXPECT expects (- expected, + found)\n+ ssh for 2001:db8::2 to 2001:db8::1 at packet 8\n", "not as expected", ExitFailed},
		{"strict", "strict: true\nalerts: [{rule: ssh, source: 192.0.2.1}]", "CAPTURE: not as EXPECT expects (- expected, + found)\n+ ssh for 2001:db8::2 to 2001:db8::1 at packet 8\n", "not as expected", ExitFailed},
		{"no such rule", "alerts: [{rule: shs}]\nno_alerts: [{rule: ssh, source: home, times: 1}]", "", `alerts[0]: there is no rule "shs"`, ExitConfig},
		{"no address", "no_alerts: [{rule: ssh, source: home}]", "", `"home" is no address`, ExitConfig},
		{"unknown key", "alerts: [{rule: ssh, sorce: 192.0.2.1}]", "", "field sorce not found", ExitConfig},
		{"nothing", "strict: false", "", "nothing is expected", ExitConfig},
		{"times of none", "no_alerts: [{rule: ssh, times: 1}]", "", "times goes with alerts", ExitConfig},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expect := filepath.Join(dir, "expect.yml")
			writeText(t, expect, tc.expect)
			var out bytes.Buffer
			err := TestRules(t.Context(), Config{Rules: []string{rules}}, capture, expect,
				Environment{Streams: Streams{Out: &out, Err: io.Discard}, Log: slog.New(slog.DiscardHandler)})
			if got := ExitCode(err); got != tc.code {
				t.Errorf("exit code %d, want %d (%v)", got, tc.code, err)
			}
			if tc.err != "" && !strings.Contains(fmt.Sprint(err), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			want := strings.NewReplacer("CAPTURE", capture, "EXPECT", expect).Replace(tc.out)
			if out.String() != want {
				t.Errorf("output\n%s\nwant\n%s", out.String(), want)
			}
		})
	}
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
