package guard

import (
	"net/netip"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/record"
)

// TestForgedBetween: on a router, too, nobody is blocked for a request of which
// all came in by one interface, the server's answer included: one host can
// send that in the name of any two others.
func TestForgedBetween(t *testing.T) {
	const syn, ack = record.FlagSYN, record.FlagACK
	const outside, inside = 2, 3
	client, server := netip.MustParseAddrPort("203.0.113.9:40000"), netip.MustParseAddrPort("192.0.2.1:80")
	in := func(b []byte, iface int) *capture.Packet {
		return &capture.Packet{Data: b, Length: len(b), Link: 101, Iface: iface}
	}
	out := func(b []byte, iface int) *capture.Packet {
		p := in(b, iface)
		p.Outgoing = true
		return p
	}
	hello, answer := segment(client, server, syn, 100, 0, ""), segment(server, client, syn|ack, 500, 101, "")
	forged := segment(server, client, syn|ack, 900, 101, "")
	ask := segment(client, server, ack, 101, 501, "GET /?q=union+select HTTP/1.1\r\n\r\n")
	lie := segment(client, server, ack, 101, 901, "GET /?q=union+select HTTP/1.1\r\n\r\n")
	for name, tt := range map[string]struct {
		packets []*capture.Packet
		want    int
	}{
		"seen outside": {[]*capture.Packet{in(hello, outside), out(answer, outside), in(ask, outside)}, 1},
		"seen on both sides": {[]*capture.Packet{in(hello, outside), out(hello, inside), in(answer, inside), out(answer, outside),
			in(ask, outside), out(ask, inside)}, 1},
		"all from one side":           {[]*capture.Packet{in(hello, outside), in(forged, outside), in(lie, outside)}, 0},
		"and sent back":               {[]*capture.Packet{in(hello, outside), in(forged, outside), out(forged, outside), in(lie, outside)}, 0},
		"and the real answer, too":    {[]*capture.Packet{in(hello, outside), in(forged, outside), out(answer, outside), in(lie, outside)}, 0},
		"who forges his own answer":   {[]*capture.Packet{in(hello, outside), in(forged, outside), out(forged, outside), out(answer, outside), in(ask, outside)}, 1},
		"the SYN goes on, all others": {[]*capture.Packet{in(hello, outside), out(hello, inside), in(forged, outside), in(lie, outside)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			rs, report := engine.Load(engine.Bytes("test",
				[]byte("- {name: a, type: HTTP, expression: 'URL contains \"union\"', actions: [{type: iptables_block}]}")))
			if err := report.Err(); err != nil {
				t.Fatal(err)
			}
			j := &journal{}
			s := newShared(engine.New(rs, engine.Config{Alerts: j, Lossless: true, Forgeable: true}))
			s.between = true
			s.own.Store(newAddresses(map[netip.Addr]struct{}{netip.MustParseAddr("192.0.2.254"): {}}))
			w := newWorker(s)
			for i, p := range tt.packets {
				p.Time = int64(i + 1)
				w.packet(p, 0)
			}
			if len(j.alerts) != tt.want {
				t.Errorf("%d alerts, want %d", len(j.alerts), tt.want)
			}
		})
	}
}
