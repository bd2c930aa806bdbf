package engine

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcap-guard/netcap-guard/record"
)

// TestExpect: what is announced, or not, or in vain, because another set comes
// first, counts the same.
func TestExpect(t *testing.T) {
	const rules = `
- {name: scan, type: TCP, expression: SYN && !ACK && PayloadSize == 0, threshold: 3}
- {name: pair, type: TCP, expression: SYN, threshold: 4, track_by: pair}
- {name: wide, type: TCP, expression: SYN, threshold: 5, actions: [{type: iptables_block, config: {ipv6_prefix: 64}}]}
`
	run := func(expect func(w *Worker, set, other *record.Set)) []string {
		j := &journal{}
		_, w := start(t, rules, j)
		for i := range 40 {
			set := syn(uint64(i), fmt.Sprintf("203.0.113.%d", i%3), 0)
			other := syn(uint64(i), "198.51.100.1", 0)
			if i%5 == 0 {
				set = syn(uint64(i), "2001:db8::1", 0)
			}
			expect(w, set, other)
			w.Evaluate(other)
			w.Evaluate(set)
		}
		return j.take()
	}
	want := run(func(*Worker, *record.Set, *record.Set) {})
	if len(want) < 10 {
		t.Fatalf("%d lines", len(want))
	}
	for name, expect := range map[string]func(w *Worker, set, other *record.Set){
		"the next one":  func(w *Worker, _, other *record.Set) { w.Expect(other, record.TypeTCP) },
		"the one after": func(w *Worker, set, _ *record.Set) { w.Expect(set, record.TypeTCP) },
		"both": func(w *Worker, set, other *record.Set) {
			w.Expect(set, record.TypeTCP)
			w.Expect(other, record.TypeTCP)
		},
		"without rules": func(w *Worker, set, _ *record.Set) { w.Expect(set, record.TypeHTTP) },
	} {
		if diff := cmp.Diff(want, run(expect)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
