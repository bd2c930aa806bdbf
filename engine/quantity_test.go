package engine

import (
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		text string
		want time.Duration
		err  string
	}{
		{"30m", 30 * time.Minute, ""}, {"1h30m", 90 * time.Minute, ""}, {"0", 0, ""}, {"0s", 0, ""}, {" 2h ", 2 * time.Hour, ""},
		{"1d", day, ""}, {"1w", 7 * day, ""}, {"1w2d3h", 9*day + 3*time.Hour, ""}, {"1.5d", 36 * time.Hour, ""}, {"250ms", 250 * time.Millisecond, ""},
		{"36500d", 36500 * day, ""},
		{"", 0, "empty"}, {"-1h", 0, "negative"}, {"5", 0, "unit is missing"}, {"h", 0, "number is missing"}, {"1y", 0, "no number with a unit"},
		{"1.2.3h", 0, "no number with a unit"}, {"1..d", 0, "out of range"}, {"1h-2m", 0, "no number with a unit"}, {"1 h", 0, "no number with a unit"},
		{"36501d", 0, "out of range"}, {"36000d1000d", 0, "longer than 100 years"}, {"1e9h", 0, "no number with a unit"},
		{"9999999999999h", 0, "no number with a unit"}, {"NaNd", 0, "number is missing"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, err := ParseDuration(tc.text)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v, %v, want an error with %q", got, err, tc.err)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Errorf("%v, %v, want %v", got, err, tc.want)
			}
		})
	}
}

// FuzzParseDuration: whatever Go's own parser takes means the same here, and
// nothing yields a negative duration.
func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"1h", "1d2w", "-1h", "1.5d", "9999999w", "1µs", "1h1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseDuration(s)
		if err == nil && (got < 0 || got > maxDuration) {
			t.Errorf("%q is %v", s, got)
		}
		std, stdErr := time.ParseDuration(s)
		if stdErr == nil && std > 0 && std <= maxDuration && !strings.HasPrefix(s, "+") && (err != nil || absolute(got-std) > time.Microsecond) {
			t.Errorf("%q is %v, %v; Go says %v", s, got, err, std)
		}
	})
}

func absolute(d time.Duration) time.Duration { return max(d, -d) }

func TestClosest(t *testing.T) {
	for _, tc := range []struct{ word, want string }{
		{"iptables-block", "iptables_block"}, {"IPTABLES_BLOCK", "iptables_block"}, {"iptables_blokc", "iptables_block"},
		{"iptables_lgo", "iptables_log"}, {"frobnicate", ""}, {"", ""}, {strings.Repeat("x", 100), ""},
	} {
		if got := closest(tc.word, actionNames()); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.word, got, tc.want)
		}
	}
}

// FuzzLoad: no file makes the loader panic, and every problem has a place.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		sshRule, nothing, "rules: 5", "- expression: !QR && x", "- {name: a, type: DNS, expression: \"\\u0041[0] ==\"}",
		"- name: a\n  type: DNS\n  expression: >-\n\n    QR &&\n\n      x\n", "- {name: a, type: TCP, expression: 'HourOfDay(1, 2) == ''x'''}", "---\n...\n---\n", "a: &a [*a]",
		"- {name: a, type: HTTP, expression: 'RequestHeader[\"a\"]?.b'}", "- name: !!binary eA==\n  type: TCP",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rs, report := Load(Bytes("f.yml", []byte(text)))
		if (rs == nil) != (len(report.Errors) > 0) {
			t.Errorf("rule set %v with %d errors", rs != nil, len(report.Errors))
		}
		lines := strings.Count(text, "\n") + 1
		for _, p := range append(report.Errors, report.Warnings...) {
			if p.Line < 1 || p.Line > lines || p.Column < 1 || strings.ContainsAny(p.Error(), "\n\r") {
				t.Errorf("%q: %+v", text, p)
			}
		}
	})
}
