package guard

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/record"
)

func TestTrustedProxies(t *testing.T) {
	cfg := Config{TrustedProxies: []string{"192.0.2.10", "10.0.0.0/8", "2001:db8::/32"}}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	trusted := cfg.proxies()
	for _, tt := range []struct {
		name, from, to, forwarded string
		answer                    bool
		src, via                  string
	}{
		{"not a proxy", "203.0.113.9", "192.0.2.1", "198.51.100.7", false, "203.0.113.9", "invalid IP"},
		{"the client", "192.0.2.10", "192.0.2.1", "198.51.100.7", false, "198.51.100.7", "192.0.2.10"},
		{"what the client wrote itself", "192.0.2.10", "192.0.2.1", "8.8.8.8, 198.51.100.7", false, "198.51.100.7", "192.0.2.10"},
		{"a chain of proxies", "192.0.2.10", "192.0.2.1", "8.8.8.8,198.51.100.7 , 10.1.2.3", false, "198.51.100.7", "192.0.2.10"},
		{"with a port", "10.0.0.1", "192.0.2.1", "[2001:db9::1]:4711", false, "2001:db9::1", "10.0.0.1"},
		{"IPv6", "2001:db8::1", "2001:db8::2", "2001:db9::1", false, "2001:db9::1", "2001:db8::1"},
		{"rubbish", "192.0.2.10", "192.0.2.1", "198.51.100.7, unknown", false, "192.0.2.10", "192.0.2.10"},
		{"nothing", "192.0.2.10", "192.0.2.1", "", false, "192.0.2.10", "192.0.2.10"},
		{"an answer", "192.0.2.1", "192.0.2.10", "", true, "192.0.2.1", "192.0.2.10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := record.Header{Src: netip.MustParseAddr(tt.from), Dst: netip.MustParseAddr(tt.to)}
			trusted.apply(&h, &record.HTTP{XForwardedFor: tt.forwarded, IsResponse: tt.answer})
			if h.Src.String() != tt.src || h.Via.String() != tt.via {
				t.Errorf("source %v via %v, want %s via %s", h.Src, h.Via, tt.src, tt.via)
			}
		})
	}
	for _, bad := range []Config{{TrustedProxies: []string{"proxy"}}, {Streams: Streamed{Connections: -1}}, {Streams: Streamed{Memory: 1 << 30}}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// journal keeps the alerts of a test's engine.
type journal struct{ alerts []*engine.Alert }

func (j *journal) WriteAlert(a *engine.Alert) error {
	j.alerts = append(j.alerts, a)
	return nil
}

// segment is an IPv4 packet with a TCP segment, without a link header.
func segment(src, dst netip.AddrPort, flags byte, seq, ack uint32, data string) []byte {
	total := 40 + len(data)
	b := []byte{0x45, 0, byte(total >> 8), byte(total), 0, 0, 0, 0, 64, 6, 0, 0}
	b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	b = append(b, byte(src.Port()>>8), byte(src.Port()), byte(dst.Port()>>8), byte(dst.Port()))
	for _, n := range []uint32{seq, ack} {
		b = append(b, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(append(b, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0), data...)
}

// TestForgedStreams: live, only who answered to the server's own number can be
// blocked for a request, and it does not help to send the server's part
// oneself.
func TestForgedStreams(t *testing.T) {
	const syn, ack = record.FlagSYN, record.FlagACK
	client, server := netip.MustParseAddrPort("203.0.113.9:40000"), netip.MustParseAddrPort("192.0.2.1:80")
	get := "GET /?q=union+select HTTP/1.1\r\nHost: a\r\n\r\n"
	type pkt struct {
		data     []byte
		outgoing bool
	}
	hello := pkt{segment(client, server, syn, 100, 0, ""), false}
	answer := segment(server, client, syn|ack, 500, 101, "")
	ask := pkt{segment(client, server, ack, 101, 501, get), false}
	for name, tt := range map[string]struct {
		packets   []pkt
		rule      string
		forgeable bool
		want      int
	}{
		"a handshake in full":         {[]pkt{hello, {answer, true}, ask}, "", true, 1},
		"the request alone":           {[]pkt{ask}, "", true, 0},
		"the answer forged, too":      {[]pkt{hello, {answer, false}, ask}, "", true, 0},
		"the request alone, replayed": {[]pkt{ask}, "", false, 1},
		"confirmed: false":            {[]pkt{ask}, "confirmed: false, ", true, 1},
		"confirmed: true, replayed":   {[]pkt{ask}, "confirmed: true, ", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			rules := "- {name: a, type: HTTP, expression: 'URL contains \"union\"', " + tt.rule + "actions: [{type: iptables_block}]}"
			rs, report := engine.Load(engine.Bytes("test", []byte(rules)))
			if err := report.Err(); err != nil {
				t.Fatal(err)
			}
			j := &journal{}
			e := engine.New(rs, engine.Config{Alerts: j, Lossless: true, Forgeable: tt.forgeable})
			s := newShared(e)
			s.own.Store(newAddresses(map[netip.Addr]struct{}{server.Addr(): {}}))
			w := newWorker(s)
			for i, p := range tt.packets {
				w.packet(&capture.Packet{Data: p.data, Length: len(p.data), Link: 101, Time: int64(i + 1), Outgoing: p.outgoing}, 0)
			}
			if len(j.alerts) != tt.want {
				t.Fatalf("%d alerts, want %d", len(j.alerts), tt.want)
			}
			if tt.want == 1 {
				shown := j.alerts[0].Fields.(*record.HTTP)
				if shown.Host != "a" || shown.RequestHeader["Host"] != "a" || shown.SrcIP != client.Addr().String() ||
					!strings.HasPrefix(shown.Flow, "203.0.113.9:40000->") {
					t.Errorf("the alert shows %+v", shown)
				}
			}
		})
	}
}

// TestAlertNamesTheProxy: why nothing is blocked is said, to people and in the
// event.
func TestAlertNamesTheProxy(t *testing.T) {
	for _, via := range []string{"", "192.0.2.80", "2001:db8::80"} {
		var out bytes.Buffer
		e, err := openEvents(Config{}, &out)
		if err != nil {
			t.Fatal(err)
		}
		a := &engine.Alert{Rule: "r", Src: netip.MustParseAddr("198.51.100.7"), Record: record.TypeHTTP, Fields: &record.HTTP{}}
		if via != "" {
			a.Via = netip.MustParseAddr(via)
		}
		if err := e.WriteAlert(a); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "through proxy") != (via != "") || !strings.Contains(out.String(), via) {
			t.Errorf("via %q: %q", via, out.String())
		}
		if got := e.alerts(a.Src); len(got) != 1 || got[0].Alert.Via != via {
			t.Errorf("via %q: the events are %+v", via, got)
		}
	}
}
