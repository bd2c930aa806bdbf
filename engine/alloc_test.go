package engine

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/record"
)

// background is a set as an established connection fills it: nothing a
// scanner would send.
func background() *record.Set {
	set := &record.Set{Have: record.Of(record.TypeTCP, record.TypeIPv4, record.TypeUDP, record.TypeDNS)}
	set.Header = record.Header{Time: t0, Packet: 1, Proto: 6, SrcPort: 40000, DstPort: 443,
		Src: netip.MustParseAddr("192.0.2.7"), Dst: netip.MustParseAddr("2001:db8::1")}
	set.TCP = record.TCP{SrcPort: 40000, DstPort: 443, ACK: true, PSH: true, PayloadSize: 1200, Payload: make([]byte, 64), Window: 501}
	set.UDP = record.UDP{SrcPort: 40000, DstPort: 443, Length: 1208}
	set.IPv4 = record.IPv4{TTL: 64, Protocol: 6, Length: 1240}
	set.DNS = record.DNS{QR: true, Questions: []*record.DNSQuestion{{Name: "www.example.org", Type: 1}}, QDCount: 1}
	return set
}

// nothing are rules of every form that native code has, none of which matches
// background.
const nothing = `
- {name: a, type: TCP, expression: SYN && !ACK && PayloadSize == 0, threshold: 50}
- {name: b, type: TCP, expression: DstPort == 22 && SYN && !ACK, threshold: 10}
- {name: c, type: TCP, expression: 'DstPort in [21, 22, 23] or SrcPort in 1..1023 or SeqNum + 1 == AckNum * 2'}
- {name: d, type: TCP, expression: 'InSubnet(SrcIP, "10.0.0.0/8", "172.16.0.0/12") || IsPrivateIP(DstIP) || SrcIP == "192.0.2.1"'}
- {name: e, type: TCP, expression: 'MatchesPattern(Payload, "union.*select") || ContainsAny(Payload, ["/etc/passwd"])'}
- {name: f, type: TCP, expression: 'PayloadEntropy > 7.5 || Window / 2 > 40000.0 || HourOfDay() > 23 || any(Options, .OptionType == 99)'}
- {name: g, type: DNS, expression: 'len(Questions) > 0 && (len(Questions[0].Name) > 100 || Questions[0].Name endsWith ".ru")'}
- {name: h, type: UDP, expression: 'PortInRange(DstPort, 1, 100) || InAllowlist(SrcIP, "10.0.0.0/8")'}
- {name: i, type: IPv4, expression: 'TTL < 5 ? true : not (Protocol == 6)'}
`

func TestNoAllocationWithoutMatch(t *testing.T) {
	e, w := start(t, nothing, &journal{})
	for _, r := range e.Rules().Rules() {
		if !r.Native() {
			t.Errorf("%s is not native", r.Name)
		}
	}
	set := background()
	if allocs := testing.AllocsPerRun(1000, func() { w.Evaluate(set) }); allocs != 0 {
		t.Errorf("%v allocations a packet", allocs)
	}
	for name, s := range e.Stats().Rules {
		if s != (RuleStats{}) {
			t.Errorf("%s counted %+v", name, s)
		}
	}
}

// TestNoAllocationBelowThreshold: counting a match costs no memory either.
func TestNoAllocationBelowThreshold(t *testing.T) {
	_, w := start(t, "- {name: r, type: TCP, expression: SYN, threshold: 100000, threshold_window: 1}", &journal{})
	set := syn(1, "203.0.113.9", 0)
	if allocs := testing.AllocsPerRun(1000, func() {
		set.Time++
		w.Evaluate(set)
	}); allocs != 0 {
		t.Errorf("%v allocations a match", allocs)
	}
}

// BenchmarkEvaluate is what one packet costs that matches no rule.
func BenchmarkEvaluate(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			var rules strings.Builder
			for i := range n {
				fmt.Fprintf(&rules, "- {name: r%d, type: TCP, expression: 'DstPort == %d && SYN && !ACK', threshold: 10}\n", i, 20+i)
			}
			_, w := start(b, rules.String(), &journal{})
			set := background()
			b.ReportAllocs()
			for b.Loop() {
				w.Evaluate(set)
			}
		})
	}
}

// BenchmarkFlood is what one matching packet costs under forged sources.
func BenchmarkFlood(b *testing.B) {
	rs, _ := mustLoad(b, "- {name: r, type: TCP, expression: SYN && !ACK && PayloadSize == 0, threshold: 100, threshold_window: 5}")
	e := New(rs, Config{})
	b.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	w := e.NewWorker()
	set := syn(1, "203.0.113.9", 0)
	b.ReportAllocs()
	i := uint32(0)
	for b.Loop() {
		i = i*1664525 + 1013904223
		set.Src = netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
		set.Time += 500
		w.Evaluate(set)
	}
}
