package stream_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

// notes is a Sink that writes down what note says of each record.
type notes struct {
	note  func(*record.Set) string
	lines []string
}

func (n *notes) Record(set *record.Set) { n.lines = append(n.lines, n.note(set)) }

func TestDNSOverTCP(t *testing.T) {
	query := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01"
	framed := word(query)
	e := web()
	e.server = netip.MustParseAddrPort("198.51.100.2:53")
	for name, packets := range map[string][]packet{
		"two in a segment": {e.up(0, framed+framed)},
		"in pieces":        {e.up(0, framed[:1]), e.up(1, framed[1:9]), e.up(9, framed[9:]+framed[:20]), e.up(len(framed)+20, framed[20:])},
	} {
		dec := decode.New(everything())
		n := &notes{note: func(s *record.Set) string {
			return fmt.Sprintf("%v %s %d %v", s.Have, s.DNS.Questions[0].Name, s.DNS.DstPort, s.Confirmed)
		}}
		table := stream.New(everything(), n, stream.Config{DNS: dec.DNS})
		for _, p := range append(e.open(), packets...) {
			table.Segment(p.set(), false)
		}
		want := fmt.Sprintf("%v a.example 53 true", record.Of(record.TypeDNS))
		if len(n.lines) != 2 || n.lines[0] != want || n.lines[1] != want {
			t.Errorf("%s: %q, want twice %s", name, n.lines, want)
		}
	}
}

// TestSSHRecords: each side's record comes with its line, and once more with
// its offer, if a rule reads that.
func TestSSHRecords(t *testing.T) {
	e := web()
	e.server = netip.MustParseAddrPort("198.51.100.2:2222")
	r := rand.New(rand.NewPCG(1, 2))
	up, down := "SSH-2.0-me\r\n", "SSH-2.0-server\r\n"
	packets := append(e.open(), e.down(0, down), e.up(0, up[:5]), e.up(5, up[5:]), e.up(len(up), kexinit(r)), e.down(len(down), kexinit(r)))
	for fields, want := range map[string]int{"Ident": 2, "HASSH": 4} {
		n := &notes{note: func(s *record.Set) string {
			return fmt.Sprintf("%v client=%v late=%v hash=%v", s.SSH.Ident, s.SSH.IsClient, s.Late, s.SSH.HASSH != "")
		}}
		var w record.Want
		w.Add(record.TypeSSH, fields)
		table := stream.New(w, n, stream.Config{})
		for _, p := range packets {
			table.Segment(p.set(), false)
		}
		all := []string{"SSH-2.0-server client=false late=false hash=false", "SSH-2.0-me client=true late=false hash=false",
			"SSH-2.0-me client=true late=true hash=true", "SSH-2.0-server client=false late=true hash=true"}
		if fmt.Sprint(n.lines) != fmt.Sprint(all[:want]) {
			t.Errorf("asked for %s: %q", fields, n.lines)
		}
	}
}

// TestSSHPrelude: lines before a server's identification and packets that say
// nothing before the offer hide neither.
func TestSSHPrelude(t *testing.T) {
	e := web()
	e.server = netip.MustParseAddrPort("198.51.100.2:2222")
	const ident = "SSH-2.0-server\r\n"
	offer := kexinit(rand.New(rand.NewPCG(1, 2)))
	nothing := "\x00\x00\x00\x0c\x04\x02\x00\x00\x00\x02hi1234" + "\x00\x00\x00\x0b\x04\x04\x01\x00\x00\x00\x001234"
	both := "[SSH-2.0-server SSH-2.0-server hash]"
	for name, tt := range map[string]struct {
		said []string
		want string
	}{
		"nothing more":               {[]string{ident + offer}, both},
		"lines before":               {[]string{"Hello\r\nthere\r\n" + ident + offer}, both},
		"lines of their own":         {[]string{"Hello\r\n", "there\r\n", ident, offer}, both},
		"lines cut anywhere":         {[]string{"Hel", "lo\r\nthere\r\nSS", "H-2.0-server\r\n" + offer[:9], offer[9:]}, both},
		"packets before":             {[]string{ident + nothing + offer}, both},
		"packets in pieces":          {[]string{ident, nothing[:3], nothing[3:20], nothing[20:] + offer[:4], offer[4:]}, both},
		"packets without end":        {[]string{ident, strings.Repeat(nothing, 3000), offer}, "[SSH-2.0-server]"},
		"a packet of another use":    {[]string{ident, "\x00\x00\x00\x0c\x04\x05\x00\x00\x00\x02hi1234" + offer}, "[SSH-2.0-server]"},
		"lines that are no greeting": {[]string{"220 mail\r\n", "250 SSH-2.0-server\r\n"}, "[]"},
	} {
		var lines []string
		var w record.Want
		w.Add(record.TypeSSH, "HASSH")
		n := &notes{note: func(s *record.Set) string {
			return strings.TrimSpace(s.SSH.Ident + " " + map[bool]string{true: "hash"}[s.SSH.HASSH != ""])
		}}
		table := stream.New(w, n, stream.Config{})
		at := 0
		for _, p := range append(e.open(), e.up(0, "SSH-2.0-me\r\n")) {
			table.Segment(p.set(), false)
		}
		for _, s := range tt.said {
			table.Segment(e.down(at, s).set(), false)
			at += len(s)
		}
		if lines = n.lines[1:]; fmt.Sprint(lines) != tt.want {
			t.Errorf("%s: %q, want %s", name, lines, tt.want)
		}
	}
}

// TestTLSAgain: a server that asks for another hello gets two records of the
// client, and gives two itself.
func TestTLSAgain(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	retry := handshake(2, "\x03\x03\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"+
		short("s")+"\x13\x01\x00"+word("\x00\x2b"+word("\x03\x04")))
	const changeCipher = "\x14\x03\x03\x00\x01\x01"
	up := tlsRecords(r, clientHello(r)) + changeCipher + tlsRecords(r, clientHello(r)) + "\x17\x03\x03\x00\x01x"
	down := tlsRecords(r, retry) + changeCipher + tlsRecords(r, serverHello(r)) + "\x17\x03\x03\x00\x01x"
	e := web()
	c, table := run(t, everything(), stream.Config{}, append(e.open(), e.up(0, up), e.down(0, down))...)
	if c.kinds["TLSClientHello"] != 2 || c.kinds["TLSServerHello"] != 2 || table.Stats().Bytes != 0 {
		t.Errorf("%v, %+v", c.kinds, table.Stats())
	}
}
