package stream_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

// TestEvasions: what a client sends that his server ignores or answers with
// nothing but an ACK changes nothing of what is read of him.
func TestEvasions(t *testing.T) {
	e := web()
	get := e.up(0, request)
	with := func(p packet, change func(*packet)) packet {
		change(&p)
		return p
	}
	far, near, next := e, e, e
	far.cISN, near.cISN, next.cISN = e.cISN+1<<30, e.cISN-50000, e.cISN+70000
	fin := func(p packet) packet {
		p.flags |= record.FlagFIN
		return p
	}
	const post = "POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"
	for name, packets := range map[string][]packet{
		"a SYN out of the window before the ACK":     {e.syn(), e.synACK(), far.syn(), e.ack(), get},
		"one behind the window before the ACK":       {e.syn(), e.synACK(), near.syn(), e.ack(), get},
		"another SYN before the answer to the first": {e.syn(), far.syn(), e.synACK(), e.ack(), get},
		"one before the first, which is answered":    {far.syn(), e.syn(), e.synACK(), e.ack(), get},
		"a reset at the end of a body that was only announced, and a SYN": append(e.open(),
			e.up(0, post), with(e.up(len(post)+1000, ""), func(p *packet) { p.flags = record.FlagRST }), far.syn(),
			e.up(len(post), strings.Repeat("x", 1000)), e.up(len(post)+1000, request)),
		"ports used again, with SYNs around the one that is answered": slices.Concat(e.open(), []packet{far.syn(),
			with(e.down(0, ""), func(p *packet) { p.flags = record.FlagACK }), fin(e.up(0, "")), fin(e.down(0, ""))},
			[]packet{next.syn(), near.syn(), next.synACK(), next.up(0, request)}),
		"data that the server takes with the SYN": {
			with(e.syn(), func(p *packet) { p.data = []byte("GET /1 HTTP/1.1\r\n\r\n") }),
			with(e.synACK(), func(p *packet) { p.ack += 19 }), e.up(19, request)},
		"a piece beyond the window before the bytes that come there": append(append(e.open(), e.up(65535, "/forged")),
			e.up(0, strings.Repeat("\r\n", 32765)), with(e.down(0, ""), func(p *packet) { p.ack += 65530 }),
			e.up(65530, "GET / HTTP/1.1\r\n\r\n")),
		"windows that are not scaled": append([]packet{e.syn(), with(e.synACK(), func(p *packet) { p.scale = noScale }), e.ack()},
			with(e.down(0, ""), func(p *packet) { p.window = 1000 }), e.up(70000, "GET /forged HTTP/1.1\r\n\r\n"),
			with(e.down(0, ""), func(p *packet) { p.ack += 70000 }), get),
		"an end beyond the window, and a SYN": append(append(e.open(), fin(e.up(1<<20, ""))),
			fin(e.down(0, "")), far.syn(), get),
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := urls(t, stream.Config{}, packets...)
			if len(got) == 0 || got[len(got)-1] != "confirmed GET /" {
				t.Errorf("read %q", got)
			}
		})
	}
	// A request with a target longer than any head that is kept, then one that
	// hides behind as many segments as it likes.
	segments := append(append(e.open(), e.down(0, "")), e.up(0, "POST /?union+select"+strings.Repeat("x", 70000-19)))
	at := 70000
	for range 100 {
		segments = append(segments, e.up(at, "\x16\x03\x01\x00\x05\x01"))
		at += 6
	}
	long, _ := urls(t, stream.Config{}, append(segments, e.up(at, request))...)
	if len(long) != 2 || !strings.HasPrefix(long[0], "confirmed POST /?union+select") || long[1] != "confirmed GET /" {
		t.Errorf("%d records: %.100q", len(long), long)
	}
	// And after a crash of the client, whose server still waits for the ACK.
	got, _ := urls(t, stream.Config{}, slices.Concat([]packet{e.syn(), e.synACK()}, far.open(), []packet{far.up(0, request)})...)
	if fmt.Sprint(got) != "[confirmed GET /]" {
		t.Errorf("a client that begins again: %q", got)
	}
}
