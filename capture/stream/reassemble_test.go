package stream_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

func httpWant() record.Want {
	var w record.Want
	w.Add(record.TypeHTTP, fieldsOf(record.TypeHTTP)...)
	return w
}

// urls runs packets and returns the targets of the requests.
func urls(t *testing.T, cfg stream.Config, packets ...packet) ([]string, *stream.Table) {
	t.Helper()
	d := &dialogue{}
	var want record.Want
	want.Add(record.TypeHTTP)
	table := stream.New(want, d, cfg)
	for _, p := range packets {
		table.Segment(p.set(), false)
	}
	for i, l := range d.lines {
		d.lines[i] = strings.Join(strings.Fields(l)[1:4], " ")
	}
	return d.lines, table
}

// TestOverlaps: who sends two versions of the same bytes is read as Linux
// reads him.
func TestOverlaps(t *testing.T) {
	e := web()
	const tail = " HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, tt := range map[string]struct {
		segments []packet
		want     string
	}{
		"delivered bytes stand":            {[]packet{e.up(0, "GET /aa"), e.up(5, "bbb"+tail)}, "/aab"},
		"sent again":                       {[]packet{e.up(0, "GET /aa"), e.up(0, "GET /aa"), e.up(7, tail)}, "/aa"},
		"the earlier piece has the shared": {[]packet{e.up(5, "xxx"), e.up(7, "yyy"), e.up(0, "GET /"), e.up(10, tail)}, "/xxxyy"},
		"the same when it comes later":     {[]packet{e.up(7, "yyy"), e.up(5, "xxx"), e.up(0, "GET /"), e.up(10, tail)}, "/xxxyy"},
		"one that covers another wholly":   {[]packet{e.up(6, "x"), e.up(5, "yyy"), e.up(0, "GET /"), e.up(8, tail)}, "/yyy"},
		"one that is covered":              {[]packet{e.up(5, "yyy"), e.up(6, "x"), e.up(0, "GET /"), e.up(8, tail)}, "/yyy"},
		"same beginning, longer":           {[]packet{e.up(5, "x"), e.up(5, "yyy"), e.up(0, "GET /"), e.up(8, tail)}, "/yyy"},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := urls(t, stream.Config{}, append(e.open(), tt.segments...)...)
			if len(got) != 1 || got[0] != "confirmed GET "+tt.want {
				t.Errorf("read %q, want %s", got, tt.want)
			}
		})
	}
}

func TestSequenceWrap(t *testing.T) {
	e := web()
	for _, isn := range []uint32{1<<32 - 1, 1<<32 - 2, 1<<32 - 10, 1 << 31, 1<<31 - 5} {
		e.cISN, e.sISN = isn, isn
		got, _ := urls(t, stream.Config{}, append(e.open(), e.up(7, "cd HTTP/1.1\r\n\r\n"), e.up(0, "GET /ab"))...)
		if fmt.Sprint(got) != "[confirmed GET /abcd]" {
			t.Errorf("from %d: %q", isn, got)
		}
	}
}

// TestGaps: bytes that are missing for good are given up when that is known,
// and no sooner.
func TestGaps(t *testing.T) {
	e := web()
	const one, two = "GET /1 HTTP/1.1\r\n\r\n", "GET /2 HTTP/1.1\r\n\r\n"
	got2 := "[confirmed GET /2]"
	acked := func(p packet, ack int) packet {
		p.ack = e.cISN + 1 + uint32(ack)
		return p
	}
	const post = "POST /1 HTTP/1.1\r\nContent-Length: "
	long := strings.Repeat("x", 1000)
	for name, tt := range map[string]struct {
		cfg      stream.Config
		segments []packet
		want     string
		gaps     uint64
	}{
		"the receiver has it":        {stream.Config{}, []packet{acked(e.down(0, "x"), 100), e.up(100, two)}, got2, 1},
		"the receiver says so later": {stream.Config{}, []packet{e.up(100, two), acked(e.down(0, "x"), 100+len(two))}, got2, 1},
		"somebody says that he has what was not sent": {stream.Config{},
			[]packet{acked(e.down(0, ""), 1<<31-100), acked(e.down(0, ""), 0), e.up(len(one), two), e.up(0, one)}, "[confirmed GET /1 confirmed GET /2]", 0},
		"the same, and nothing else is known": {stream.Config{},
			[]packet{acked(e.down(0, ""), 1<<31-100), e.up(len(one), two), e.up(0, one)}, "[confirmed GET /1 confirmed GET /2]", 0},
		"more was lost than the receiver had room for": {stream.Config{},
			[]packet{e.up(0, one[:5]), acked(e.down(0, ""), 1<<30+5), e.up(1<<30+5, two)}, got2, 1},
		"the receiver lacks it, too": {stream.Config{},
			[]packet{acked(e.down(0, "x"), 0), e.up(len(one), two), e.up(0, one)}, "[confirmed GET /1 confirmed GET /2]", 0},
		"nothing is known of the receiver": {stream.Config{PerConnection: 2048},
			[]packet{e.up(100, two), e.up(2000, long), e.up(4000, long)}, got2, 1},
		"far ahead of what the receiver has": {stream.Config{PerConnection: 2048}, append(
			[]packet{acked(e.down(0, "x"), 0), e.up(1000, long), e.up(3000, long), e.up(5000, long), e.up(1<<30-1, long)},
			e.up(0, one), e.up(len(one), two)), "[confirmed GET /1 confirmed GET /2]", 0},
		"cut by the snap length": {stream.Config{},
			[]packet{{e: e, toServer: true, flags: record.FlagACK, seq: e.cISN + 1, ack: e.sISN + 1, data: []byte("GET /1 HTTP/1.1\r\nHos"), size: 500},
				e.up(500, two)}, "[confirmed GET /1 confirmed GET /2]", 1},
		"a body's gap is none": {stream.Config{},
			[]packet{e.down(0, ""), e.up(0, post+"100000\r\n\r\nabc"), e.up(len(post)+10+100000, two)},
			"[confirmed POST /1 confirmed GET /2]", 0},
		"nor is one of three gigabytes": {stream.Config{},
			[]packet{e.up(0, post+"3000000000\r\n\r\n"), acked(e.down(0, ""), len(post)+14+1<<30), e.up(len(post)+14+1<<30, "x"),
				acked(e.down(0, ""), len(post)+14+2<<30), e.up(len(post)+14+2<<30, "x"), acked(e.down(0, ""), len(post)+14+3000000000), e.up(len(post)+14+3000000000, two)}, "[confirmed POST /1 confirmed GET /2]", 2},
	} {
		t.Run(name, func(t *testing.T) {
			handshake := e.open()
			if name == "nothing is known of the receiver" {
				handshake = handshake[:1] // and the server is never seen
			}
			got, table := urls(t, tt.cfg, append(handshake, tt.segments...)...)
			want := tt.want
			if name == "nothing is known of the receiver" {
				want = strings.ReplaceAll(want, "confirmed", "unconfirmed")
			}
			if fmt.Sprint(got) != want || table.Stats().Gaps > tt.gaps {
				t.Errorf("read %q, want %s; %+v", got, want, table.Stats())
			}
		})
	}
}

