package stream_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

// nameList is a name-list of SSH, word a length-prefixed field of TLS.
func nameList(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }

func word(s string) string { return string(binary.BigEndian.AppendUint16(nil, uint16(len(s)))) + s }

func short(s string) string { return string(rune(len(s))) + s }

// kexinit is an offer with random lists.
func kexinit(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString("\x04\x14" + strings.Repeat("c", 16))
	for range 10 {
		b.WriteString(nameList([]string{"", "aes256-ctr", "curve25519-sha256,ecdh-sha2-nistp256"}[r.IntN(3)]))
	}
	b.WriteString("\x00\x00\x00\x00\x00pppp")
	return nameList(b.String())
}

func clientHello(r *rand.Rand) string {
	exts := "\x00\x00" + word(word("\x00"+word("a.example"))) + "\x0a\x0a\x00\x00" + "\x00\x10" + word(word(short("h2")+short("http/1.1"))) +
		"\x00\x2b" + word(short("\x2a\x2a\x03\x04\x03\x03")) + "\x00\x0d" + word(word("\x04\x03\x08\x04")) + "\x00\x0a" + word(word("\x00\x1d")) +
		"\x00\x15" + word(strings.Repeat("\x00", r.IntN(600)))
	return handshake(1, "\x03\x03"+strings.Repeat("r", 32)+short("s")+word("\x1a\x1a\x13\x01\x13\x02\xc0\x2f")+short("\x00")+word(exts))
}

func serverHello(_ *rand.Rand) string {
	return handshake(2, "\x03\x03"+strings.Repeat("r", 32)+short("s")+"\x13\x01\x00"+word("\x00\x2b"+word("\x03\x04")))
}

func handshake(kind byte, body string) string {
	return string([]byte{kind, 0, byte(len(body) >> 8), byte(len(body))}) + body
}

// tlsRecords splits a handshake message over records.
func tlsRecords(r *rand.Rand, msg string) (out string) {
	for first := true; len(msg) > 0; first = false {
		n := 1 + r.IntN(len(msg))
		if first {
			n = max(n, 4) // or the first bytes do not show a hello
		}
		n = min(n, len(msg))
		out += "\x16\x03\x01" + word(msg[:n])
		msg = msg[n:]
	}
	return out
}

// FuzzSegments takes segments of any kind through a small table: nothing
// panics, and nothing grows beyond its bounds.
func FuzzSegments(f *testing.F) {
	e := web()
	f.Add(encode(append(e.open(), e.up(0, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), e.up(40, "x"), e.down(0, "HTTP/1.1 200 OK\r\n\r\n"))))
	f.Add(encode(append(e.open(), e.up(0, "SSH-2.0-x\r\n"), e.up(13, "y"), e.up(11, "zz"))))
	f.Add(encode(append(e.open(), e.up(0, tlsRecords(rand.New(rand.NewPCG(1, 1)), clientHello(rand.New(rand.NewPCG(1, 1))))))))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg := stream.Config{Connections: 8, Memory: 16 << 10, PerConnection: 4 << 10,
			DNS: func(_ []byte, set *record.Set) error { set.Have = record.Of(record.TypeDNS); return nil }}
		sink := &fullSink{}
		table := stream.New(everything(), sink, cfg)
		sink.table = table
		for now := int64(0); len(data) >= 10; now += 3e8 {
			p := packet{e: web(), time: now}
			p.e.client = netip.AddrPortFrom(p.e.client.Addr(), 1+uint16(data[0]>>3))
			if data[0]&4 != 0 {
				p.e.server = netip.AddrPortFrom(p.e.server.Addr(), 53)
			}
			p.toServer, p.flags = data[0]&1 != 0, data[1]
			p.seq, p.ack = 1000+uint32(int32(int16(binary.BigEndian.Uint16(data[2:]))))<<(data[4]&15), 1000+uint32(int16(binary.BigEndian.Uint16(data[5:])))
			n := min(int(binary.BigEndian.Uint16(data[7:]))%2048, len(data)-10)
			p.size = n + int(data[9])
			p.data = data[10 : 10+n]
			data = data[10+n:]
			table.Segment(p.set(), n&63 == 63)
			s := table.Stats()
			if s.Open > 8 || s.Bytes > 16<<10 {
				t.Fatalf("beyond the bounds: %+v", s)
			}
		}
	})
}

// encode spells packets as FuzzSegments reads them.
func encode(packets []packet) []byte {
	var b []byte
	for _, p := range packets {
		head := byte(8)
		if p.toServer {
			head |= 1
		}
		b = append(b, head, p.flags)
		b = binary.BigEndian.AppendUint16(b, uint16(p.seq-1000))
		b = append(b, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(p.ack-1000))
		b = binary.BigEndian.AppendUint16(b, uint16(len(p.data)))
		b = append(append(b, 0), p.data...)
	}
	return b
}

// fullSink asks for the full record each time, as the guard does for alerts.
type fullSink struct {
	table *stream.Table
	n     int
}

func (s *fullSink) Record(set *record.Set) {
	s.n++
	have := set.Have
	set.Snapshot(have.Next())
	if full := s.table.Full(); full != nil {
		have := full.Have
		full.Snapshot(have.Next())
	}
}
