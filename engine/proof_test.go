package engine

import (
	"net/netip"
	"testing"

	"github.com/netcap-guard/netcap-guard/record"
)

// TestProof: who may look at what, live and in a replay.
func TestProof(t *testing.T) {
	const rules = `
- {name: blocks, type: HTTP, expression: Method == "GET", actions: [{type: iptables_block}]}
- {name: waived, type: HTTP, expression: Method == "GET", confirmed: false, actions: [{type: iptables_block}]}
- {name: asked, type: HTTP, expression: Method == "GET", confirmed: true}
- {name: alerts, type: HTTP, expression: Method == "GET"}
- {name: off, type: HTTP, expression: Method == "GET", actions: [{type: iptables_block, enabled: false}]}
- {name: packets, type: TCP, expression: PSH, actions: [{type: iptables_block}]}
- {name: known, type: TCP, expression: PSH, confirmed: true, actions: [{type: iptables_block}]}
- {name: line, type: SSH, expression: DstPort == 22}
- {name: offer, type: SSH, expression: HASSH == "x"}
`
	for _, tt := range []struct {
		name            string
		forgeable       bool
		stream, confirm bool
		want            map[string]uint64
	}{
		{"live, seen", true, true, true, map[string]uint64{"blocks": 1, "waived": 1, "asked": 1, "alerts": 1, "off": 1, "packets": 1, "known": 1, "line": 1, "offer": 1}},
		{"live, not seen", true, true, false, map[string]uint64{"waived": 1, "alerts": 1, "off": 1, "line": 1, "offer": 1}},
		{"live, a packet", true, false, false, map[string]uint64{"blocks": 1, "waived": 1, "alerts": 1, "off": 1, "packets": 1, "line": 1, "offer": 1}},
		{"replay, not seen", false, true, false, map[string]uint64{"blocks": 1, "waived": 1, "alerts": 1, "off": 1, "packets": 1, "line": 1, "offer": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rs, _ := mustLoad(t, rules)
			if !rs.Want().Handshakes {
				t.Error("confirmed: true does not ask for handshakes")
			}
			e := New(rs, Config{Lossless: true, Forgeable: tt.forgeable})
			w := e.NewWorker()
			set := &record.Set{Header: record.Header{Time: 1, Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"),
				Stream: tt.stream, Confirmed: tt.confirm}}
			set.Have = record.Of(record.TypeHTTP, record.TypeTCP, record.TypeSSH)
			set.HTTP.Method, set.TCP.PSH, set.SSH.DstPort, set.SSH.HASSH = "GET", true, 22, "x"
			w.Evaluate(set)
			set.Late, set.Have = true, record.Of(record.TypeSSH)
			w.Evaluate(set)
			for name, s := range e.Stats().Rules {
				if s.Alerts != tt.want[name] {
					t.Errorf("%s: %d alerts, want %d", name, s.Alerts, tt.want[name])
				}
			}
		})
	}
}
