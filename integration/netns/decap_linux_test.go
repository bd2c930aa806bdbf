package netns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// carriers put a frame or its IPv4 packet into a packet of the sender's, as
// tunnels do.
func carriers(t testing.TB, w wire) map[string]func(frame []byte) []byte {
	t.Helper()
	wrap := func(proto layers.IPProtocol, more ...gopacket.SerializableLayer) []byte {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: w.from.v4.AsSlice(), DstIP: w.to.v4.AsSlice()}
		all := append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1},
			DstMAC: []byte{2, 0, 0, 0, 0, 9}, EthernetType: layers.EthernetTypeIPv4}, ip}, more...)
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, all...); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	return map[string]func([]byte) []byte{
		"VXLAN": func(frame []byte) []byte {
			return wrap(layers.IPProtocolUDP, &layers.UDP{SrcPort: 50000, DstPort: 4789},
				gopacket.Payload("\x08\x00\x00\x00\x00\x00\x07\x00"), gopacket.Payload(frame))
		},
		"Geneve": func(frame []byte) []byte {
			return wrap(layers.IPProtocolUDP, &layers.UDP{SrcPort: 50000, DstPort: 6081},
				gopacket.Payload("\x00\x00\x65\x58\x00\x00\x07\x00"), gopacket.Payload(frame))
		},
		"GRE": func(frame []byte) []byte {
			return wrap(layers.IPProtocolGRE, gopacket.Payload("\x00\x00\x08\x00"), gopacket.Payload(frame[14:]))
		},
		"IP in IP": func(frame []byte) []byte { return wrap(layers.IPProtocolIPv4, gopacket.Payload(frame[14:])) },
		"fragments of GRE": func(frame []byte) []byte { // the first of two; the test sends the other
			return wrap(layers.IPProtocolGRE, gopacket.Payload("\x00\x00\x08\x00"), gopacket.Payload(frame[14:]))
		},
	}
}

// TestForgedTunnels: packets that come out of a tunnel never have the address
// they name blocked, unless the guard was told to look into tunnels; then it
// sees the scan in each of them.
func TestForgedTunnels(t *testing.T) {
	for _, decap := range []bool{false, true} {
		t.Run(fmt.Sprintf("decap %v", decap), func(t *testing.T) {
			t.Parallel()
			f := newFlavour(t, "nft")
			w := newWire(t)
			var flags []string
			if decap {
				flags = []string{"--decap"}
			}
			g := startGuard(t, f, w.to.NS, rules(t, "iptables_block", "duration: 10m"), flags...)
			var named []netip.Addr
			for name, carry := range carriers(t, w) {
				source := netip.AddrFrom4([4]byte{198, 51, 100, byte(len(named) + 1)})
				named = append(named, source)
				var frames [][]byte
				for i := range 60 {
					frame := carry(synFrame(t, source, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), uint32(i)))
					if name == "fragments of GRE" {
						frames = append(frames, inHalves(frame, uint16(i))...)
						continue
					}
					frames = append(frames, frame)
				}
				w.send(t, frames...)
			}
			// A scan that is one, of this host, comes last: the guard has read all
			// that came before when it is blocked.
			for i := range 60 {
				w.send(t, synFrame(t, w.from.v4, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), uint32(i)))
			}
			g.action(t, w.from.v4.String(), "created")
			if decap {
				for _, a := range named {
					g.action(t, a.String(), "created")
					find(t, list(t, f, w.to.NS), a)
				}
			} else if blocks := list(t, f, w.to.NS); len(blocks) != 1 {
				t.Errorf("blocked: %+v", blocks)
			}
			g.end(t)
		})
	}
}

// inHalves cuts an IPv4 packet in a frame into two fragments.
func inHalves(frame []byte, id uint16) [][]byte {
	const head, first = 14 + 20, 24
	cut := func(from, to int, more bool) []byte {
		b := append(append([]byte(nil), frame[:head]...), frame[head+from:head+to]...)
		binary.BigEndian.PutUint16(b[16:], uint16(20+to-from))
		binary.BigEndian.PutUint16(b[18:], id+1)
		word := uint16(from / 8)
		if more {
			word |= 0x2000
		}
		binary.BigEndian.PutUint16(b[20:], word)
		return b
	}
	return [][]byte{cut(0, first, true), cut(first, len(frame)-head, false)}
}
