package yardstick

import (
	"fmt"
	"strconv"
)

// kind is what a connection carries.
type kind uint8

const (
	kindHTTP kind = iota
	kindBulk
	kindSSH
)

// segment is the most a segment carries in a frame of 1,500 bytes beside the
// IP header and a TCP header with time stamps.
func (h host) segment() int {
	if h.v6 {
		return 1500 - ipv6Header - 32
	}
	return 1500 - ipv4Header - 32
}

// flow is one TCP connection. What it sends next is a number of states that a
// connection goes through; the answer left to send is counted in segments.
type flow struct {
	kind           kind
	client, server host
	sport, dport   uint16
	state          state
	cseq, sseq     uint32
	exchanges      int  // requests still to come
	segments       int  // of the answer still to come
	last           int  // bytes in its last segment
	head           bool // the answer's HTTP header is still to come
	greet          bool // the identification lines of SSH are still to come
	unacked        int
	stamp          uint32
}

type state uint8

const (
	stateSYN state = iota
	stateSYNACK
	stateACK
	stateRequest
	stateAnswer
	stateFIN
	stateFINACK
	stateLastACK
)

// begin makes a new connection of it.
func (f *flow) begin(r *source) {
	v6 := r.family()
	*f = flow{client: r.client(v6), server: r.server(v6), sport: uint16(r.between(32768, 60999)),
		cseq: r.u32(), sseq: r.u32(), stamp: r.u32()}
	switch share := r.below(10); {
	case share < 5:
		f.kind, f.dport, f.exchanges = kindHTTP, 80, r.between(1, 6)
	case share < 9:
		f.kind, f.dport, f.exchanges = kindBulk, 443, r.between(1, 3)
	default:
		f.kind, f.dport, f.exchanges, f.greet = kindSSH, 22, r.between(5, 30), true
	}
}

// step appends the connection's next packet to the frame.
func (f *flow) step(r *source, out *frame) {
	switch f.state {
	case stateSYN:
		f.fromClient(r, out, flagSYN, 0)
		f.cseq++
		f.state = stateSYNACK
	case stateSYNACK:
		f.fromServer(r, out, flagSYN|flagACK, 0)
		f.sseq++
		f.state = stateACK
	case stateACK:
		f.fromClient(r, out, flagACK, 0)
		f.state = stateRequest
	case stateRequest:
		f.request(r, out)
		f.state = stateAnswer
	case stateAnswer:
		f.answer(r, out)
	case stateFIN:
		f.fromClient(r, out, flagFIN|flagACK, 0)
		f.cseq++
		f.state = stateFINACK
	case stateFINACK:
		f.fromServer(r, out, flagFIN|flagACK, 0)
		f.sseq++
		f.state = stateLastACK
	case stateLastACK:
		f.fromClient(r, out, flagACK, 0)
		f.begin(r)
	}
}

// request sends what the client asks and decides how much comes back.
func (f *flow) request(r *source, out *frame) {
	full := f.server.segment()
	switch f.kind {
	case kindHTTP:
		f.segments, f.last, f.head = r.between(1, 12), r.between(len(answerHead)+20, full), true
		f.fromClient(r, out, flagPSH|flagACK, 0)
		start := len(out.b)
		out.b = appendRequest(out.b, r)
		f.cseq += uint32(len(out.b) - start)
	case kindBulk:
		f.segments, f.last = r.between(8, 64), r.between(60, full)
		f.fromClient(r, out, flagPSH|flagACK, r.between(80, 600))
	case kindSSH:
		f.segments = 1
		if f.greet {
			f.last = len(identification)
			f.fromClient(r, out, flagPSH|flagACK, 0)
			out.b = append(out.b, identification...)
			f.cseq += uint32(len(identification))
			return
		}
		f.last = r.between(36, 300)
		f.fromClient(r, out, flagPSH|flagACK, r.between(36, 120))
	}
}

// answer sends a segment of the answer, or the client's acknowledgement of the
// last two.
func (f *flow) answer(r *source, out *frame) {
	switch {
	case f.unacked == 2 || f.segments == 0:
		f.fromClient(r, out, flagACK, 0)
		f.unacked = 0
	case f.segments == 1:
		f.fromServer(r, out, flagPSH|flagACK, f.last)
		f.segments, f.unacked = 0, 1
		return
	default:
		f.fromServer(r, out, flagACK, f.server.segment())
		f.segments--
		f.unacked++
	}
	if f.segments == 0 && f.unacked == 0 {
		f.state = stateRequest
		if f.exchanges--; f.exchanges == 0 {
			f.state = stateFIN
		}
	}
}

func (f *flow) fromClient(r *source, out *frame, flags byte, size int) {
	ack := f.sseq
	if flags == flagSYN {
		ack = 0
	}
	f.stamp++
	out.network(f.client, f.server, protoTCP, f.stamp)
	out.tcp(f.sport, f.dport, f.cseq, ack, flags, f.stamp)
	out.payload(size, r.u32())
	f.cseq += uint32(size)
}

func (f *flow) fromServer(r *source, out *frame, flags byte, size int) {
	f.stamp++
	out.network(f.server, f.client, protoTCP, f.stamp)
	out.tcp(f.dport, f.sport, f.sseq, f.cseq, flags, f.stamp)
	f.sseq += uint32(size)
	if f.head && size > 0 {
		f.head = false
		body := (f.segments-1)*f.server.segment() + f.last - len(answerHead) - len("000000\r\n\r\n")
		out.b = fmt.Appendf(out.b, "%s%06d\r\n\r\n", answerHead, body)
		size -= len(answerHead) + len("000000\r\n\r\n")
	}
	if f.greet && size > 0 {
		f.greet = false
		out.b = append(out.b, identification...)
		return
	}
	out.payload(size, r.u32())
}

// identification begins an SSH connection, from both sides (RFC 4253, 4.2).
const identification = "SSH-2.0-yardstick\r\n"

// answerHead begins an HTTP answer; the number of bytes in its body follows.
const answerHead = "HTTP/1.1 200 OK\r\nServer: yardstick\r\nContent-Type: text/html\r\nContent-Length: "

// appendRequest appends an HTTP request of 200 to 900 bytes.
func appendRequest(b []byte, r *source) []byte {
	var path [40]byte
	r.letters(path[:r.between(4, len(path))])
	b = append(b, "GET /"...)
	for _, c := range path {
		if c == 0 {
			break
		}
		b = append(b, c)
	}
	b = append(b, "?id="...)
	b = strconv.AppendUint(b, uint64(r.u32()), 10)
	b = append(b, " HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) "+
		"Gecko/20100101 Firefox/128.0\r\nAccept: */*\r\nCookie: session="...)
	start := len(b)
	b = append(b, make([]byte, r.between(16, 650))...)
	r.letters(b[start:])
	return append(b, "\r\n\r\n"...)
}
