package guard

import (
	"strings"
	"testing"
	"time"
)

// TestLossesAreTold: at once, then at most once a minute, and never without a
// loss.
func TestLossesAreTold(t *testing.T) {
	var out strings.Builder
	w := lossWatch{log: Logger(&out, false, false)}
	now := time.Unix(1, 0)
	for i, step := range []struct {
		after   time.Duration
		dropped uint64
		want    string // part of the line; empty = none
	}{
		{0, 0, ""},
		{time.Second, 5, "lost 5, "},
		{time.Second, 9, ""},
		{lossRest, 9, "lost 4, "},
		{2 * lossRest, 9, ""},
		{time.Second, 10, "lost 1, "},
		{time.Second, 12, ""},
	} {
		out.Reset()
		now = now.Add(step.after)
		w.look(now, captureStats{Received: 100, Dropped: step.dropped, RingFull: 2})
		got := out.String()
		if (got == "") != (step.want == "") || !strings.Contains(got, step.want) || got != "" && !strings.Contains(got, "--workers") {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	for _, want := range []string{"lost 2, ", ""} { // at the end, once
		out.Reset()
		if w.end(captureStats{Received: 100, Dropped: 12}); !strings.Contains(out.String(), want) || want == "" && out.Len() > 0 {
			t.Errorf("at the end: %q, want %q", out.String(), want)
		}
	}
}
