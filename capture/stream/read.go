package stream

import (
	"bytes"

	"github.com/netcap-guard/netcap-guard/capture/stream/message"
	"github.com/netcap-guard/netcap-guard/record"
)

// mode is how a direction's bytes are read.
type mode uint8

const (
	// undecided: what is being spoken is told by the first bytes.
	undecided mode = iota
	// lost: it is looked for at the beginning of every segment.
	lost
	asHTTP
	asSSH
	asTLS
	asDNS
	passOver
)

// step is where inside a protocol a direction stands.
type step uint8

const (
	// atStart of a message: HTTP's head, SSH's identification line, a TLS
	// record, a DNS length.
	atStart step = iota
	inBody
	atChunk
	inChunk
	inExtension // of a chunk's first line
	atTrailer
	inTrailer
	atPacket // SSH, behind the identification line
)

const (
	// maxTries bounds the segments that are looked at for a beginning.
	maxTries = 32
	// maxVain is the same for both directions together of a connection whose
	// beginning was seen and that never spoke a known protocol. What comes
	// before TLS in protocols that switch to it takes fewer segments.
	maxVain = 12
	// maxJump bounds how far the byte to come is moved at once: sequence
	// numbers must stay comparable.
	maxJump = 1 << 30
	dnsPort = 53
	sshPort = 22
)

// read takes messages out of data, the next bytes of a direction, and returns
// how many of them it is done with. It is called again with the others and
// what follows them.
func (t *Table) read(c conn, dir int, data []byte) int {
	h, n := &c.half[dir], 0
	for n < len(data) {
		k, more := 0, false
		switch h.mode {
		case undecided, lost:
			k, more = t.recognise(c, dir, data[n:])
		case asHTTP:
			k, more = t.http(c, dir, data[n:])
		case asSSH:
			k, more = t.ssh(c, dir, data[n:])
		case asTLS:
			k, more = t.tls(c, dir, data[n:])
		case asDNS:
			k, more = t.dns(c, dir, data[n:])
		case passOver:
			return len(data)
		}
		n += k
		if k > 0 {
			t.scanned = 0
		}
		if !more {
			return n
		}
	}
	jump(h)
	return n
}

// lose is told that bytes of the direction are missing.
func lose(h *half) {
	h.step, h.rest = atStart, 0
	switch h.mode {
	case asHTTP, asDNS:
		h.mode = lost
	case asSSH, asTLS:
		h.mode = passOver // what they say, they say at the beginning
	case undecided, lost, passOver:
	}
}

// cut is given the beginning of a message whose rest will not come. A request
// line says enough to be a record.
func (t *Table) cut(c conn, dir int, data []byte) {
	h := &c.half[dir]
	if h.mode == asHTTP && h.step == atStart && bytes.IndexByte(data, '\n') >= 0 {
		t.head(c, dir, data)
	}
}

// recognise tells by its first bytes what a direction speaks.
func (t *Table) recognise(c conn, dir int, data []byte) (int, bool) {
	h := &c.half[dir]
	if t.want.dns && (t.packet.SrcPort == dnsPort || t.packet.DstPort == dnsPort) {
		if h.mode = asDNS; !plausibleDNS(data) {
			h.mode = passOver
		}
		return 0, true
	}
	if k := blanks(data); k > 0 {
		// Empty lines before a request are to be ignored (RFC 9112, 2.2), and
		// some servers ignore any number of them.
		if h.mode == lost && t.mayGreet(c, dir) {
			h.mode = undecided // the end of a line before the identification
		}
		return k, true
	}
	if k := t.banner(c, dir, data); k > 0 {
		h.mode = undecided
		return k, true
	}
	other := &c.half[1-dir]
	wanted, found := false, first(data, h.mode == undecided)
	if h.mode == lost && h.spoke && found != httpProtocol {
		// Inside a message that could not be followed to its end anything may
		// stand: who has spoken HTTP is listened to until he does again.
		return len(data), false
	}
	switch found {
	case needMore:
		if h.mode == undecided {
			return 0, false
		}
	case httpProtocol:
		h.mode, wanted = asHTTP, t.want.http
	case sshProtocol:
		h.mode, wanted = asSSH, t.want.ssh
	case tlsProtocol:
		h.mode, wanted = asTLS, t.want.tls
	case noProtocol:
	}
	switch {
	case wanted:
		h.step, h.tries, h.spoke = atStart, 0, true
		return 0, true
	case found > needMore, // nobody asks for it, in either direction
		c.knows && !h.spoke && !other.spoke && int(h.tries)+int(other.tries) >= maxVain:
		h.mode, other.mode = passOver, passOver
		t.dropState(c, 1-dir)
	case h.tries >= maxTries:
		h.mode = passOver
	default:
		if h.mode = lost; data[len(data)-1] == '\n' && t.mayGreet(c, dir) {
			h.mode = undecided
		}
		h.tries++
	}
	return len(data), false
}

