package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcap-guard/netcap-guard/record"
)

// TestSequence: a rule with a sequence counts what comes after a match of the
// other rule for the same group, in time, and not in the same packet.
func TestSequence(t *testing.T) {
	const knock = "- {name: knock, type: TCP, expression: SYN && DstPort == 1}\n"
	step := func(packet uint64, port int32, src string, at float64) *record.Set {
		set := syn(packet, src, at)
		set.TCP.DstPort, set.DstPort = port, uint16(port)
		return set
	}
	for _, tc := range []struct {
		name, rule string
		packets    []*record.Set
		want       int // alerts of the rule
		unpreceded uint64
	}{
		{"after", "{after: knock, within: 10}", []*record.Set{step(1, 1, "192.0.2.1", 0), step(2, 2, "192.0.2.1", 1)}, 1, 0},
		{"before", "{after: knock, within: 10}", []*record.Set{step(1, 2, "192.0.2.1", 0), step(2, 1, "192.0.2.1", 1)}, 0, 1},
		{"another source", "{after: knock, within: 10}", []*record.Set{step(1, 1, "192.0.2.1", 0), step(2, 2, "192.0.2.2", 1)}, 0, 1},
		{"at the end", "{after: knock, within: 10}", []*record.Set{step(1, 1, "192.0.2.1", 0), step(2, 2, "192.0.2.1", 10)}, 1, 0},
		{"too late", "{after: knock, within: 10}", []*record.Set{step(1, 1, "192.0.2.1", 0), step(2, 2, "192.0.2.1", 10.001)}, 0, 1},
		{"again in time", "{after: knock, within: 10}", []*record.Set{step(1, 1, "192.0.2.1", 0), step(2, 1, "192.0.2.1", 9), step(3, 2, "192.0.2.1", 18)}, 1, 0},
		{"the same time", "{after: knock, within: 10}", []*record.Set{step(1, 1, "192.0.2.1", 0), step(2, 2, "192.0.2.1", 0)}, 1, 0},
		{"another group", "{after: knock, within: 10, group_by: [DstIP]}", []*record.Set{step(1, 1, "192.0.2.1", 0), step(2, 2, "192.0.2.2", 1)}, 1, 0},
		{"a number in common", "{after: knock, within: 10, group_by: [SrcIP, Window]}", []*record.Set{step(1, 1, "192.0.2.1", 0), step(2, 2, "192.0.2.1", 1)}, 1, 0},
		{"a port not in common", "{after: knock, within: 10, group_by: [SrcIP, DstPort]}", []*record.Set{step(1, 1, "192.0.2.1", 0), step(2, 2, "192.0.2.1", 1)}, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, w := start(t, "- {name: enter, type: TCP, expression: SYN && DstPort == 2, sequence: "+tc.rule+"}\n"+knock, &journal{})
			for _, p := range tc.packets {
				w.Evaluate(p)
			}
			got := e.Stats().Rules["enter"]
			if got.Alerts != uint64(tc.want) || got.Unpreceded != tc.unpreceded {
				t.Errorf("%+v, want %d alerts, %d matches without the rule before", got, tc.want, tc.unpreceded)
			}
		})
	}
}

// TestSequenceOnePacket: a packet does not come after itself, whichever rule
// stands first.
func TestSequenceOnePacket(t *testing.T) {
	for _, rules := range []string{
		"- {name: a, type: TCP, expression: SYN}\n- {name: b, type: TCP, expression: SYN, sequence: {after: a, within: 10}}\n",
		"- {name: b, type: TCP, expression: SYN, sequence: {after: a, within: 10}}\n- {name: a, type: TCP, expression: SYN}\n",
	} {
		e, w := start(t, rules, &journal{})
		w.Evaluate(syn(1, "192.0.2.1", 0))
		if got := e.Stats().Rules["b"]; got.Alerts != 0 || got.Unpreceded != 1 {
			t.Errorf("%+v after one packet", got)
		}
		w.Evaluate(syn(2, "192.0.2.1", 1))
		if got := e.Stats().Rules["b"]; got.Alerts != 1 {
			t.Errorf("%+v after two packets", got)
		}
	}
}

