package yardstick

import "encoding/binary"

// host is one end of a packet: an address number that becomes an IPv4 or an
// IPv6 address, so that neither family needs code of its own.
type host struct {
	v6  bool
	num uint32
}

// client and server draw hosts of a family.
func (s *source) client(v6 bool) host {
	return host{v6, 0x0a000000 | uint32(s.skewed(20000))} // 10.0.0.0/8
}

func (s *source) server(v6 bool) host {
	return host{v6, 0xc6336400 | uint32(1+s.below(250))} // 198.51.100.0/24
}

// family draws one: one in six is IPv6.
func (s *source) family() bool { return s.below(6) == 0 }

// append appends the address: IPv6 ones lie in 2001:db8::/32.
func (h host) append(b []byte) []byte {
	if h.v6 {
		b = append(b, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	return binary.BigEndian.AppendUint32(b, h.num)
}

// IP protocol numbers.
const (
	protoICMPv4 = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

const (
	ipv4Header = 20
	ipv6Header = 40
	leastFrame = 60
)

// frame is an Ethernet frame under construction in one reused buffer.
type frame struct {
	b  []byte
	ip int // where the IP header begins
	l4 int
	v6 bool
}

// reset begins a frame.
func (f *frame) reset(vlan bool) {
	f.b = append(f.b[:0], 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1)
	if vlan {
		f.b = append(f.b, 0x81, 0, 0, 100)
	}
}

// network appends the IP header.
func (f *frame) network(src, dst host, proto byte, id uint32) {
	f.v6 = src.v6
	if f.v6 {
		f.b = append(f.b, 0x86, 0xdd)
		f.ip = len(f.b)
		f.b = append(f.b, 0x60, 0, 0, 0, 0, 0, proto, 64)
	} else {
		f.b = append(f.b, 8, 0)
		f.ip = len(f.b)
		f.b = append(f.b, 0x45, 0, 0, 0, byte(id>>8), byte(id), 0x40, 0, 64, proto, 0, 0)
	}
	f.b = dst.append(src.append(f.b))
	f.l4 = len(f.b)
}

// TCP flags.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// tcp appends a TCP header: with SYN the usual options, else a time stamp.
func (f *frame) tcp(sport, dport uint16, seq, ack uint32, flags byte, stamp uint32) {
	b := binary.BigEndian.AppendUint16(f.b, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ack)
	words := byte(8)
	if flags&flagSYN != 0 {
		words = 10
	}
	b = append(b, words<<4, flags, 0xfa, 0xf0, 0, 0, 0, 0)
	if flags&flagSYN != 0 {
		b = append(b, 2, 4, 5, 0xb4, 4, 2)
	} else {
		b = append(b, 1, 1)
	}
	b = append(b, 8, 10)
	b = binary.BigEndian.AppendUint32(b, stamp)
	b = binary.BigEndian.AppendUint32(b, ack>>7)
	if flags&flagSYN != 0 {
		b = append(b, 1, 3, 3, 7)
	}
	f.b = b
}

// bareTCP appends a header without options, as scanners send it.
func (f *frame) bareTCP(sport, dport uint16, seq uint32, flags byte) {
	f.b = binary.BigEndian.AppendUint16(f.b, sport)
	f.b = binary.BigEndian.AppendUint16(f.b, dport)
	f.b = binary.BigEndian.AppendUint32(f.b, seq)
	f.b = append(f.b, 0, 0, 0, 0, 5<<4, flags, 4, 0, 0, 0, 0, 0)
}

// udp appends a UDP header; finish fills its length.
func (f *frame) udp(sport, dport uint16) {
	f.b = binary.BigEndian.AppendUint16(f.b, sport)
	f.b = binary.BigEndian.AppendUint16(f.b, dport)
	f.b = append(f.b, 0, 0, 0, 0)
}

// payload appends n bytes that look like nothing in particular.
func (f *frame) payload(n int, fill uint32) {
	for i := range n {
		f.b = append(f.b, byte(fill)+byte(i*5))
	}
}

// finish fills lengths and checksums and pads to the least Ethernet frame.
func (f *frame) finish() []byte {
	ip, l4 := f.b[f.ip:], f.b[f.l4:]
	proto := ip[9]
	if f.v6 {
		proto = ip[6]
		binary.BigEndian.PutUint16(ip[4:], uint16(len(l4)))
	} else {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[10:], fold(sum(ip[:ipv4Header], 0)))
	}
	addrs := f.b[f.l4-8 : f.l4]
	if f.v6 {
		addrs = f.b[f.l4-32 : f.l4]
	}
	pseudo := sum(addrs, uint32(proto)+uint32(len(l4)))
	at := 16
	switch proto {
	case protoUDP:
		at = 6
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	case protoICMPv6:
		at = 2
	case protoICMPv4:
		at, pseudo = 2, 0
	}
	check := fold(sum(l4, pseudo))
	if check == 0 && proto == protoUDP {
		check = 0xffff // 0 would mean none
	}
	binary.BigEndian.PutUint16(l4[at:], check)
	for len(f.b) < leastFrame {
		f.b = append(f.b, 0)
	}
	return f.b
}

// sum adds 16-bit words, the Internet checksum before its end (RFC 1071).
func sum(b []byte, acc uint32) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		acc += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		acc += uint32(b[0]) << 8
	}
	return acc
}

func fold(acc uint32) uint16 {
	for acc>>16 != 0 {
		acc = acc&0xffff + acc>>16
	}
	return ^uint16(acc)
}
