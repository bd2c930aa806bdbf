// Package message turns the bytes of one whole application message into its
// record: an HTTP/1 head, an SSH identification line with its KEXINIT, a TLS
// hello. It knows no connection and keeps nothing from one message to the next.
//
// Every function takes hostile bytes: it neither panics nor allocates more
// than the message is long. Strings and slices in the records alias the message
// or the Parser, and are good until either is used again.
package message

import (
	"strconv"
	"unsafe"

	"github.com/netcap-guard/netcap-guard/record"
)

// Parser fills records. It belongs to one goroutine. The zero Parser fills
// the cheap fields of everything; SetWant says which others are asked for.
type Parser struct {
	want plan

	text    []byte // strings being made
	headers []header
	// forwarded are the values of X-Forwarded-For, same those of one name.
	forwarded, same [][]byte
	cookies         list[record.HTTPCookie]
	fields          map[string]string // RequestHeader or ResponseHeader
	params          map[string]string
	numbers         []int32
	names           []string
	blobs           [][]byte
	prints          []uint16
}

// plan is what a rule asks for beyond the fields that cost a load.
type plan struct {
	http struct{ decoded, cookies, headers, params, flow, community, addrs bool }
	ssh  struct{ flow, addrs, community bool }
	chlo struct{ ja3, ja4, community, addrs bool }
	shlo struct{ ja3s, community, addrs bool }
}

// SetWant changes what is asked for.
func (p *Parser) SetWant(want record.Want) {
	http := func(f ...string) bool { return anyField(&want, record.TypeHTTP, f) }
	p.want.http.decoded = http("URLDecoded")
	p.want.http.cookies = http("ReqCookies", "ResCookies")
	p.want.http.headers = http("RequestHeader", "ResponseHeader")
	p.want.http.params = http("Parameters")
	p.want.http.flow = http("Flow")
	p.want.http.community = http("CommunityID")
	p.want.http.addrs = http("SrcIP", "DstIP")
	p.want.ssh.flow = want.Field(record.TypeSSH, "Flow")
	p.want.ssh.addrs = anyField(&want, record.TypeSSH, []string{"SrcIP", "DstIP"})
	p.want.ssh.community = want.Field(record.TypeSSH, "CommunityID")
	chlo := func(f ...string) bool { return anyField(&want, record.TypeTLSClientHello, f) }
	p.want.chlo.ja3, p.want.chlo.ja4 = chlo("Ja3"), chlo("Ja4")
	p.want.chlo.community, p.want.chlo.addrs = chlo("CommunityID"), chlo("SrcIP", "DstIP")
	shlo := func(f ...string) bool { return anyField(&want, record.TypeTLSServerHello, f) }
	p.want.shlo.ja3s = shlo("Ja3s")
	p.want.shlo.community, p.want.shlo.addrs = shlo("CommunityID"), shlo("SrcIP", "DstIP")
}

func anyField(w *record.Want, t record.Type, fields []string) bool {
	for _, f := range fields {
		if w.Field(t, f) {
			return true
		}
	}
	return false
}

// everything asks for all fields.
func everything() plan {
	var p plan
	p.http.decoded, p.http.cookies, p.http.headers, p.http.params = true, true, true, true
	p.http.flow, p.http.community, p.http.addrs = true, true, true
	p.ssh.flow, p.ssh.addrs, p.ssh.community = true, true, true
	p.chlo.ja3, p.chlo.ja4, p.chlo.community, p.chlo.addrs = true, true, true, true
	p.shlo.ja3s, p.shlo.community, p.shlo.addrs = true, true, true
	return p
}

// Full fills the record of one type in full, with every field, from the
// message that the record of part was made of.
func (p *Parser) Full(t record.Type, msg []byte, part, full *record.Set) {
	q := Parser{want: everything()}
	switch t {
	case record.TypeHTTP:
		q.HTTP(msg, &full.Header, &full.HTTP)
	case record.TypeSSH:
		line, kexinit := splitSSH(msg)
		if !part.Late {
			kexinit = nil
		}
		q.SSH(line, kexinit, part.SSH.IsClient, &full.Header, &full.SSH)
	case record.TypeTLSClientHello:
		q.ClientHello(msg, &full.Header, &full.ClientHello)
	case record.TypeTLSServerHello:
		q.ServerHello(msg, &full.Header, &full.ServerHello)
	default:
		full.Have = 0
	}
}

// str is b as a string, without a copy: it lives as long as b does.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// put appends to the parser's text and returns what add made of it. The text
// may move when it grows; what was put before stays where it was.
func (p *Parser) put(add func([]byte) []byte) string {
	start := len(p.text)
	p.text = add(p.text)
	return str(p.text[start:len(p.text):len(p.text)])
}

// addresses fills a record's address and port fields.
func addresses(h *record.Header, texts bool, src, dst *string, sport, dport *int32) {
	*sport, *dport = int32(h.SrcPort), int32(h.DstPort)
	if texts {
		*src, *dst = h.Src.String(), h.Dst.String()
	}
}

// flow is "source:port->destination:port".
func (p *Parser) flow(h *record.Header) string {
	return p.put(func(b []byte) []byte {
		b = h.Src.AppendTo(b)
		b = strconv.AppendUint(append(b, ':'), uint64(h.SrcPort), 10)
		b = h.Dst.AppendTo(append(b, "->"...))
		return strconv.AppendUint(append(b, ':'), uint64(h.DstPort), 10)
	})
}

// list is a reused slice of reused values: after reset, add gives them out
// again, zeroed.
type list[T any] struct {
	all []*T
	n   int
}

func (l *list[T]) reset() { l.n = 0 }

func (l *list[T]) add() *T {
	if l.n == len(l.all) {
		l.all = append(l.all, new(T))
	}
	v := l.all[l.n]
	l.n++
	var zero T
	*v = zero
	return v
}

func (l *list[T]) used() []*T {
	if l.n == 0 {
		return nil
	}
	return l.all[:l.n:l.n]
}

func u16(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }
