package stream

import (
	"github.com/netcap-guard/netcap-guard/capture/stream/message"
	"github.com/netcap-guard/netcap-guard/record"
)

// maxHello bounds a hello. Real ones have some hundred bytes, with
// post-quantum keys two thousand.
const maxHello = 64 << 10

const tlsRecordHeader = 5

// tls reads the records of a handshake up to the hello, and behind the hello
// of a client, or a server that asks for another, up to the next one (RFC 8446,
// 4.1.4). A hello may be split over records, and records over segments.
func (t *Table) tls(c conn, dir int, data []byte) (int, bool) {
	h := &c.half[dir]
	if h.step == inBody {
		return pass(h, data)
	}
	if len(data) < tlsRecordHeader || len(data) < t.scanned {
		return 0, false
	}
	size := int(data[3])<<8 | int(data[4])
	switch {
	case data[1] != 3 || size > message.MaxTLSRecord:
		h.mode = passOver
		return len(data), false
	case data[0] == message.TLSChangeCipher || data[0] == message.TLSAlert:
		h.step, h.rest = inBody, uint64(size)
		return tlsRecordHeader, true
	case data[0] != message.TLSHandshake:
		h.mode = passOver
		return len(data), false
	}
	msg, n, enough := t.collect(data)
	switch {
	case msg == nil && enough:
		h.mode = passOver // another message, or a hello too long
		return len(data), false
	case !enough:
		// n bytes at least are missing: before they are here there is no need
		// to look again, or tiny records would make us look very often.
		t.scanned = len(data) + n
		return 0, false
	}
	t.hello(c, dir, msg)
	if h.mode == passOver {
		return len(data), false
	}
	h.rest = uint64(n) // what is left of the record
	if h.rest > 0 {
		h.step = inBody
	}
	end := t.ended
	return end, true
}

// collect returns the hello that begins with the record at data, the bytes of
// its last record behind it, and whether there is enough to tell: with nothing
// and true it is no hello; with false the number is how many more bytes are
// needed at least. t.ended is where the hello ends in data.
func (t *Table) collect(data []byte) ([]byte, int, bool) {
	t.scratch = t.scratch[:0]
	need, pos := 4, 0
	for {
		if len(data)-pos < tlsRecordHeader {
			return nil, need - len(t.scratch), false
		}
		size := int(data[pos+3])<<8 | int(data[pos+4])
		if data[pos] != message.TLSHandshake || size == 0 || size > message.MaxTLSRecord {
			return nil, 0, true
		}
		pos += tlsRecordHeader
		here := data[pos:min(pos+size, len(data))]
		have := len(t.scratch)
		if have == 0 && len(here) >= 4 {
			need = helloSize(here)
			if need < 0 {
				return nil, 0, true
			}
			if len(here) >= need { // all in one record
				t.ended = pos + need
				return here[:need], size - need, true
			}
		}
		t.scratch = append(t.scratch, here...)
		if len(t.scratch) >= 4 {
			if need = helloSize(t.scratch); need < 0 {
				return nil, 0, true
			}
			if len(t.scratch) >= need {
				used := need - have
				t.ended = pos + used
				return t.scratch[:need], size - used, true
			}
		}
		if len(here) < size {
			return nil, need - len(t.scratch), false
		}
		pos += size
	}
}

// helloSize is the length of the hello that msg begins, -1 if it is none.
func helloSize(msg []byte) int {
	size := 4 + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3])
	if msg[0] != message.ClientHello && msg[0] != message.ServerHello || size > maxHello {
		return -1
	}
	return size
}

// hello delivers a hello.
func (t *Table) hello(c conn, dir int, msg []byte) {
	h, hdr := &c.half[dir], t.orient(c, dir)
	if msg[0] == message.ClientHello {
		if !t.parser.ClientHello(msg, hdr, &t.set.ClientHello) {
			t.stats.malformed.Add(1)
			h.mode = passOver
		} else if t.wants(record.TypeTLSClientHello) {
			t.emit(record.TypeTLSClientHello, msg)
		}
		return
	}
	again, ok := t.parser.ServerHello(msg, hdr, &t.set.ServerHello)
	if !again {
		h.mode = passOver
	}
	if !ok {
		t.stats.malformed.Add(1)
	} else if t.wants(record.TypeTLSServerHello) {
		t.emit(record.TypeTLSServerHello, msg)
	}
}

// wants reports whether some rule asks for the type.
func (t *Table) wants(typ record.Type) bool { return t.want.types.Has(typ) }
