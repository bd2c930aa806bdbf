// Package yardstick generates the traffic that every benchmark of this project
// is measured on: seeded, so that the same seed gives the same bytes on every
// machine and with every version of Go.
//
// The mix, in packets:
//
//   - 70 % TCP connections, 1,024 at a time, each from its handshake to its
//     FIN: half of them HTTP (requests of 200 to 900 bytes with browser-like
//     headers, answers of 1 to 12 segments), four in ten bulk transfers on port
//     443 (8 to 64 full segments), one in ten SSH (small segments
//     both ways). Pure ACKs go along with the data, about one for two segments.
//   - 10 % lone SYNs: half from 16 scanners that walk over the ports of a /24,
//     half from forged sources all over IPv4.
//   - 10 % other UDP: sizes of 20 to 1,250 bytes, ports 123, 443 and 5060.
//   - 8 % DNS over UDP: queries and their answers; one query in 200 carries a
//     name of 120 to 200 characters, as a tunnel does.
//   - 2 % ICMP echo requests and answers.
//
// One connection, datagram and query in six is IPv6, one frame in sixteen has a
// VLAN tag; the mean frame has 640 bytes. Clients are drawn from 20,000 addresses, a few of them far more
// often than the rest; servers from 250. Frames follow each other after 10
// microseconds on average. Every checksum is right.
package yardstick

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// Start is the time stamp before the first packet, Unix nanoseconds.
const Start int64 = 1_700_000_000_000_000_000

// Generator makes packets one after another. It belongs to one goroutine.
type Generator struct {
	rnd   source
	now   int64
	flows [1024]flow
	asked [64]query // queries whose answers are to come
	scans [16]scan
	frame frame
}

// New returns the generator of a seed.
func New(seed uint64) *Generator {
	g := &Generator{rnd: source{rand.NewPCG(seed, 0x5eed)}, now: Start}
	for i := range g.flows {
		g.flows[i].begin(&g.rnd)
	}
	for i := range g.scans {
		g.scans[i] = scan{from: g.rnd.u32()}
	}
	return g
}

// Next returns the next packet: an Ethernet frame, valid until the call after,
// and its time stamp in Unix nanoseconds.
func (g *Generator) Next() (data []byte, at int64) {
	g.now += int64(1+g.rnd.below(20)) * 1000
	g.frame.reset(g.rnd.below(16) == 0)
	switch share := g.rnd.below(100); {
	case share < 70:
		i := g.rnd.below(len(g.flows))
		g.flows[i].step(&g.rnd, &g.frame)
	case share < 80:
		g.loneSYN()
	case share < 90:
		g.datagram()
	case share < 98:
		g.dns()
	default:
		g.echo()
	}
	return g.frame.finish(), g.now
}

// Write writes a pcap file (microseconds, little endian, Ethernet) of the
// given number of packets and returns its size in bytes.
func Write(w io.Writer, seed uint64, packets int) (int64, error) {
	buf := bufio.NewWriterSize(w, 1<<20)
	order := binary.LittleEndian
	head := order.AppendUint32(nil, 0xa1b2c3d4)
	head = order.AppendUint16(head, 2)
	head = order.AppendUint16(head, 4)
	head = append(head, make([]byte, 8)...)
	head = order.AppendUint32(head, 65535)
	head = order.AppendUint32(head, 1)
	if _, err := buf.Write(head); err != nil {
		return 0, fmt.Errorf("write yardstick: %w", err)
	}
	size := int64(len(head))
	g := New(seed)
	for range packets {
		data, at := g.Next()
		head = order.AppendUint32(head[:0], uint32(at/1e9))
		head = order.AppendUint32(head, uint32(at%1e9/1e3))
		head = order.AppendUint32(head, uint32(len(data)))
		head = order.AppendUint32(head, uint32(len(data)))
		if _, err := buf.Write(head); err != nil {
			return size, fmt.Errorf("write yardstick: %w", err)
		}
		if _, err := buf.Write(data); err != nil {
			return size, fmt.Errorf("write yardstick: %w", err)
		}
		size += int64(len(head) + len(data))
	}
	if err := buf.Flush(); err != nil {
		return size, fmt.Errorf("write yardstick: %w", err)
	}
	return size, nil
}

// source draws numbers. It uses nothing of math/rand/v2 but the generator,
// whose sequence is specified: the ways to scale it may change with Go.
type source struct{ pcg *rand.PCG }

func (s *source) u32() uint32 { return uint32(s.pcg.Uint64() >> 32) }

// below draws from 0 to n-1, n at most 2^32.
func (s *source) below(n int) int { return int(uint64(s.u32()) * uint64(n) >> 32) }

// between draws from low to high, both included.
func (s *source) between(low, high int) int { return low + s.below(high-low+1) }

// skewed draws from 0 to n-1, small numbers far more often.
func (s *source) skewed(n int) int {
	u := uint64(s.u32())
	return int((u * u >> 32) * u >> 32 * uint64(n) >> 32)
}

// bytes fills b with letters, as text does.
func (s *source) letters(b []byte) {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	for i := 0; i < len(b); {
		v := s.pcg.Uint64()
		for ; i < len(b) && v > 0; i++ {
			b[i] = alphabet[v&31]
			v >>= 5
		}
	}
}
