package stream_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

// wired is the packet as it comes over the wire, with its checksum.
func (p packet) wired(t testing.TB) *record.Set {
	t.Helper()
	src, dst := p.e.client, p.e.server
	if !p.toServer {
		src, dst = dst, src
	}
	has := func(f uint8) bool { return p.flags&f != 0 }
	if p.window == 0 {
		p.window = 65535
	}
	tcp := &layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), Seq: p.seq, Ack: p.ack, Window: p.window,
		SYN: has(record.FlagSYN), ACK: has(record.FlagACK), FIN: has(record.FlagFIN), RST: has(record.FlagRST), PSH: has(record.FlagPSH)}
	var network interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	}
	kind := layers.EthernetTypeIPv4
	if src.Addr().Is4() {
		network = &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
	} else {
		kind = layers.EthernetTypeIPv6
		network = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
	}
	if err := tcp.SetNetworkLayerForChecksum(network); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: kind}, network, tcp, gopacket.Payload(p.data)); err != nil {
		t.Fatal(err)
	}
	set := &record.Set{Header: record.Header{Time: 1e9 + p.time}}
	if err := decode.New(httpWant()).Decode(1, buf.Bytes(), len(buf.Bytes()), set); err != nil || !set.HasSegment {
		t.Fatal(err)
	}
	return set
}

// TestWrongChecksum: what the receiver throws away for its checksum says
// nothing, where the caller knows that the sums are those of the wire.
func TestWrongChecksum(t *testing.T) {
	v6 := numbered6()
	for name, e := range map[string]ends{"IPv4": web(), "IPv6": v6} {
		far := e
		far.cISN += 1 << 30
		rst := e.up(0, "")
		rst.flags = record.FlagRST
		const honest = "GET /honest HTTP/1.1\r\n\r\n"
		type sent struct {
			packet
			wrong bool
		}
		good := func(all ...packet) (out []sent) {
			for _, p := range all {
				out = append(out, sent{p, false})
			}
			return out
		}
		for attack, packets := range map[string][]sent{
			"data":           append(append(good(e.open()...), sent{e.up(0, request), true}), good(e.up(0, honest))...),
			"a piece ahead":  append(append(good(e.open()...), sent{e.up(5, "forged"), true}), good(e.up(5, honest[5:]), e.up(0, honest[:5]))...),
			"reset and SYN":  append(append(good(e.open()...), sent{rst, true}, sent{far.syn(), true}), good(e.up(0, honest))...),
			"a SYN at first": append([]sent{{far.syn(), true}}, good(append(e.open(), e.up(0, honest))...)...),
		} {
			for _, check := range []bool{true, false} {
				n := &notes{note: func(s *record.Set) string { return fmt.Sprint(s.HTTP.URL, s.Confirmed) }}
				table := stream.New(httpWant(), n, stream.Config{})
				var bad uint64
				for i, p := range packets {
					set := p.wired(t)
					set.Segment.Check = check
					if p.wrong {
						bad++
						set.Segment.Whole[(i*7+4)%20] ^= 1 << (i % 8) // the segment aliases it
					}
					table.Segment(set, false)
				}
				if got := table.Stats().BadSum; check && (fmt.Sprint(n.lines) != "[/honesttrue]" || got != bad) || !check && got != 0 {
					t.Errorf("%s, %s, checked %t: %q, %d wrong sums", name, attack, check, n.lines, got)
				}
			}
		}
	}
}

// TestRightChecksums: whatever the segment's length, a right sum is right, and
// a flipped bit is seen.
func TestRightChecksums(t *testing.T) {
	for _, e := range []ends{web(), numbered6()} {
		for size := range 70 {
			for _, flip := range []bool{false, true} {
				p := e.up(0, string(make([]byte, size)))
				for i := range p.data {
					p.data[i] = byte(i * 37)
				}
				set := p.wired(t)
				set.Segment.Check = true
				if flip {
					set.Segment.Whole[len(set.Segment.Whole)-1] ^= 0x10
				}
				table := stream.New(httpWant(), &deaf{}, stream.Config{})
				table.Segment(set, false)
				if want := flip && (size > 0); size > 0 && table.Stats().BadSum == 1 != want {
					t.Fatalf("%v, %d bytes, flipped %t: %+v", e.client, size, flip, table.Stats())
				}
			}
		}
	}
}

// BenchmarkChecked is the cost of a request whose checksum is computed.
func BenchmarkChecked(b *testing.B) {
	for _, check := range []bool{false, true} {
		b.Run(fmt.Sprintf("check=%t", check), func(b *testing.B) {
			e := web()
			table := stream.New(shipped(), &deaf{}, stream.Config{})
			for _, p := range e.open() {
				table.Segment(p.set(), false)
			}
			body := fmt.Sprintf(browser, 1)
			set := e.up(0, body).wired(b)
			set.Segment.Check = check
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			sum := set.Segment.Whole[16:18]
			for b.Loop() {
				table.Segment(set, false)
				// The next number, and the sum that goes with it.
				n := uint32(len(body))
				old := uint32(set.Segment.Seq>>16) + set.Segment.Seq&0xffff
				set.Segment.Seq += n
				for i := range 4 {
					set.Segment.Whole[4+i] = byte(set.Segment.Seq >> (24 - 8*i))
				}
				now := uint32(set.Segment.Seq>>16) + set.Segment.Seq&0xffff
				s := uint32(^(uint16(sum[0])<<8 | uint16(sum[1])))
				s += now + 2*0xffff - old
				for s > 0xffff {
					s = s&0xffff + s>>16
				}
				sum[0], sum[1] = byte(^s>>8), byte(^s)
			}
			if bad := table.Stats().BadSum; bad != 0 {
				b.Fatalf("%d wrong sums", bad)
			}
		})
	}
}

// numbered6 is web over IPv6.
func numbered6() ends {
	e := web()
	e.client = netip.MustParseAddrPort("[2001:db8::1]:40000")
	e.server = netip.MustParseAddrPort("[2001:db8:ffff::2]:80")
	return e
}
