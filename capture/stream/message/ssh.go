package message

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"strings"

	"github.com/netcap-guard/netcap-guard/record"
)

// Numbers of SSH's messages (RFC 4250, 4.1.2).
const (
	ignore        = 2
	unimplemented = 3
	debug         = 4
	// KEXINIT offers algorithms (RFC 4253, 7.1).
	KEXINIT = 20
)

// FindKEXINIT looks for the packet that offers algorithms in what follows an
// identification line: where it begins and how long it is. Others may come
// before it that mean nothing (RFC 4253, 11.2 to 11.4). The size is 0 where
// there is not enough to tell, -1 where there is none.
func FindKEXINIT(data []byte) (at, size int) {
	for {
		rest := data[at:]
		if len(rest) < 6 {
			return at, 0
		}
		const most = 1 << 24 // far more than anybody takes
		length := uint32(rest[0])<<24 | uint32(rest[1])<<16 | uint32(rest[2])<<8 | uint32(rest[3])
		if length < 2 || length > most {
			return at, -1
		}
		size = 4 + int(length)
		switch rest[5] {
		case KEXINIT:
			return at, size
		case ignore, unimplemented, debug:
		default:
			return at, -1
		}
		if size > len(rest) {
			return at, 0
		}
		at += size
	}
}

// SSH fills r from one side's identification line, with or without what stands
// behind it, and from its KEXINIT packet, unencrypted and from its length on;
// nil without one. It reports false for a packet that cannot be read.
//
// HASSH is the MD5 of the offered key exchange, encryption, authentication and
// compression algorithms, of the direction in which the side sends
// (github.com/salesforce/hassh: hassh of a client, hasshServer of a server);
// Algorithms is what it is computed of.
func (p *Parser) SSH(line, kexinit []byte, client bool, h *record.Header, r *record.SSH) bool {
	*r = record.SSH{}
	p.text = p.text[:0]
	line, _ = splitSSH(line)
	r.Timestamp = h.Time
	r.Ident, r.IsClient = str(line), client
	addresses(h, p.want.ssh.addrs, &r.SrcIP, &r.DstIP, &r.SrcPort, &r.DstPort)
	if p.want.ssh.flow {
		r.Flow = p.flow(h)
	}
	r.SoftwareVersion = str(software(line))
	if p.want.ssh.community {
		r.CommunityID = h.CommunityID()
	}
	if kexinit == nil {
		return true
	}
	lists, ok := nameLists(kexinit)
	if !ok {
		return false
	}
	r.ServerHostKeyAlgorithms = str(lists[1])
	r.HasWeakKex = anyName(lists[0], weakKex)
	r.HasWeakCipher = anyName(lists[2], weakCipher) || anyName(lists[3], weakCipher)
	r.HasWeakMAC = anyName(lists[4], weakMAC) || anyName(lists[5], weakMAC)
	pick := [4]int{0, 3, 5, 7} // RFC 4253, 7.1: server to client
	if client {
		pick = [4]int{0, 2, 4, 6}
	}
	r.Algorithms = p.put(func(b []byte) []byte {
		for i, n := range pick {
			if i > 0 {
				b = append(b, ';')
			}
			b = append(b, lists[n]...)
		}
		return b
	})
	sum := md5.Sum([]byte(r.Algorithms))
	r.HASSH = p.put(func(b []byte) []byte { return hex.AppendEncode(b, sum[:]) })
	return true
}

// software is what stands in an identification line between the protocol's
// version and a comment (RFC 4253, 4.2).
func software(line []byte) []byte {
	_, rest, _ := bytes.Cut(line, []byte("-"))
	_, rest, _ = bytes.Cut(rest, []byte("-"))
	name, _, _ := bytes.Cut(rest, []byte(" "))
	return name
}

// anyName reports whether is holds for a name of a list.
func anyName(list []byte, is func(name string) bool) bool {
	for len(list) > 0 {
		var name []byte
		name, list, _ = bytes.Cut(list, []byte(","))
		if is(str(name)) {
			return true
		}
	}
	return false
}

// weakKex: RFC 9142, 4, says MUST NOT or SHOULD NOT.
func weakKex(name string) bool {
	switch name {
	case "diffie-hellman-group1-sha1", "diffie-hellman-group-exchange-sha1", "rsa1024-sha1":
		return true
	}
	return strings.HasPrefix(name, "gss-group1-sha1-") || strings.HasPrefix(name, "gss-gex-sha1-")
}

// weakCipher: RC4 (RFC 8758), keys or blocks that are too short, and none.
func weakCipher(name string) bool {
	switch name {
	case "none", "arcfour", "arcfour128", "arcfour256", "des-cbc", "3des-cbc", "3des-ctr", "blowfish-cbc", "blowfish-ctr", "cast128-cbc", "cast128-ctr":
		return true
	}
	return false
}

// weakMAC: MD5, truncated ones of SHA-1, and none.
func weakMAC(name string) bool {
	return name == "none" || strings.HasPrefix(name, "hmac-md5") || strings.HasPrefix(name, "hmac-sha1-96")
}

// splitSSH parts the identification line from the packet behind it.
func splitSSH(msg []byte) (line, packet []byte) {
	line, packet, _ = bytes.Cut(msg, []byte("\n"))
	if at, size := FindKEXINIT(packet); size > 0 {
		packet = packet[at:]
	}
	return bytes.TrimRight(line, "\r"), packet
}

// nameLists reads the first eight name-lists of a KEXINIT packet.
func nameLists(packet []byte) (lists [8][]byte, ok bool) {
	const head = 4 + 1 + 1 + 16 // length, padding length, message number, cookie
	if len(packet) < head || packet[5] != KEXINIT {
		return lists, false
	}
	rest := packet[head:]
	for i := range lists {
		if len(rest) < 4 {
			return lists, false
		}
		size := int(rest[0])<<24 | int(rest[1])<<16 | int(rest[2])<<8 | int(rest[3])
		if rest = rest[4:]; size < 0 || size > len(rest) {
			return lists, false
		}
		lists[i], rest = rest[:size], rest[size:]
	}
	return lists, true
}
