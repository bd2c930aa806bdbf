package yardstick

import "encoding/binary"

// scan is a scanner on its way over ports and hosts.
type scan struct {
	from uint32
	host uint32
	port uint16
}

// loneSYN sends a SYN that is no connection's.
func (g *Generator) loneSYN() {
	r := &g.rnd
	if r.below(2) == 0 {
		s := &g.scans[r.below(len(g.scans))]
		if s.port++; s.port == 0 || s.port > 1024 {
			s.port, s.host = 1, s.host+1
		}
		g.frame.network(host{num: s.from}, host{num: 0xc0000200 | s.host&0xff}, protoTCP, r.u32())
		g.frame.bareTCP(uint16(r.between(1024, 65535)), s.port, r.u32(), flagSYN)
		return
	}
	g.frame.network(host{num: r.u32()}, r.server(false), protoTCP, r.u32())
	g.frame.bareTCP(uint16(r.between(1024, 65535)), 80, r.u32(), flagSYN)
}

// datagram sends UDP that is not DNS.
func (g *Generator) datagram() {
	r := &g.rnd
	v6 := r.family()
	from, to := r.client(v6), r.server(v6)
	port, size := uint16(443), r.between(100, 1250)
	switch r.below(4) {
	case 0:
		port, size = 123, 48
	case 1:
		port, size = 5060, r.between(20, 700)
	}
	sport := uint16(r.between(32768, 60999))
	if r.below(2) == 0 {
		from, to, sport, port = to, from, port, sport
	}
	g.frame.network(from, to, protoUDP, r.u32())
	g.frame.udp(sport, port)
	start := len(g.frame.b)
	g.frame.payload(size, r.u32())
	switch {
	case port == 123:
		g.frame.b[start] = 0x23 // version 4, a client's
	case sport == 123:
		g.frame.b[start] = 0x24 // a server's
	}
}

// echo sends an ICMP echo request or answer.
func (g *Generator) echo() {
	r := &g.rnd
	v6, answer := r.family(), r.below(2)
	from, to := r.client(v6), r.server(v6)
	proto, kind := byte(protoICMPv4), byte(8-8*answer)
	if v6 {
		proto, kind = protoICMPv6, byte(128+answer)
	}
	if answer == 1 {
		from, to = to, from
	}
	g.frame.network(from, to, proto, r.u32())
	g.frame.b = append(g.frame.b, kind, 0, 0, 0)
	g.frame.b = binary.BigEndian.AppendUint32(g.frame.b, r.u32())
	g.frame.payload(56, 0)
}

// query is a DNS query that waits for its answer.
type query struct {
	open   bool
	client host
	server host
	port   uint16
	id     uint16
	name   [256]byte // in the form of the wire
	length int
}

// dns sends a query, or the answer to an earlier one.
func (g *Generator) dns() {
	r := &g.rnd
	q := &g.asked[r.below(len(g.asked))]
	if q.open {
		g.frame.network(q.server, q.client, protoUDP, r.u32())
		g.frame.udp(53, q.port)
	} else {
		v6 := r.family()
		*q = query{client: r.client(v6), server: host{v6, 0xc6336435}, port: uint16(r.between(32768, 60999)), id: uint16(r.u32())}
		q.draw(r)
		g.frame.network(q.client, q.server, protoUDP, r.u32())
		g.frame.udp(q.port, 53)
	}
	q.message(&g.frame, r)
	q.open = !q.open
}

// draw makes up the name: usually a host of two labels, one time in 200 the
// long one of a tunnel.
func (q *query) draw(r *source) {
	b := q.name[:0]
	label := func(n int) {
		b = append(b, byte(n))
		start := len(b)
		b = append(b, make([]byte, n)...)
		r.letters(b[start:])
	}
	if r.below(200) == 0 {
		for left := r.between(120, 200); left > 0; left -= 60 {
			label(min(left, 60))
		}
	} else {
		label(r.between(1, 12))
		label(r.between(3, 16))
	}
	b = append(b, 3, 'c', 'o', 'm', 0)
	q.length = len(b)
}

// message appends the query or, once it is open, its answer of one to four
// addresses.
func (q *query) message(f *frame, r *source) {
	answers := 0
	flags := uint16(0x0100)
	if q.open {
		answers, flags = r.between(1, 4), 0x8180
	}
	b := binary.BigEndian.AppendUint16(f.b, q.id)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, 0, 1, 0, byte(answers), 0, 0, 0, 0)
	b = append(b, q.name[:q.length]...)
	b = append(b, 0, 1, 0, 1)
	for range answers {
		b = append(b, 0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4)
		b = binary.BigEndian.AppendUint32(b, r.u32())
	}
	f.b = b
}