// conversation makes messages of every protocol, as a client and a server send
// them, from random choices.
func conversation(r *rand.Rand) (up, down string) {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	body := strings.Repeat("GET /body HTTP/1.1\r\n", r.IntN(5))
	switch r.IntN(4) {
	case 0:
		return "SSH-2.0-" + pick("a", "OpenSSH_9.9 x") + pick("\r\n", "\n") + kexinit(r), pick("", "hello\r\n") + "SSH-2.0-b\r\n" + kexinit(r)
	case 1:
		return tlsRecords(r, clientHello(r)), tlsRecords(r, serverHello(r)) + "\x17\x03\x03\x00\x01x"
	}
	for range 1 + r.IntN(4) {
		eol := pick("\r\n", "\n")
		head := eol + "Host: " + pick("a", "b.example") + eol + "Cookie: a=b; c=d" + eol
		switch r.IntN(3) {
		case 0:
			up += "GET /x?" + pick("a=%41", "union+select") + " HTTP/1.1" + head + eol
		case 1:
			up += "POST /y HTTP/1.0" + head + fmt.Sprintf("Content-Length: %d", len(body)) + eol + eol + body
		case 2:
			up += "PUT /z HTTP/1.1" + head + "Transfer-Encoding: chunked" + eol + eol + chunks(r, body)
		}
		down += "HTTP/1.1 200 OK\r\nServer: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(r, body)
	}
	return up, down
}

func chunks(r *rand.Rand, body string) (out string) {
	for len(body) > 0 {
		n := 1 + r.IntN(len(body))
		out += fmt.Sprintf("%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return out + "0\r\n\r\n"
}

// cut takes data apart into segments of any size that overlap, repeat and come
// in any order.
func cut(r *rand.Rand, data string, segment func(int, string) packet) []packet {
	var all []packet
	for at := 0; at < len(data); {
		n := 1 + r.IntN(min(len(data)-at, 1+r.IntN(200)))
		from := max(at-r.IntN(1+r.IntN(20)), 0)
		all = append(all, segment(from, data[from:at+n]))
		if r.IntN(5) == 0 {
			all = append(all, segment(at, data[at:at+n]))
		}
		at += n
	}
	switch r.IntN(3) {
	case 0:
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	case 1:
		slices.Reverse(all)
	}
	return all
}

// segmentation checks that however a conversation is cut up, it gives the same
// records as in two segments.
func segmentation(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	e := web()
	e.cISN, e.sISN = r.Uint32(), r.Uint32()
	up, down := conversation(r)
	whole, _ := run(t, everything(), stream.Config{Connections: 64}, append(e.open(), e.up(0, up), e.down(0, down))...)
	packets := slices.Concat(e.open(), cut(r, up, e.up), cut(r, down, e.down))
	parts, table := run(t, everything(), stream.Config{Connections: 64}, packets...)
	if !slices.Equal(whole.lines, parts.lines) {
		t.Errorf("seed %d: whole:\n%s\nin parts:\n%s\n%+v", seed, strings.Join(whole.lines, "\n"), strings.Join(parts.lines, "\n"), table.Stats())
	}
	if len(whole.lines) == 0 {
		t.Errorf("seed %d: no records of\n%q\n%q", seed, up, down)
	}
	if s := table.Stats(); s.Bytes != 0 {
		t.Errorf("seed %d: %d bytes are left", seed, s.Bytes)
	}
}

func TestSegmentation(t *testing.T) {
	for seed := range uint64(800) {
		segmentation(t, seed)
	}
}

func FuzzSegmentation(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Fuzz(segmentation)
}
