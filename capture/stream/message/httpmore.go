package message

import (
	"bytes"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/record"
)

const (
	// maxCookies and maxParams bound what is taken of one message.
	maxCookies = 128
	maxParams  = 256
)

// derived fills what costs more than a load.
func (p *Parser) derived(h *record.Header, r *record.HTTP) {
	w := &p.want.http
	if w.decoded && strings.IndexByte(r.URL, '%') >= 0 {
		r.URLDecoded = p.put(func(b []byte) []byte { return unescape(b, r.URL) })
	}
	if w.flow {
		r.Flow = p.flow(h)
	}
	if w.community {
		r.CommunityID = h.CommunityID()
	}
	if w.headers {
		if r.IsResponse {
			r.ResponseHeader = p.headerMap()
		} else {
			r.RequestHeader = p.headerMap()
		}
	}
	if _, query, has := strings.Cut(r.URL, "?"); has && w.params {
		r.Parameters = p.parameters(query)
	}
}

// unescape appends s to b, each %XX as the byte it stands for; anything else,
// a broken %X included, stays as it is.
func unescape(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, ok1 := hexDigit(s[i+1])
			lo, ok2 := hexDigit(s[i+2])
			if ok1 && ok2 {
				b = append(b, hi<<4|lo)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return b
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// headerMap holds the header lines by name as Go spells it (User-Agent); the
// values of several lines of a name are joined with ", ".
func (p *Parser) headerMap() map[string]string {
	if p.fields == nil {
		p.fields = map[string]string{}
	}
	clear(p.fields)
	for i, h := range p.headers {
		name := textproto.CanonicalMIMEHeaderKey(string(h.name))
		if _, ok := p.fields[name]; !ok {
			p.fields[name] = strings.Clone(p.join(p.sameName(i)))
		}
	}
	return p.fields
}

// sameName lists the values of the lines from number i on that have the name of
// that line.
func (p *Parser) sameName(i int) [][]byte {
	p.same = append(p.same[:0], p.headers[i].value)
	for _, h := range p.headers[i+1:] {
		if bytes.EqualFold(h.name, p.headers[i].name) {
			p.same = append(p.same, h.value)
		}
	}
	return p.same
}

// parameters takes a query string apart, decoded as forms are (+ is a blank).
// Of several values of a name the first counts.
func (p *Parser) parameters(query string) map[string]string {
	if p.params == nil {
		p.params = map[string]string{}
	}
	clear(p.params)
	query, _, _ = strings.Cut(query, "#")
	for query != "" && len(p.params) < maxParams {
		var part string
		part, query, _ = strings.Cut(query, "&")
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, value = formText(name), formText(value)
		if _, ok := p.params[name]; !ok {
			p.params[name] = value
		}
	}
	return p.params
}

func formText(s string) string {
	if t, err := url.QueryUnescape(s); err == nil {
		return strings.Clone(t)
	}
	return strings.Clone(s)
}

// requestCookies reads a Cookie line: name=value pairs (RFC 6265, 4.2.1).
func (p *Parser) requestCookies(value []byte) {
	for len(value) > 0 && p.cookies.n < maxCookies {
		var pair []byte
		pair, value, _ = bytes.Cut(value, []byte(";"))
		name, v, ok := bytes.Cut(trim(pair), []byte("="))
		if ok && len(name) > 0 {
			c := p.cookies.add()
			c.Name, c.Value = str(name), str(unquote(v))
		}
	}
}

func unquote(b []byte) []byte {
	if len(b) >= 2 && b[0] == '"' && b[len(b)-1] == '"' {
		return b[1 : len(b)-1]
	}
	return b
}

// setCookie reads a Set-Cookie line (RFC 6265, 4.1.1). SameSite is numbered as
// Go's net/http does: 2 lax, 3 strict, 4 none. A Max-Age of 0 or less is -1.
func (p *Parser) setCookie(value []byte) {
	if p.cookies.n >= maxCookies {
		return
	}
	pair, rest, _ := bytes.Cut(value, []byte(";"))
	name, v, ok := bytes.Cut(trim(pair), []byte("="))
	if !ok || len(name) == 0 {
		return
	}
	c := p.cookies.add()
	c.Name, c.Value = str(name), str(unquote(v))
	for len(rest) > 0 {
		var attribute []byte
		attribute, rest, _ = bytes.Cut(rest, []byte(";"))
		key, v, _ := bytes.Cut(trim(attribute), []byte("="))
		switch v = trim(v); {
		case is(key, "path"):
			c.Path = str(v)
		case is(key, "domain"):
			c.Domain = str(v)
		case is(key, "secure"):
			c.Secure = true
		case is(key, "httponly"):
			c.HttpOnly = true
		case is(key, "max-age"):
			if n, err := strconv.ParseInt(str(v), 10, 32); err == nil {
				if c.MaxAge = int32(n); n <= 0 {
					c.MaxAge = -1
				}
			}
		case is(key, "expires"):
			c.Expires = expires(str(v))
		case is(key, "samesite"):
			c.SameSite = sameSite(v)
		}
	}
}

func sameSite(v []byte) int32 {
	for i, mode := range [...]string{"lax", "strict", "none"} {
		if is(v, mode) {
			return int32(2 + i)
		}
	}
	return 1
}

// expires reads a cookie's date as Unix seconds, 0 where it is none or before
// 1970.
func expires(s string) uint64 {
	for _, layout := range [...]string{time.RFC1123, "Mon, 02-Jan-2006 15:04:05 MST", time.RFC850} {
		if at, err := time.Parse(layout, s); err == nil && at.Unix() > 0 {
			return uint64(at.Unix())
		}
	}
	return 0
}
