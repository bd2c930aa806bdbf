package guard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/netcap-guard/netcap-guard/engine"
)

// TestCapturesEveryWay replays every capture of NETCAP_GUARD_CAPTURES with the index over the rules,
// without it, and in the expression VM alone: the three event streams must be
// equal, down to the counters, but for how long the rules took.
func TestCapturesEveryWay(t *testing.T) {
	dir := os.Getenv(capturesVariable)
	if dir == "" {
		t.Skipf("%s is not set: no captures to replay", capturesVariable)
	}
	var captures []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.Contains(entry.Name(), "cap") {
			captures = append(captures, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var events atomic.Int64
	t.Run("all", func(t *testing.T) {
		shards := runtime.GOMAXPROCS(0)
		for shard := range shards {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for i := shard; i < len(captures); i += shards {
					events.Add(int64(sameEveryWay(t, captures[i])))
				}
			})
		}
	})
	t.Logf("%d captures, %d events, the same in three ways", len(captures), events.Load())
	if len(captures) < 800 || int(events.Load()) < 10*len(captures) {
		t.Errorf("%d captures with %d events", len(captures), events.Load())
	}
}

// sameEveryWay replays a capture in each way and returns how many events there
// are.
func sameEveryWay(t *testing.T, path string) int {
	t.Helper()
	var want []string
	for _, way := range []engine.Evaluation{engine.EvaluateIndexed, engine.EvaluateNative, engine.EvaluateVM} {
		got := eventStream(t, path, way)
		if want == nil {
			want = got
		} else if !slices.Equal(got, want) {
			t.Errorf("%s: way %d differs: %s", path, way, firstDifference(want, got))
		}
	}
	return len(want)
}

// eventStream replays a capture with the page's rules and the shipped ones.
func eventStream(t *testing.T, path string, way engine.Evaluation) []string {
	t.Helper()
	var out bytes.Buffer
	err := Run(t.Context(), Config{
		Read: []string{path}, Rules: []string{"testdata/page.yml", "testdata/ways.yml"}, Output: OutputJSON, Quiet: true,
	}, Environment{Streams: Streams{Out: &out, Err: io.Discard}, Log: slog.New(slog.DiscardHandler), Evaluation: way})
	lines := []string{fmt.Sprint(err)}
	for line := range strings.Lines(out.String()) {
		lines = append(lines, withoutClock(t, line))
	}
	return lines
}

// withoutClock takes the machine's time out of an event: that of the start,
// and what the rules took.
func withoutClock(t *testing.T, line string) string {
	t.Helper()
	if !strings.Contains(line, `"event_type":"start"`) && !strings.Contains(line, `"event_type":"stats"`) {
		return line
	}
	var ev map[string]any
	if err := json.Unmarshal([]byte(line), &ev); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	switch ev["event_type"] {
	case "start":
		delete(ev, "timestamp")
	case "stats":
		delete(ev, "timestamp") // the wall clock's where no packet has a time
		for _, r := range ev["stats"].(map[string]any)["rules"].(map[string]any) {
			delete(r.(map[string]any), "seconds")
		}
	}
	out, err := json.Marshal(ev)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func firstDifference(want, got []string) string {
	for i := range want {
		if i >= len(got) {
			return "missing: " + want[i]
		}
		if want[i] != got[i] {
			return fmt.Sprintf("event %d\n%s\ninstead of\n%s", i, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d events more", len(got)-len(want))
}
