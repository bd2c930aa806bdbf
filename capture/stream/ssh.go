package stream

import (
	"bytes"

	"github.com/netcap-guard/netcap-guard/capture/stream/message"
	"github.com/netcap-guard/netcap-guard/record"
)

const (
	// maxIdent bounds an identification line, and the lines that a server may
	// send before it (RFC 4253, 4.2, allows 255 bytes).
	maxIdent = 1024
	// maxKEXINIT bounds the offer behind it (RFC 4253, 6.1, asks for 35,000).
	maxKEXINIT = 64 << 10
)

// ssh reads the identification line and, where some rule asks for what it
// says, the KEXINIT behind it. The line is kept until then: the record has
// both.
func (t *Table) ssh(c conn, dir int, data []byte) (int, bool) {
	h := &c.half[dir]
	end := bytes.IndexByte(data, '\n')
	if end < 0 || end > maxIdent {
		if len(data) > maxIdent {
			h.mode = passOver
		}
		return 0, h.mode == passOver
	}
	line := bytes.TrimRight(data[:end], "\r")
	if h.step == atStart {
		if !prefix(line, "SSH-") || len(line) < 4 {
			if h.tries++; h.tries > maxTries {
				h.mode = passOver
			}
			return end + 1, true
		}
		h.step = atPacket
		t.offer(c, dir, line, nil)
	}
	if !t.want.kex {
		h.mode = passOver
		return len(data), false
	}
	before, size := message.FindKEXINIT(data[end+1:])
	switch packet := end + 1 + before; {
	case size < 0 || before+size > maxKEXINIT:
	case len(data) < packet+size || size == 0:
		return 0, false
	default:
		t.offer(c, dir, data[:packet+size], data[packet:packet+size])
	}
	h.mode = passOver
	return len(data), false
}

// banner is how many bytes stand before a server's identification line, whose
// beginning is in data, or 0: it may send other lines first (RFC 4253, 4.2).
func (t *Table) banner(c conn, dir int, data []byte) int {
	if !t.mayGreet(c, dir) || first(data, true) > needMore {
		return 0
	}
	if i := bytes.Index(data, []byte("\nSSH-")); i >= 0 {
		return i + 1
	}
	if last := bytes.LastIndexByte(data, '\n') + 1; last < len(data) && prefix(data[last:], "SSH-") {
		return last
	}
	return 0
}

// mayGreet reports whether a direction's identification line may still come.
func (t *Table) mayGreet(c conn, dir int) bool {
	return t.want.ssh && !c.half[dir].spoke && !t.isClient(c, dir)
}

// offer delivers what one side said of itself: its line, and later the same
// with its KEXINIT.
func (t *Table) offer(c conn, dir int, msg, kexinit []byte) {
	h := t.orient(c, dir)
	h.Late = kexinit != nil
	client := t.isClient(c, dir)
	if !t.parser.SSH(msg, kexinit, client, h, &t.set.SSH) {
		t.stats.malformed.Add(1)
		return
	}
	t.emit(record.TypeSSH, msg)
}

// isClient tells who began the connection: by the handshake, else by the
// ports, of which the server's is 22 or the lower.
func (t *Table) isClient(c conn, dir int) bool {
	if c.knows {
		return int(c.client) == dir
	}
	from, to := t.packet.SrcPort, t.packet.DstPort
	if dir != t.dir {
		from, to = to, from
	}
	if (from == sshPort) != (to == sshPort) {
		return to == sshPort
	}
	return to < from
}