// protocol is what first bytes may be.
type protocol uint8

const (
	noProtocol protocol = iota
	needMore
	httpProtocol
	sshProtocol
	tlsProtocol
)

// first tells what begins with data. SSH begins a connection or nothing.
func first(data []byte, beginning bool) protocol {
	switch {
	case data[0] == message.TLSHandshake, data[0] == message.TLSAlert:
		return firstTLS(data)
	case beginning && prefix(data, "SSH-"):
		if len(data) < 4 {
			return needMore
		}
		return sshProtocol
	case prefix(data, "HTTP/1."):
		if len(data) < 7 {
			return needMore
		}
		return httpProtocol
	}
	switch message.RequestLine(data) {
	case message.Yes:
		return httpProtocol
	case message.Perhaps:
		return needMore
	case message.No:
	}
	return noProtocol
}

// blanks is how many line breaks begin data.
func blanks(data []byte) int {
	n := 0
	for n < len(data) && (data[n] == '\r' || data[n] == '\n') {
		n++
	}
	return n
}

// prefix reports whether data and s begin alike, as far as both go.
func prefix(data []byte, s string) bool {
	n := min(len(data), len(s))
	return string(data[:n]) == s[:n]
}

// firstTLS wants a record of a handshake that holds the beginning of a hello,
// or the warning that some servers send before it.
func firstTLS(data []byte) protocol {
	if len(data) > 1 && data[1] != 3 || len(data) > 2 && data[2] > 4 {
		return noProtocol
	}
	if len(data) < 6 {
		return needMore
	}
	size := int(data[3])<<8 | int(data[4])
	if data[0] == message.TLSAlert {
		if size == 2 {
			return tlsProtocol
		}
		return noProtocol
	}
	if size == 0 || size > message.MaxTLSRecord || data[5] != message.ClientHello && data[5] != message.ServerHello {
		return noProtocol
	}
	return tlsProtocol
}

// plausibleDNS wants a length that has room for a header.
func plausibleDNS(data []byte) bool {
	return len(data) < 2 || int(data[0])<<8|int(data[1]) >= 12
}

// dns takes one message behind its length (RFC 1035, 4.2.2).
func (t *Table) dns(c conn, dir int, data []byte) (int, bool) {
	if !plausibleDNS(data) {
		c.half[dir].mode = passOver
		return len(data), false
	}
	if len(data) < 2 {
		return 0, false
	}
	size := 2 + (int(data[0])<<8 | int(data[1]))
	if len(data) < size {
		return 0, false
	}
	t.orient(c, dir)
	t.set.Have = 0
	if err := t.cfg.DNS(data[2:size], &t.set); err != nil {
		t.stats.malformed.Add(1)
	}
	if t.set.Have.Has(record.TypeDNS) {
		t.emit(record.TypeDNS, data[2:size])
	}
	return size, true
}

// pass consumes bytes of a message that nobody reads, and reports whether the
// message ends within data.
func pass(h *half, data []byte) (int, bool) {
	k := int(min(h.rest, uint64(len(data))))
	h.rest -= uint64(k)
	if h.rest == 0 {
		passed(h)
	}
	return k, true
}

// passed sets a direction to what follows the bytes that were passed over.
func passed(h *half) {
	if h.step == inChunk {
		h.step = atChunk
	} else {
		h.step = atStart
	}
}

// jump moves the byte to come behind those of a message that nobody reads:
// nothing has to wait for them, and whether they come does not matter.
func jump(h *half) {
	if h.rest == 0 || h.step != inBody && h.step != inChunk {
		return
	}
	n := min(h.rest, maxJump)
	h.next += n
	if h.rest -= n; h.rest == 0 {
		passed(h)
	}
}
