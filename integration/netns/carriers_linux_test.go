package netns

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"testing"
	"time"
)

// carrier is a way to carry an IP packet to the guard's wire.
type carrier struct {
	name string
	// tunnel: it can come from anywhere, and is looked into only with --decap.
	tunnel bool
	wrap   func(packet []byte) []byte
}

// ether is a frame for nobody in particular.
func ether(kind string, parts ...[]byte) []byte {
	return slices.Concat(append([][]byte{[]byte("\x02\x00\x00\x00\x00\x09\x02\x00\x00\x00\x00\x01" + kind)}, parts...)...)
}

// ipPacket carries parts from one address to another. Checksums are nobody's
// business here.
func ipPacket(from, to netip.Addr, proto byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	if from.Is6() {
		head := append(binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(body))), proto, 64)
		return slices.Concat(head, from.AsSlice(), to.AsSlice(), body)
	}
	head := append(binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+len(body))), 0, 0, 0, 0, 64, proto, 0, 0)
	return slices.Concat(head, from.AsSlice(), to.AsSlice(), body)
}

// datagramTo is a UDP datagram without the IP before it.
func datagramTo(port uint16, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	head := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 50000), port)
	return append(append(binary.BigEndian.AppendUint16(head, uint16(8+len(body))), 0, 0), body...)
}

// segmentOf is a TCP segment without the IP before it.
func segmentOf(from, to uint16, flags byte, seq, ack uint32, data string) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, seq), ack)
	return append(append(b, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0), data...)
}

const (
	flagSYN = 0x02
	flagACK = 0x10
)

// carriersOf are the carriers of packets of one family.
func carriersOf(w wire, is6 bool) []carrier {
	kind, ppp, proto := "\x08\x00", "\x00\x21", byte(4)
	if is6 {
		kind, ppp, proto = "\x86\xdd", "\x00\x57", 41
	}
	link := func(head string) func([]byte) []byte {
		return func(packet []byte) []byte { return ether(head, packet) }
	}
	pppoe := func(head string) func([]byte) []byte {
		return func(packet []byte) []byte {
			length := binary.BigEndian.AppendUint16(nil, uint16(len(packet)+len(ppp)))
			return ether(head+"\x88\x64\x11\x00\x00\x07", length, []byte(ppp), packet)
		}
	}
	over4 := func(proto byte, head string, framed bool) func([]byte) []byte {
		return func(packet []byte) []byte {
			if framed {
				packet = ether(kind, packet)
			}
			return ether("\x08\x00", ipPacket(w.from.v4, w.to.v4, proto, []byte(head), packet))
		}
	}
	over6 := func(proto byte, head string) func([]byte) []byte {
		return func(packet []byte) []byte {
			return ether("\x86\xdd", ipPacket(w.from.v6, w.to.v6, proto, []byte(head), packet))
		}
	}
	udp := func(port uint16, head, tag string) func([]byte) []byte {
		return func(packet []byte) []byte {
			return ether("\x08\x00", ipPacket(w.from.v4, w.to.v4, 17, datagramTo(port, []byte(head), ether(tag+kind, packet))))
		}
	}
	const gre, zeros, vxlan = 47, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x08\x00\x00\x00\x00\x00\x07\x00"
	return []carrier{
		{"VLAN", false, link("\x81\x00\x00\x05" + kind)},
		{"QinQ", false, link("\x88\xa8\x00\x05\x81\x00\x00\x06" + kind)},
		{"MPLS", false, link("\x88\x47\x00\x01\x00\x40\x00\x02\x01\x40")},
		{"PPPoE", false, pppoe("")},
		{"PPPoE in a VLAN", false, pppoe("\x81\x00\x00\x05")},
		{"IP in IPv4", true, over4(proto, "", false)},
		{"IP in IPv6", true, over6(proto, "")},
		{"GRE", true, over4(gre, "\x00\x00"+kind, false)},
		{"GRE with key and sequence", true, over4(gre, "\x30\x00"+kind+zeros[:8], false)},
		{"GRE over IPv6", true, over6(gre, "\x00\x00"+kind)},
		{"Ethernet over GRE", true, over4(gre, "\x00\x00\x65\x58", true)},
		{"ERSPAN II", true, over4(gre, "\x10\x00\x88\xbe"+zeros, true)},
		{"ERSPAN III", true, over4(gre, "\x10\x00\x22\xeb"+zeros+zeros[:4], true)},
		{"VXLAN", true, udp(4789, vxlan, "")},
		{"VLAN in VXLAN", true, udp(4789, vxlan, "\x81\x00\x00\x05")},
		{"Geneve with options", true, udp(6081, "\x02\x00\x65\x58\x00\x00\x07\x00"+zeros[:8], "")},
		{"VXLAN over IPv6", true, func(packet []byte) []byte {
			return ether("\x86\xdd", ipPacket(w.from.v6, w.to.v6, 17, datagramTo(4789, []byte(vxlan), ether(kind, packet))))
		}},
	}
}

// scanOf are the packets of a scan.
func scanOf(from, to netip.Addr) [][]byte {
	packets := make([][]byte, 60)
	for i := range packets {
		packets[i] = ipPacket(from, to, 6, segmentOf(40000, uint16(1000+i), flagSYN, uint32(i), 0, ""))
	}
	return packets
}