// TestSequenceSurvivesReload: what was opened stays open for a rule that did
// not change.
func TestSequenceSurvivesReload(t *testing.T) {
	const rules = "- {name: a, type: TCP, expression: SYN}\n- {name: b, type: TCP, expression: FIN, sequence: {after: a, within: 10}}\n"
	e, w := start(t, rules, &journal{})
	w.Evaluate(syn(1, "192.0.2.1", 0))
	if _, err := e.Reload(Bytes("rules.yml", []byte(rules+"- {name: c, type: UDP, expression: DstPort == 1}\n"))); err != nil {
		t.Fatal(err)
	}
	set := syn(2, "192.0.2.1", 5)
	set.TCP.SYN, set.TCP.FIN = false, true
	w.Evaluate(set)
	if got := e.Stats().Rules["b"]; got.Alerts != 1 {
		t.Errorf("%+v", got)
	}
}

// TestPeak: the highest count, and whose it was, also where no rule fired.
func TestPeak(t *testing.T) {
	e, w := start(t, `
- {name: source, type: TCP, expression: SYN, threshold: 10, threshold_window: 10}
- {name: destination, type: TCP, expression: SYN, threshold: 10, track_by: destination}
- {name: all, type: TCP, expression: SYN, threshold: 10, track_by: rule}
- {name: ports, type: TCP, expression: SYN, distinct_field: SrcPort, distinct_threshold: 10}
- {name: never, type: TCP, expression: FIN}
`, &journal{})
	for i, src := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.2", "192.0.2.1"} {
		w.Evaluate(syn(uint64(i+1), src, float64(i)))
	}
	dst := syn(1, "192.0.2.1", 0).Dst
	two := netip.MustParseAddr("192.0.2.2")
	type peaks struct {
		Count    int
		Src, Dst string
	}
	got := map[string]peaks{}
	for name, s := range e.Stats().Rules {
		got[name] = peaks{s.Peak, s.PeakFor.Src.String(), s.PeakFor.Dst.String()}
	}
	none := netip.Addr{}.String()
	want := map[string]peaks{
		"source": {3, two.String(), none}, "destination": {5, none, dst.String()}, "all": {5, none, none},
		"ports": {1, "192.0.2.1", none}, "never": {0, none, none},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestTiming: with Timing every rule that is looked at costs something.
func TestTiming(t *testing.T) {
	rs, _ := mustLoad(t, `- {name: r, type: TCP, expression: 'MatchesPattern(Payload, "(a|b)*c") || SYN', threshold: 100000}`)
	e := New(rs, Config{Lossless: true, Timing: true})
	defer func() { _ = e.Close(context.Background()) }() // nothing waits
	w := e.NewWorker()
	set := background()
	set.TCP.SYN = true
	for range 100 * sampleEvery {
		w.Evaluate(set)
	}
	if got := e.Stats().Rules["r"].Time; got <= 0 {
		t.Errorf("100 samples took %v", got)
	}
}

// TestSketch: far above what is told apart one by one, the count of different
// values is right to a few percent.
func TestSketch(t *testing.T) {
	for _, n := range []int{1025, 3000, 20_000, 100_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			fired := 0
			const rounds = 8
			for round := range rounds {
				tr, seen := newTracker(64, 1<<14), map[uint64]bool{}
				k := tr.key(uint32(round), countMatches, hostAddr(1), noAddr())
				for i := range int64(8 * n) {
					value := r.Uint64N(uint64(4 * n))
					seen[value] = true
					if tr.manyDistinct(k, value, i, 1<<40, n) == n {
						fired += len(seen)
						break
					}
				}
			}
			if mean := float64(fired) / rounds / float64(n); mean < 0.93 || mean > 1.07 {
				t.Errorf("fired at %.2f times the threshold on average", mean)
			}
		})
	}
}
