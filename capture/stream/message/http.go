package message

import (
	"bytes"
	"strconv"

	"github.com/netcap-guard/netcap-guard/record"
)

// Method says what a request's method means for the body of its answer.
type Method uint8

// The methods that matter.
const (
	OtherMethod Method = iota
	HeadMethod
	ConnectMethod
)

// Framing says what follows a head.
type Framing struct {
	// OK: the first line could be read.
	OK     bool
	Method Method // of a request
	// Chunked body, else one of Length bytes where HasLength.
	Chunked, HasLength bool
	Length             uint64
}

// maxHeaders bounds the header lines of one message; servers take about 100.
const maxHeaders = 256

// header is one header line.
type header struct{ name, value []byte }

// HTTP fills r from the head of a request or an answer: everything up to and
// with the empty line, or as much of it as there is. h is the message's header.
// Header lines beyond 256 are passed over.
func (p *Parser) HTTP(head []byte, h *record.Header, r *record.HTTP) Framing {
	*r = record.HTTP{}
	p.text = p.text[:0]
	end := bytes.IndexByte(head, '\n')
	if end < 0 {
		return Framing{}
	}
	var f Framing
	line := bytes.TrimRight(head[:end], " \t\r")
	if len(line) > 5 && string(line[:5]) == "HTTP/" {
		f.OK = statusLine(line, r)
	} else {
		f.OK = requestLine(line, r, &f)
	}
	if !f.OK {
		return f
	}
	r.Timestamp = h.Time
	addresses(h, p.want.http.addrs, &r.SrcIP, &r.DstIP, &r.SrcPort, &r.DstPort)
	p.lines(head[end+1:], r, &f)
	p.derived(h, r)
	return f
}

// statusLine reads HTTP/1.1 200 OK.
func statusLine(line []byte, r *record.HTTP) bool {
	version, rest, _ := bytes.Cut(line, []byte(" "))
	if !isVersion(version) || len(rest) < 3 || len(rest) > 3 && rest[3] != ' ' {
		return false
	}
	code := 0
	for _, c := range rest[:3] {
		if c < '0' || c > '9' {
			return false
		}
		code = code*10 + int(c-'0')
	}
	r.IsResponse, r.Proto, r.StatusCode = true, str(version), int32(code)
	return true
}

// requestLine reads GET /target HTTP/1.1. A target with blanks in it is taken
// as it is: some servers do so.
func requestLine(line []byte, r *record.HTTP, f *Framing) bool {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(method) == 0 || len(method) > maxMethod {
		return false
	}
	for _, c := range method {
		if !isMethod(c) {
			return false
		}
	}
	target, version := bytes.TrimLeft(rest, " "), []byte(nil)
	if at := bytes.LastIndexByte(target, ' '); at > 0 && isVersion(target[at+1:]) {
		target, version = bytes.TrimRight(target[:at], " "), target[at+1:]
	} else if !simple(line) {
		return false
	}
	r.Method, r.URL, r.URLDecoded = str(method), str(target), str(target)
	r.Proto = "HTTP/0.9"
	if version != nil {
		r.Proto = str(version)
	}
	f.Method = methods[r.Method]
	return true
}

// lines reads the header lines.
func (p *Parser) lines(rest []byte, r *record.HTTP, f *Framing) {
	p.headers = p.headers[:0]
	p.cookies.reset()
	for len(rest) > 0 && len(p.headers) < maxHeaders {
		end := bytes.IndexByte(rest, '\n')
		line := rest
		if end >= 0 {
			line, rest = rest[:end], rest[end+1:]
		} else {
			rest = nil
		}
		if len(line) > 0 && line[len(line)-1] == '\r' {
			line = line[:len(line)-1]
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			continue
		}
		name := bytes.TrimRight(line[:colon], " \t")
		if len(name) == 0 {
			continue
		}
		value := trim(line[colon+1:])
		p.headers = append(p.headers, header{name, value})
		if r.IsResponse {
			p.answerHeader(name, value, r, f)
		} else {
			p.requestHeader(name, value, r, f)
		}
	}
}

