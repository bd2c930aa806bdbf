package stream

import (
	"bytes"

	"github.com/netcap-guard/netcap-guard/capture/stream/message"
	"github.com/netcap-guard/netcap-guard/record"
)

const (
	// maxHead bounds a message's head. Servers take 8 to 64 KiB; of a longer
	// one the beginning is the record.
	maxHead = 64 << 10
	// maxLine is how much of a line that says how long a chunk is, or of a
	// trailer, is kept until it is whole; of a longer one the rest is passed
	// over.
	maxLine = 256
)

// pending are the requests of a connection that were not answered yet, as far
// as their method decides whether the answer has a body: two bits each, the
// oldest lowest.
type pending struct {
	bits  uint64
	count uint8
}

func (p *pending) push(m message.Method) {
	if p.count < 32 {
		p.bits |= uint64(m) << (2 * p.count)
	}
	if p.count < 255 {
		p.count++
	}
}

func (p *pending) pop() message.Method {
	if p.count == 0 {
		return message.OtherMethod
	}
	m := message.Method(p.bits & 3)
	p.bits >>= 2
	p.count--
	return m
}

// http reads HTTP/1 messages (RFC 9112).
func (t *Table) http(c conn, dir int, data []byte) (int, bool) {
	h := &c.half[dir]
	switch h.step {
	case inBody, inChunk:
		return pass(h, data)
	case atChunk, atTrailer:
		return t.line(h, data)
	case inExtension, inTrailer:
		return endOfLine(h, data)
	case atStart, atPacket:
	}
	if k := blanks(data); k > 0 {
		return k, true
	}
	if k := first(data, false); k != httpProtocol && k != needMore {
		h.mode = lost
		return 0, true
	}
	end := message.HeadEnd(data, t.scanned)
	if end < 0 {
		if len(data) <= maxHead {
			t.scanned = max(len(data)-3, 0)
			return 0, false
		}
		t.head(c, dir, data)
		lose(h)
		return len(data), true
	}
	t.head(c, dir, data[:end])
	return end, true
}

// head delivers a message's head and finds out what follows it.
func (t *Table) head(c conn, dir int, head []byte) {
	h := &c.half[dir]
	hdr := t.orient(c, dir)
	f := t.parser.HTTP(head, hdr, &t.set.HTTP)
	if !f.OK {
		t.stats.malformed.Add(1)
		h.mode = lost
		return
	}
	r := &t.set.HTTP
	if !r.IsResponse {
		c.http.push(f.Method)
		t.emit(record.TypeHTTP, head)
		follow(h, &f)
		return
	}
	method := message.OtherMethod
	status := r.StatusCode
	if status >= 200 || status == 101 {
		method = c.http.pop()
	}
	t.emit(record.TypeHTTP, head)
	switch {
	case status == 101 || method == message.ConnectMethod && status/100 == 2:
		// From here on they speak something else (RFC 9110, 7.8 and 9.3.6).
		for d := range c.half {
			if c.half[d].mode == asHTTP {
				c.half[d].mode, c.half[d].step, c.half[d].tries = undecided, atStart, 0
			}
		}
	case status/100 == 1, status == 204, status == 304, method == message.HeadMethod:
	case f.Chunked, f.HasLength:
		follow(h, &f)
	default:
		h.mode = passOver // until the connection closes
	}
}

// follow sets a direction to what the head announced (RFC 9112, 6.3): chunks
// win over a length.
func follow(h *half, f *message.Framing) {
	switch {
	case f.Chunked:
		h.step = atChunk
	case f.Length > 0:
		h.step, h.rest = inBody, f.Length
	default:
		h.step = atStart
	}
}

// line reads a chunk's first line, or a trailer's lines up to the empty one.
func (t *Table) line(h *half, data []byte) (int, bool) {
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		if len(data) <= maxLine {
			return 0, false
		}
		return t.longLine(h, data)
	}
	line := bytes.TrimRight(data[:end], "\r")
	if h.step == atTrailer {
		if len(line) == 0 {
			h.step = atStart
		}
		return end + 1, true
	}
	if len(line) == 0 {
		return end + 1, true // the end of the chunk before
	}
	size, ok := message.ChunkSize(line)
	switch {
	case !ok:
		t.stats.malformed.Add(1)
		h.mode = lost
		return 0, true
	case size == 0:
		h.step = atTrailer
	default:
		h.step, h.rest = inChunk, size
	}
	return end + 1, true
}

// longLine is told of a line that goes on behind data, its beginning, which
// says all that matters.
func (t *Table) longLine(h *half, data []byte) (int, bool) {
	if h.step == atTrailer {
		h.step = inTrailer
		return len(data), true
	}
	size, ok := message.ChunkSize(data)
	if !ok {
		t.stats.malformed.Add(1)
		h.mode = lost
		return 0, true
	}
	h.step, h.rest = inExtension, size
	return len(data), true
}

// endOfLine passes over the rest of a long line.
func endOfLine(h *half, data []byte) (int, bool) {
	end := bytes.IndexByte(data, '\n')
	switch {
	case end < 0:
		return len(data), true
	case h.step == inTrailer || h.rest == 0:
		h.step = atTrailer
	default:
		h.step = inChunk
	}
	return end + 1, true
}
