package stream_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// TestConfirmed: only a handshake that was seen in full and fits together
// confirms a connection.
func TestConfirmed(t *testing.T) {
	e := web()
	get := e.up(0, request)
	with := func(p packet, change func(*packet)) packet {
		change(&p)
		return p
	}
	other := e
	other.cISN, other.sISN = 900000, 800000
	for name, tt := range map[string]struct {
		packets []packet
		want    string // of the last record; empty = there is none
	}{
		"in full":                        {append(e.open(), get), "confirmed"},
		"the ACK comes with the request": {[]packet{e.syn(), e.synACK(), get}, "confirmed"},
		"sent twice":                     {[]packet{e.syn(), e.syn(), e.synACK(), e.synACK(), e.ack(), e.ack(), get}, "confirmed"},
		"nothing but the request":        {[]packet{get}, "unconfirmed"},
		"no SYN-ACK":                     {[]packet{e.syn(), e.ack(), get}, "unconfirmed"},
		"no SYN":                         {[]packet{e.synACK(), e.ack(), get}, "unconfirmed"},
		"the request knows nothing of the answer": {
			[]packet{e.syn(), e.synACK(), with(get, func(p *packet) { p.ack = 77777 })}, ""},
		"an answer to another SYN": {
			[]packet{e.syn(), with(e.synACK(), func(p *packet) { p.ack += 5 }), e.ack(), get}, "unconfirmed"},
		"no ACK flag": {append(e.open(), with(get, func(p *packet) { p.flags = record.FlagPSH })), ""},
		"a forged SYN does not end it": {
			append(e.open(), other.syn(), get), "confirmed"},
		"a forged reset does not end it": {
			append(e.open(), with(e.ack(), func(p *packet) { p.flags, p.seq = record.FlagRST, p.seq+1000 }), get), "confirmed"},
		"nor does it forget after a reset that fits": {
			append(e.open(), with(e.ack(), func(p *packet) { p.flags = record.FlagRST }), get), "confirmed"},
		"the ports used again": {
			slices.Concat(e.open(), []packet{get}, other.open(), []packet{other.up(0, request)}), "confirmed"},
		"the ports used again by somebody who cannot see": {
			slices.Concat(e.open(), []packet{get, with(e.ack(), func(p *packet) { p.flags |= record.FlagFIN; p.seq += 28 }),
				with(e.down(0, ""), func(p *packet) { p.flags = record.FlagFIN | record.FlagACK })},
				[]packet{other.syn(), other.up(0, request)}), "unconfirmed"},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := urls(t, stream.Config{}, tt.packets...)
			last := ""
			if len(got) > 0 {
				last = got[len(got)-1]
			}
			if want := tt.want; want == "" && last != "" || want != "" && last != want+" GET /" {
				t.Errorf("read %q, want the last one %s", got, want)
			}
		})
	}
}

// TestWitness: a copy that a router sends on shows the handshake, and nothing
// else.
func TestWitness(t *testing.T) {
	e := web()
	d := &dialogue{}
	table := stream.New(httpWant(), d, stream.Config{})
	for i, p := range append(e.open(), e.up(0, request)) {
		set := p.set()
		table.Segment(set, !p.toServer)
		if want := i >= 2; set.Confirmed != want {
			t.Errorf("packet %d confirmed: %v", i, set.Confirmed)
		}
	}
	table.Segment(e.down(0, "HTTP/1.1 200 OK\r\n\r\n").set(), true)
	if len(d.lines) != 1 {
		t.Errorf("records %q", d.lines)
	}
}

// TestHandshakesAlone: without a rule on streams connections are still known.
func TestHandshakesAlone(t *testing.T) {
	e := web()
	table := stream.New(record.Want{Handshakes: true}, &dialogue{}, stream.Config{})
	for _, p := range append(e.open(), e.up(0, request)) {
		table.Segment(p.set(), false)
	}
	set := e.up(100, "x").set()
	table.Segment(set, false)
	if s := table.Stats(); !set.Confirmed || s.Confirmed != 1 || s.Records != 0 || s.Bytes != 0 {
		t.Errorf("confirmed %v, %+v", set.Confirmed, s)
	}
	off := stream.New(record.Want{}, &dialogue{}, stream.Config{})
	off.Segment(e.syn().set(), false)
	if off.Active() || off.Stats().Open != 0 {
		t.Error("a table that nobody asks for anything follows connections")
	}
}

// numbered is the i-th of many clients.
func numbered(i int) ends {
	e := web()
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x0a000000+uint32(i))
	e.client = netip.AddrPortFrom(netip.AddrFrom4(a), 1024+uint16(i%60000))
	return e
}

// flood sends n SYNs of as many sources, in the midst of which an attacker
// whose connection stands since the beginning, and one who has just connected,
// send a request.
func flood(t testing.TB, cfg stream.Config, n int) stream.Stats {
	d := &dialogue{}
	table := stream.New(httpWant(), d, cfg)
	old, fresh := numbered(1<<24-1), numbered(1<<24-2)
	for _, p := range old.open() {
		table.Segment(p.set(), false)
	}
	gap := numbered(1<<24 - 3) // one connection with a gap of a gigabyte
	for _, p := range append(gap.open(), gap.up(1<<30-1, "x")) {
		table.Segment(p.set(), false)
	}
	syn := numbered(0).syn().set()
	for i := range n {
		e := numbered(i)
		syn.Src, syn.SrcPort, syn.Time = e.client.Addr(), e.client.Port(), 1e9+int64(i)*1000
		table.Segment(syn, false)
		switch i {
		case n - 2000:
			table.Segment(fresh.syn().set(), false)
		case n - 1000:
			table.Segment(fresh.synACK().set(), false)
		case n - 500:
			table.Segment(fresh.up(0, request).set(), false)
		}
	}
	table.Segment(old.up(0, request).set(), false)
	table.Segment(gap.up(0, request).set(), false)
	if len(d.lines) != 3 {
		t.Errorf("records %q, want the three attackers' among the flood", d.lines)
	}
	for _, l := range d.lines {
		if !strings.Contains(l, " confirmed ") {
			t.Errorf("record %q is not confirmed", l)
		}
	}
	return table.Stats()
}

func TestFlood(t *testing.T) {
	const size = 8192
	s := flood(t, stream.Config{Connections: size}, 10*size)
	if s.Open != size || s.EvictedUseful+s.EvictedIdle != 0 || s.EvictedUnproven < 8*size {
		t.Errorf("%+v", s)
	}
}

// TestShed: who is worth least gives up his bytes first.
func TestShed(t *testing.T) {
	cfg := stream.Config{Memory: 8 << 10, PerConnection: 4 << 10, Connections: 1024}
	d := &dialogue{}
	table := stream.New(httpWant(), d, cfg)
	good := numbered(5000)
	for _, p := range append(good.open(), good.up(0, request[:20])) {
		table.Segment(p.set(), false)
	}
	for i := range 500 { // half a head each, of connections that never were
		table.Segment(numbered(i).up(0, "GET /?"+strings.Repeat("x", 900)).set(), false)
	}
	table.Segment(good.up(20, request[20:]).set(), false)
	s := table.Stats()
	if len(d.lines) != 1 || s.Bytes > 8<<10 || s.Shed < 400 {
		t.Errorf("records %q, %+v", d.lines, s)
	}
}
