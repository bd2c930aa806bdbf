package engine

import (
	"fmt"
	"net/netip"
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

// TestExpectAnotherPacket: a guard has one set for all packets. What was
// announced for one of them is nothing to the next, whoever sent it.
func TestExpectAnotherPacket(t *testing.T) {
	const (
		rules  = `- {name: scan, type: TCP, expression: SYN, threshold: 3}`
		nobody = "" // a packet without addresses
	)
	for _, tc := range []struct {
		name    string
		packets [][2]string // announced, where that is not "-", and evaluated
		alerts  int
	}{
		{"the same each time", [][2]string{{"192.0.2.1", "192.0.2.1"}, {"192.0.2.1", "192.0.2.1"}, {"192.0.2.1", "192.0.2.1"}}, 1},
		{"one announced, others come", [][2]string{{"192.0.2.1", "192.0.2.2"}, {"192.0.2.1", "192.0.2.3"}, {"192.0.2.1", "192.0.2.4"}}, 0},
		{"others announced, one comes", [][2]string{{"192.0.2.2", "192.0.2.1"}, {"192.0.2.3", "192.0.2.1"}, {"192.0.2.4", "192.0.2.1"}}, 1},
		{"announced once", [][2]string{{"192.0.2.1", "192.0.2.1"}, {"-", "192.0.2.2"}, {"-", "192.0.2.3"}}, 0},
		{"another one before", [][2]string{{"192.0.2.1", "192.0.2.2"}, {"-", "192.0.2.1"}, {"-", "192.0.2.1"}}, 0},
		{"no address after one", [][2]string{{"192.0.2.1", "192.0.2.1"}, {"-", nobody}, {"-", nobody}}, 0},
		{"no address", [][2]string{{"192.0.2.1", nobody}, {"192.0.2.2", nobody}, {"-", nobody}}, 1},
		{"IPv6 after IPv4", [][2]string{{"192.0.2.1", "2001:db8::1"}, {"192.0.2.1", "2001:db8::1"}, {"192.0.2.1", "2001:db8::2"}}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := &journal{}
			e, w := start(t, rules, j)
			set := syn(0, "192.0.2.9", 0)
			for _, p := range tc.packets {
				if p[0] != "-" {
					set.Src = source(t, p[0])
					w.Expect(set, record.TypeTCP)
				}
				set.Src = source(t, p[1])
				w.Evaluate(set)
			}
			if got := e.Stats().Rules["scan"]; int(got.Alerts) != tc.alerts || int(got.Matches) != len(tc.packets) {
				t.Errorf("%d alerts of %d matches, want %d of %d", got.Alerts, got.Matches, tc.alerts, len(tc.packets))
			}
		})
	}
}

// source parses an address; the empty text is no address.
func source(t *testing.T, text string) netip.Addr {
	t.Helper()
	if text == "" {
		return noAddr()
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
