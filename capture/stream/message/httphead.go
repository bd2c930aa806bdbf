package message

import (
	"bytes"
)

// Answer is how sure a look at first bytes can be.
type Answer uint8

// The answers.
const (
	No Answer = iota
	Perhaps
	Yes
)

// maxMethod bounds a method's name: servers that take names of their own take
// them as long as a line may be. maxFirstLine bounds a request line while it
// is not sure that it is one; of a longer one with a method that is known the
// beginning is taken.
const (
	maxMethod    = 8 << 10
	maxFirstLine = 64 << 10
)

// methods are the registered ones that are met, and those of WebDAV: what
// begins with one of them and a blank is taken for a request before its line
// is complete. It is read-only.
var methods = map[string]bool{
	"GET": true, "POST": true, "HEAD": true, "PUT": true, "DELETE": true,
	"CONNECT": true, "OPTIONS": true, "TRACE": true, "PATCH": true,
	"PROPFIND": true, "PROPPATCH": true, "MKCOL": true, "COPY": true, "MOVE": true,
	"LOCK": true, "UNLOCK": true, "REPORT": true, "SEARCH": true, "TRACK": true,
	"M-SEARCH": true, "NOTIFY": true, "SUBSCRIBE": true, "UNSUBSCRIBE": true,
}

func methodOf(name []byte) Method {
	switch string(name) {
	case "HEAD":
		return HeadMethod
	case "CONNECT":
		return ConnectMethod
	}
	return OtherMethod
}

// RequestLine tells whether data begins with the first line of an HTTP/1
// request: a method, a target and HTTP/1.x, or GET and a target alone
// (HTTP/0.9). Perhaps means that more bytes are needed to tell.
func RequestLine(data []byte) Answer {
	n := 0
	for n < len(data) && n <= maxMethod && isMethod(data[n]) {
		n++
	}
	switch {
	case n == 0 || n > maxMethod:
		return No
	case n == len(data):
		return Perhaps
	case data[n] != ' ':
		return No
	}
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		if methods[string(data[:n])] && (len(data) == n+1 || data[n+1] > ' ') {
			return Yes
		}
		if len(data) > maxFirstLine {
			return No
		}
		return Perhaps
	}
	line := trimEnd(data[:end])
	if simple(line) {
		return Yes
	}
	if at := bytes.LastIndexByte(line, ' '); at > n && isVersion(line[at+1:]) {
		return Yes
	}
	return No
}

// isMethod reports whether c may stand in a method: Apache takes any token (RFC
// 9110, 5.6.2) and runs scripts for it, get and x included.
func isMethod(c byte) bool {
	const (
		from0  = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' | (1<<10-1)<<'0'
		from64 = 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 1<<('|'-64) | 1<<('~'-64) | (1<<26-1)<<('A'-64) | (1<<26-1)<<('a'-64)
	)
	switch c >> 6 {
	case 0:
		return uint64(from0)>>c&1 != 0
	case 1:
		return uint64(from64)>>(c-64)&1 != 0
	}
	return false
}

// isVersion reports whether b is HTTP/1.1 or the like. Servers are found that
// take HTTP/01.1, HTTP/1.10 and http/1.1 too, so only version 2 is left out.
func isVersion(b []byte) bool {
	return len(b) > 5 && is(b[:5], "http/") && b[5] >= '0' && b[5] <= '1'
}

// simple reports whether a line is a request of HTTP/0.9: GET and a target.
func simple(line []byte) bool {
	return len(line) > 5 && string(line[:5]) == "GET /" && bytes.IndexByte(line[4:], ' ') < 0
}

// HeadEnd returns where the head that begins data ends, behind the empty line;
// -1 if it is not there yet. The first scanned bytes are known not to have it.
// Lines end with CR LF or LF alone (RFC 9112, 2.2).
func HeadEnd(data []byte, scanned int) int {
	line := bytes.IndexByte(data, '\n')
	if line < 0 {
		return -1
	}
	if simple(trimEnd(data[:line])) {
		return line + 1
	}
	// A line break is looked at again: what follows it may be new.
	for at := max(line, scanned-2); ; {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			return -1
		}
		at += i + 1
		switch {
		case at < len(data) && data[at] == '\n':
			return at + 1
		case at+1 < len(data) && data[at] == '\r' && data[at+1] == '\n':
			return at + 2
		}
	}
}

// ChunkSize reads the first line of a chunk, without its line break: a size in
// hexadecimal, maybe with extensions behind it (RFC 9112, 7.1).
func ChunkSize(line []byte) (uint64, bool) {
	var size uint64
	for n, c := range line {
		var digit byte
		switch {
		case c >= '0' && c <= '9':
			digit = c - '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			digit = c | 0x20 - 'a' + 10
		case c == ';' || c == ' ' || c == '\t':
			return size, n > 0
		default:
			return 0, false
		}
		if size>>58 != 0 {
			return 0, false
		}
		size = size<<4 | uint64(digit)
	}
	return size, len(line) > 0
}
