package guard

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/netcap-guard/netcap-guard/engine"
)

// ruleStats is what became of one rule.
type ruleStats struct {
	Matches uint64 `json:"matches"`
	Alerts  uint64 `json:"alerts"`
	Errors  uint64 `json:"errors"`
	// Unconfirmed and Unpreceded matches did not count: no handshake was seen,
	// or the rule of the sequence had not matched before.
	Unconfirmed uint64 `json:"unconfirmed,omitempty"`
	Unpreceded  uint64 `json:"unpreceded,omitempty"`
	// Peak is the highest count within the rule's window.
	Peak *peakStats `json:"peak,omitempty"`
	// Seconds is what the rule took, as far as was measured.
	Seconds float64 `json:"seconds,omitempty"`
}

// peakStats is a rule's highest count, and for whom.
type peakStats struct {
	Count  int    `json:"count"`
	SrcIP  string `json:"src_ip,omitempty"`
	DestIP string `json:"dest_ip,omitempty"`
}

func ruleJSON(s engine.RuleStats) ruleStats {
	out := ruleStats{
		Matches: s.Matches, Alerts: s.Alerts, Errors: s.Errors,
		Unconfirmed: s.Unconfirmed, Unpreceded: s.Unpreceded, Seconds: s.Time.Seconds(),
	}
	if s.Peak > 0 {
		out.Peak = &peakStats{Count: s.Peak, SrcIP: addr(s.PeakFor.Src), DestIP: addr(s.PeakFor.Dst)}
	}
	return out
}

// writeWhy prints, for each rule that ran, why it fired or did not.
func writeWhy(w io.Writer, e *engine.Engine) error {
	stats := e.Stats().Rules
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "rule\tmatches\talerts\thighest count\tfor\ttime\tnot counted")
	for _, r := range e.Rules().Rules() {
		if !r.Runs() {
			continue
		}
		s := stats[r.Name]
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\t%s\n", r.Name, s.Matches, s.Alerts, highest(r, s), whose(r, s), spent(s.Time), notCounted(s))
	}
	return t.Flush()
}

// highest is the highest count beside the one that was needed: 12 of 50 in 10s.
func highest(r *engine.Rule, s engine.RuleStats) string {
	needed, what := max(1, r.Threshold), ""
	if r.DistinctThreshold > 0 {
		needed, what = r.DistinctThreshold, " "+r.DistinctField
		if r.Threshold > 1 {
			what += fmt.Sprintf(" and %d matches", r.Threshold)
		}
	}
	if needed == 1 {
		return strconv.Itoa(s.Peak) + " of 1"
	}
	return fmt.Sprintf("%d of %d%s in %v", s.Peak, needed, what, shortDuration(r.Window))
}

func shortDuration(d time.Duration) string {
	if d%time.Second == 0 && d < 10*time.Minute {
		return strconv.Itoa(int(d/time.Second)) + "s"
	}
	return d.String()
}

// whose names the address, or the two, that the highest count belongs to.
func whose(r *engine.Rule, s engine.RuleStats) string {
	src, dst := s.PeakFor.Src, s.PeakFor.Dst
	switch {
	case s.Peak == 0:
		return "-"
	case src.IsValid() && dst.IsValid():
		return src.String() + " to " + dst.String()
	case src.IsValid():
		return src.String()
	case dst != (netip.Addr{}):
		return "to " + dst.String()
	case r.TrackBy == engine.TrackRule:
		return "all together"
	}
	return "-"
}

func spent(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return "~" + d.Round(time.Microsecond).String()
}

func notCounted(s engine.RuleStats) string {
	text := ""
	for _, part := range []struct {
		n    uint64
		what string
	}{{s.Unconfirmed, "without a handshake"}, {s.Unpreceded, "without the rule before"}, {s.Errors, "evaluation errors"}} {
		if part.n > 0 {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%d %s", part.n, part.what)
		}
	}
	if text == "" {
		return "-"
	}
	return text
}