// trim takes blanks off both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// is reports whether name is the lower-case word.
func is(name []byte, word string) bool {
	if len(name) != len(word) {
		return false
	}
	for i := range len(word) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

// first fills a field with the first of several lines of a name.
func first(field *string, value []byte) {
	if *field == "" {
		*field = str(value)
	}
}

func (p *Parser) requestHeader(name, value []byte, r *record.HTTP, f *Framing) {
	switch name[0] | 0x20 {
	case 'h':
		if is(name, "host") {
			first(&r.Host, value)
		}
	case 'u':
		if is(name, "user-agent") {
			first(&r.UserAgent, value)
		}
	case 'r':
		if is(name, "referer") {
			first(&r.Referer, value)
		}
	case 'c':
		switch {
		case is(name, "content-length"):
			r.ReqContentLength = f.length(value)
		case is(name, "content-type"):
			first(&r.ContentType, value)
		case is(name, "content-encoding"):
			first(&r.ReqContentEncoding, value)
		case is(name, "cookie") && p.want.http.cookies:
			p.requestCookies(value)
			r.ReqCookies = p.cookies.used()
		}
	case 't':
		if is(name, "transfer-encoding") {
			f.transfer(value)
		}
	case 'a':
		if is(name, "authorization") {
			scheme, _, _ := bytes.Cut(value, []byte(" "))
			first(&r.AuthorizationType, scheme)
		}
	case 'x':
		switch {
		case is(name, "x-forwarded-for"):
			p.forwarded(value, r)
		case is(name, "x-real-ip"):
			first(&r.XRealIP, value)
		}
	}
}

// forwarded joins the lines of X-Forwarded-For: the last address is the one
// that the last proxy added.
func (p *Parser) forwarded(value []byte, r *record.HTTP) {
	if r.XForwardedFor == "" {
		r.XForwardedFor = str(value)
		return
	}
	before := r.XForwardedFor
	r.XForwardedFor = p.put(func(b []byte) []byte {
		return append(append(append(b, before...), ", "...), value...)
	})
}

func (p *Parser) answerHeader(name, value []byte, r *record.HTTP, f *Framing) {
	switch name[0] | 0x20 {
	case 'c':
		switch {
		case is(name, "content-length"):
			r.ResContentLength = f.length(value)
		case is(name, "content-type"):
			first(&r.ResContentType, value)
		case is(name, "content-encoding"):
			first(&r.ResContentEncoding, value)
		case is(name, "content-security-policy"):
			first(&r.ContentSecurityPolicy, value)
		}
	case 't':
		if is(name, "transfer-encoding") {
			f.transfer(value)
		}
	case 's':
		switch {
		case is(name, "server"):
			first(&r.Server, value)
			first(&r.ServerName, value)
		case is(name, "set-cookie") && p.want.http.cookies:
			p.setCookie(value)
			r.ResCookies = p.cookies.used()
		case is(name, "strict-transport-security"):
			first(&r.StrictTransportSecurity, value)
		case is(name, "server-timing"):
			r.HasServerTiming = true
		}
	case 'x':
		switch {
		case is(name, "x-powered-by"):
			first(&r.XPoweredBy, value)
		case is(name, "x-content-type-options"):
			first(&r.XContentTypeOptions, value)
		case is(name, "x-frame-options"):
			first(&r.XFrameOptions, value)
		case is(name, "x-xss-protection"):
			first(&r.XXSSProtection, value)
		}
	case 'r':
		if is(name, "referrer-policy") {
			first(&r.ReferrerPolicy, value)
		}
	case 'a':
		if is(name, "access-control-allow-origin") {
			first(&r.AccessControlAllowOrigin, value)
		}
	}
}

// length reads a Content-Length, and returns it as far as the record's field
// holds it. Of several the first counts.
func (f *Framing) length(value []byte) int32 {
	n, err := strconv.ParseUint(str(value), 10, 62)
	if err == nil && !f.HasLength {
		f.HasLength, f.Length = true, n
	}
	return int32(min(f.Length, 1<<31-1))
}

// transfer reads a Transfer-Encoding: chunked is its last word.
func (f *Framing) transfer(value []byte) {
	f.Chunked = is(trim(value[bytes.LastIndexByte(value, ',')+1:]), "chunked")
}
