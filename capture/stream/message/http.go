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

// maxHeaders bounds the header lines that RequestHeader and ResponseHeader have
// of one message; servers take about 100, or as many as their buffer holds.
const maxHeaders = 256

// header is one header line.
type header struct{ name, value []byte }

// HTTP fills r from the head of a request or an answer: everything up to and
// with the empty line, or as much of it as there is. h is the message's header.
func (p *Parser) HTTP(head []byte, h *record.Header, r *record.HTTP) Framing {
	*r = record.HTTP{}
	p.text = p.text[:0]
	var f Framing
	line, rest, whole := cut(head, '\n')
	line = trimEnd(line)
	if len(line) > 5 && string(line[:5]) == "HTTP/" {
		f.OK = whole && statusLine(line, r)
	} else {
		f.OK = requestLine(line, whole, r, &f)
	}
	if !f.OK {
		return f
	}
	r.Timestamp = h.Time
	addresses(h, p.want.http.addrs, &r.SrcIP, &r.DstIP, &r.SrcPort, &r.DstPort)
	p.lines(rest, r, &f)
	p.derived(h, r)
	return f
}

// statusLine reads HTTP/1.1 200 OK.
func statusLine(line []byte, r *record.HTTP) bool {
	version, rest, _ := cut(line, ' ')
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
// as it is: some servers do so. Of a line that is not whole the target is what
// there is of it.
func requestLine(line []byte, whole bool, r *record.HTTP, f *Framing) bool {
	method, rest, ok := cut(line, ' ')
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
	} else if whole && !simple(line) {
		return false
	}
	r.Method, r.URL, r.URLDecoded = str(method), str(target), str(target)
	if whole {
		r.Proto = "HTTP/0.9"
	}
	if version != nil {
		r.Proto = str(version)
	}
	f.Method = methodOf(method)
	return true
}

// lines reads the header lines. A line that begins with a blank continues the
// one before it (RFC 9112, 5.2): some servers take it so.
func (p *Parser) lines(rest []byte, r *record.HTTP, f *Framing) {
	p.headers, p.forwarded = p.headers[:0], p.forwarded[:0]
	p.cookies.reset()
	for len(rest) > 0 {
		var line []byte
		line, rest = cutLine(rest)
		name, value, ok := cut(line, ':')
		for len(name) > 0 && isBlank(name[len(name)-1]) {
			name = name[:len(name)-1]
		}
		if !ok || len(name) == 0 || isBlank(name[0]) {
			continue
		}
		value = trim(value)
		if len(rest) > 0 && isBlank(rest[0]) {
			value, rest = p.unfold(value, rest)
		}
		if p.want.http.headers && len(p.headers) < maxHeaders {
			p.headers = append(p.headers, header{name, value})
		}
		if r.IsResponse {
			p.answerHeader(name, value, r, f)
		} else {
			p.requestHeader(name, value, r, f)
		}
	}
	if len(p.forwarded) > 0 {
		r.XForwardedFor = p.join(p.forwarded)
	}
}

// cutLine returns the first line of b, without its line break, and the rest.
func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = cut(b, '\n')
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, rest
}

// cut is bytes.Cut for one byte, which is several times as fast.
func cut(b []byte, at byte) (before, after []byte, found bool) {
	if i := bytes.IndexByte(b, at); i >= 0 {
		return b[:i], b[i+1:], true
	}
	return b, nil, false
}

// trimEnd takes blanks and what else may end a line off the end.
func trimEnd(b []byte) []byte {
	for len(b) > 0 && (isBlank(b[len(b)-1]) || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b
}

// unfold appends the lines of rest that continue value to it, each behind one
// blank, and returns what follows them.
func (p *Parser) unfold(value, rest []byte) (whole, behind []byte) {
	start := len(p.text)
	p.text = append(p.text, value...)
	for len(rest) > 0 && isBlank(rest[0]) {
		var line []byte
		line, rest = cutLine(rest)
		if line = trim(line); len(line) > 0 && len(p.text) > start {
			p.text = append(p.text, ' ')
		}
		p.text = append(p.text, line...)
	}
	return p.text[start:len(p.text):len(p.text)], rest
}

// join is the values of several header lines of one name as one (RFC 9110,
// 5.3).
func (p *Parser) join(values [][]byte) string {
	if len(values) == 1 {
		return str(values[0])
	}
	return p.put(func(b []byte) []byte {
		for i, v := range values {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(b, v...)
		}
		return b
	})
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// trim takes blanks off both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && isBlank(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isBlank(b[len(b)-1]) {
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
			// The last address is the one that the last proxy added.
			p.forwarded = append(p.forwarded, value)
		case is(name, "x-real-ip"):
			first(&r.XRealIP, value)
		}
	}
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
