package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcap-guard/netcap-guard/backend"
)

// action is a rule file with one action.
func action(text string) string {
	return "- name: a\n  type: TCP\n  expression: SYN\n  threshold: 3\n  actions:\n  - {type: " + text + "}\n"
}

func TestKernelActions(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       Action
	}{
		{"rate limit", "iptables_rate_limit, config: {rate: 10/second, burst: 7, target: dst, duration: 5}", Action{
			Kind: ActionRateLimit, Target: backend.Destination, Duration: 5 * time.Minute, HasDuration: true,
			Limit: backend.Limit{Rate: 10, Per: time.Second, Burst: 7},
		}},
		{"the page's defaults", "iptables_rate_limit", Action{Kind: ActionRateLimit, Limit: backend.Limit{Rate: 10, Per: time.Minute, Burst: 5}}},
		{"letters", "iptables_rate_limit, config: {rate: 3/h}", Action{Kind: ActionRateLimit, Limit: backend.Limit{Rate: 3, Per: time.Hour, Burst: 5}}},
		{"kernel log", "iptables_log, config: {prefix: 'SSH: ', kernel: true, duration: 1h, target: destination, ipv6_prefix: 64}", Action{
			Kind: ActionLog, Target: backend.Destination, Duration: time.Hour, HasDuration: true, Prefix: "SSH: ", Kernel: true, IPv6Prefix: 64,
		}},
		{"escalation", "iptables_block, config: {escalation: [10m, 1h, 60, 7d, 0], escalation_memory: 2w, ipv6_prefix: 56}", Action{
			Kind: ActionBlock, Escalation: []time.Duration{10 * time.Minute, time.Hour, time.Hour, 7 * 24 * time.Hour, 0},
			EscalationMemory: 14 * 24 * time.Hour, IPv6Prefix: 56,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rs, report := mustLoad(t, action(tc.text))
			r := rs.Rules()[0]
			tc.want.Enabled = true
			if diff := cmp.Diff([]Action{tc.want}, r.Actions); diff != "" {
				t.Error(diff)
			}
			if !r.Runs() || len(r.Unserved()) > 0 {
				t.Errorf("the rule does not run: %v", r.Unserved())
			}
			for _, w := range report.Warnings {
				if strings.Contains(w.Message, "served") {
					t.Errorf("warning %v", w)
				}
			}
		})
	}
}

// TestLimitsOfBackends: what the backend that is asked for cannot express is
// an error that names backend and limit, where the rate stands; what only some
// can is a warning as long as none is settled.
func TestLimitsOfBackends(t *testing.T) {
	const daily, many, hopeless = "{rate: 1/day, burst: 5}", "{rate: 2000000/s}", "{rate: 2000000000/s}"
	for _, tc := range []struct {
		backend, config  string
		errors, warnings int
		says             []string
	}{
		{"iptables", daily, 1, 0, []string{"iptables", "1/day burst 5"}},
		{"nft", daily, 0, 0, nil},
		{"", daily, 0, 1, []string{"iptables", "1/day burst 5"}},
		{"auto", daily, 0, 1, []string{"iptables"}},
		{"memory", daily, 0, 1, []string{"iptables"}},
		{"iptables", many, 1, 0, []string{"iptables", "2000000/second"}},
		{"nft", many, 0, 0, nil},
		{"auto", hopeless, 2, 0, []string{"2000000000/second"}},
		{"nft", hopeless, 1, 0, []string{"nft", "2000000000/second"}},
		{"iptables", "{rate: 10/minute, burst: 5}", 0, 0, nil},
	} {
		t.Run(tc.backend+" "+tc.config, func(t *testing.T) {
			rs, report := LoadFor(tc.backend, Bytes("r.yml", []byte(action("iptables_rate_limit, config: "+tc.config))))
			if len(report.Errors) != tc.errors || len(report.Warnings) != tc.warnings {
				t.Fatalf("errors %v, warnings %v", report.Errors, report.Warnings)
			}
			for _, p := range slices.Concat(report.Errors, report.Warnings) {
				if p.Line != 6 || p.Column != 48 {
					t.Errorf("%v, want line 6, column 48", p)
				}
				for _, s := range tc.says {
					if !strings.Contains(p.Error(), s) {
						t.Errorf("%v does not say %q", p, s)
					}
				}
			}
			if rs == nil {
				return
			}
			for _, name := range []string{"nft", "iptables", "memory"} {
				err := rs.CheckBackend(name)
				_, again := LoadFor(name, Bytes("r.yml", []byte(action("iptables_rate_limit, config: "+tc.config))))
				want := again.Err()
				if name == "memory" {
					want = nil
				}
				if (err == nil) != (want == nil) || err != nil && err.Error() != want.Error() {
					t.Errorf("CheckBackend(%s) says %v, loading for it %v", name, err, want)
				}
				if p, ok := errors.AsType[Problem](err); err != nil && (!ok || p.Line != 6) {
					t.Errorf("%v names no place", err)
				}
			}
		})
	}
}