// TestCarriedScans: a scan is seen in whatever carries it over the link, and
// in tunnels where that was asked for: alert, block and the kernel's listing.
// The kernel of many a machine lacks the devices, so the frames are made by
// hand.
func TestCarriedScans(t *testing.T) {
	t.Parallel()
	for _, decap := range []bool{false, true} {
		t.Run(fmt.Sprintf("decap %v", decap), func(t *testing.T) {
			t.Parallel()
			f := newFlavour(t, "nft")
			w := newWire(t)
			flags := []string{"--workers", "2"}
			if decap {
				flags = append(flags, "--decap")
			}
			g := startGuard(t, f, w.to.NS, shipped(t), flags...)
			s := w.sender(t)
			expected := []netip.Addr{w.from.v4}
			for family, is6 := range []bool{false, true} {
				for i, c := range carriersOf(w, is6) {
					from, to := netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), netip.MustParseAddr("203.0.113.1")
					if is6 {
						from, to = netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::%d", family, i+1)), netip.MustParseAddr("2001:db8:113::1")
					}
					if decap || !c.tunnel {
						expected = append(expected, from)
					}
					for _, packet := range scanOf(from, to) {
						if err := s.Send(c.wrap(packet)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			// Without anything around it, for the guard has read what came before
			// when it blocks this.
			for _, packet := range scanOf(w.from.v4, w.to.v4) {
				if err := s.Send(ether("\x08\x00", packet)); err != nil {
					t.Fatal(err)
				}
			}
			for _, a := range expected {
				g.action(t, a.String(), "created")
				g.await(t, "alert on "+a.String(), func(e event) bool { return e.Type == "alert" && e.SrcIP == a.String() })
			}
			listing := f.listing(t, w.to.NS, w.to.v4)
			for _, a := range expected {
				line := `[\s{]` + regexp.QuoteMeta(a.String()) + ` .*timeout \S+ expires \S+ comment "NETCAP: ` + scanRule
				if !regexp.MustCompile(line).MatchString(listing) {
					t.Errorf("the kernel does not list %s:\n%s", a, listing)
				}
			}
			g.mustAccuse(t, expected...)
			g.end(t)
		})
	}
}

// TestMutatedCarriers: damaged frames of every kind that the guard looks into
// neither stop nor blind it.
func TestMutatedCarriers(t *testing.T) {
	t.Parallel()
	long := mutateTime(t)
	f := newFlavour(t, "nft")
	w := newWire(t)
	g := startGuard(t, f, w.to.NS, shipped(t), "--workers", "2", "--decap")
	models := damagedModels(w)
	s := w.sender(t)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	sent := 0
	for end := time.Now().Add(long); time.Now().Before(end); {
		frames := make([][]byte, 100)
		for i := range frames {
			b := slices.Clone(models[random.IntN(len(models))])
			for range random.IntN(6) {
				b[12+random.IntN(len(b)-12)] = byte(random.UintN(256))
			}
			frames[i] = b[:14+random.IntN(len(b)-13)]
		}
		if err := s.Send(frames...); err != nil {
			t.Fatal(err)
		}
		sent += len(frames)
	}
	eventually(t, "the scanner is blocked", func() bool {
		scan(t, w.from, w.to.v4)
		return slices.ContainsFunc(g.said(t, "action"), func(e event) bool { return e.Action.IP == w.from.v4.String() })
	})
	mustNotReach(t, "scanner", w.from, w.to.v4)
	if got := g.end(t).Stats.Packets; got < uint64(sent)/2 {
		t.Errorf("%d frames sent, %d read", sent, got)
	}
}

// damagedModels are the whole frames that TestMutatedCarriers damages: what
// each decoder behind the addresses reads, as it is and in every carrier.
func damagedModels(w wire) [][]byte {
	const (
		request = "GET /?q=union+select HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
		hello   = "\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + "01234567890123456789012345678901" + "\x00\x00\x02\x13\x01\x01\x00\x00\x00"
		query   = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\x00\x00\x10\x00\x01"
	)
	var models [][]byte
	for _, is6 := range []bool{false, true} {
		from, to, kind, icmp := netip.MustParseAddr("198.51.100.9"), w.to.v4, "\x08\x00", byte(1)
		if is6 {
			from, to, kind, icmp = netip.MustParseAddr("2001:db8:9::9"), w.to.v6, "\x86\xdd", 58
		}
		packets := [][]byte{ipPacket(from, to, 17, datagramTo(53, []byte(query))), ipPacket(from, to, icmp, make([]byte, 64))}
		for port, data := range map[uint16]string{80: request, 443: hello, 22: "SSH-2.0-a\r\n", 53: "\x00\x21" + query} {
			packets = append(packets, ipPacket(from, to, 6, segmentOf(40000, port, flagACK, 1, 1, data)))
		}
		if is6 { // a fragment header before it
			packets = append(packets, ipPacket(from, to, 44, []byte("\x06\x00\x00\x01\x00\x00\x00\x01"), segmentOf(40000, 80, flagSYN, 1, 0, "")))
		} else {
			fragment := ipPacket(from, to, 6, segmentOf(40000, 80, flagACK, 1, 1, request))
			fragment[6] = 0x20
			packets = append(packets, fragment)
		}
		for _, packet := range packets {
			models = append(models, ether(kind, packet))
			for _, c := range carriersOf(w, is6) {
				models = append(models, c.wrap(packet))
			}
		}
	}
	return models
}
