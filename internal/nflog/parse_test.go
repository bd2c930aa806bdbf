package nflog

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// attribute is one attribute with its padding.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func u16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func join(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// message is a packet message with the attributes.
func message(attrs ...[]byte) []byte { return append([]byte{2, 0, 0, 77}, join(attrs...)...) }

func payload(b []byte) []byte { return message(attribute(attrPayload, b)) }

// v4 is an IPv4 packet of 192.0.2.1 to 198.51.100.7.
func v4(proto byte, fragment uint16, options int, rest ...byte) []byte {
	h := []byte{0x45 + byte(options), 0, 0, 99, 0, 0, byte(fragment >> 8), byte(fragment), 64, proto, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7}
	return append(append(h, make([]byte, 4*options)...), rest...)
}

// v6 is an IPv6 packet of 2001:db8::1 to 2001:db8::2.
func v6(next byte, rest ...byte) []byte {
	h := []byte{0x60, 0, 0, 0, 0, 99, next, 64}
	a, b := netip.MustParseAddr("2001:db8::1").As16(), netip.MustParseAddr("2001:db8::2").As16()
	return append(append(append(h, a[:]...), b[:]...), rest...)
}

func TestParse(t *testing.T) {
	ports := []byte{0x11, 0x5c, 0, 22}
	src4, dst4 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.7")
	src6, dst6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	hop := []byte{60, 0, 0, 0, 0, 0, 0, 0}                         // hop-by-hop, then destination options
	dest := append([]byte{6, 1}, make([]byte, 14)...)              // 16 bytes, then TCP
	first := []byte{17, 0, 0, 1, 0, 0, 0, 9}                       // first fragment of UDP
	later := []byte{17, 0, 0, 9, 0, 0, 0, 9}                       // a later one
	auth := append([]byte{6, 1}, make([]byte, 10)...)              // 12 bytes, then TCP
	chain := strings.Repeat("\x00\x00\x00\x00\x00\x00\x00\x00", 9) // hop-by-hop without end
	for _, tc := range []struct {
		name string
		data []byte
		want Packet
		bad  bool
	}{
		{"nothing but a header", message(), Packet{}, false},
		{"everything", message(
			attribute(attrPacketHeader, []byte{8, 0, 3, 0}), attribute(attrMark, u32(0xcafe)),
			attribute(attrTimestamp, join(u64(1700000000), u64(123456))), attribute(attrInDev, u32(3)), attribute(attrOutDev, u32(4)),
			attribute(11, u32(1000)), attribute(attrPrefix, []byte("SSH: \x00")), attribute(attrSequence, u32(7)),
			attribute(attrPayload, v4(6, 0, 0, ports...)),
		), Packet{
			Time: time.Unix(1700000000, 123456000).UTC(), Prefix: "SSH: ", Hook: 3, InDev: 3, OutDev: 4, Mark: 0xcafe,
			Src: src4, Dst: dst4, Proto: 6, SrcPort: 4444, DstPort: 22, sequence: 7, hasSequence: true,
		}, false},
		{"options", payload(v4(17, 0, 2, ports...)), Packet{Src: src4, Dst: dst4, Proto: 17, SrcPort: 4444, DstPort: 22}, false},
		{"first fragment", payload(v4(17, 0x2000, 0, ports...)), Packet{Src: src4, Dst: dst4, Proto: 17, SrcPort: 4444, DstPort: 22}, false},
		{"later fragment", payload(v4(17, 185, 0, ports...)), Packet{Src: src4, Dst: dst4, Proto: 17}, false},
		{"ICMP", payload(v4(1, 0, 0, ports...)), Packet{Src: src4, Dst: dst4, Proto: 1}, false},
		{"ports cut off", payload(v4(6, 0, 0, 1, 2, 3)), Packet{Src: src4, Dst: dst4, Proto: 6}, false},
		{"options cut off", payload(v4(6, 0, 0)[:20]), Packet{Src: src4, Dst: dst4, Proto: 6}, false},
		{"header cut off", payload(v4(6, 0, 0)[:19]), Packet{}, false},
		{"a header too short for itself", payload(append([]byte{0x41}, v4(6, 0, 0, ports...)[1:]...)), Packet{Src: src4, Dst: dst4, Proto: 6}, false},
		{"IPv6", payload(v6(6, ports...)), Packet{Src: src6, Dst: dst6, Proto: 6, SrcPort: 4444, DstPort: 22}, false},
		{"IPv6 extensions", payload(v6(0, join(hop, dest, ports)...)), Packet{Src: src6, Dst: dst6, Proto: 6, SrcPort: 4444, DstPort: 22}, false},
		{"IPv6 authentication", payload(v6(51, join(auth, ports)...)), Packet{Src: src6, Dst: dst6, Proto: 6, SrcPort: 4444, DstPort: 22}, false},
		{"IPv6 first fragment", payload(v6(44, join(first, ports)...)), Packet{Src: src6, Dst: dst6, Proto: 17, SrcPort: 4444, DstPort: 22}, false},
		{"IPv6 later fragment", payload(v6(44, join(later, ports)...)), Packet{Src: src6, Dst: dst6, Proto: 17}, false},
		{"IPv6 extensions without end", payload(v6(0, []byte(chain)...)), Packet{Src: src6, Dst: dst6}, false},
		{"IPv6 extension cut off", payload(v6(0, hop[:7]...)), Packet{Src: src6, Dst: dst6}, false},
		{"IPv6 header cut off", payload(v6(6)[:39]), Packet{}, false},
		{"ARP", payload([]byte{0, 1, 8, 0}), Packet{}, false},
		{"an empty payload", payload(nil), Packet{}, false},
		{"a clock that cannot be", message(attribute(attrTimestamp, join(u64(1<<63), u64(5)))), Packet{}, false},
		{"no header", []byte{2, 0, 0}, Packet{}, true},
		{"half an attribute", append(message(), 8, 0, 1), Packet{}, true},
		{"an attribute shorter than its header", append(message(), 3, 0, 1, 0), Packet{}, true},
		{"an attribute longer than the message", append(message(), 9, 0, 1, 0, 5, 5, 5, 5), Packet{}, true},
		{"a short timestamp", message(attribute(attrTimestamp, u64(1))), Packet{}, true},
		{"a short hook", message(attribute(attrPacketHeader, u16(1))), Packet{}, true},
		{"a prefix without end", message(attribute(attrPrefix, make([]byte, 0))), Packet{}, false},
		{"a prefix longer than any", message(attribute(attrPrefix, []byte(strings.Repeat("x", maxPrefix+1)))), Packet{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := Packet{Prefix: "of before"}
			err := p.parse(tc.data)
			if (err != nil) != tc.bad {
				t.Fatalf("error %v, want one: %v", err, tc.bad)
			}
			if tc.bad {
				return
			}
			if diff := cmp.Diff(tc.want, p, cmp.AllowUnexported(Packet{}), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzParse: no message makes the parser panic or keep more than it may, and
// what it says of addresses is what the payload holds.
func FuzzParse(f *testing.F) {
	f.Add(message(attribute(attrPrefix, []byte("X\x00")), attribute(attrPayload, v4(6, 0, 1, 1, 2, 3, 4))))
	f.Add(payload(v6(0, 43, 0, 0, 0, 0, 0, 0, 0)))
	f.Add([]byte{2, 0, 0, 77, 4, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		before := string(data)
		var p, again Packet
		err := p.parse(data)
		if string(data) != before {
			t.Error("the message was changed")
		}
		if err != nil {
			return
		}
		if len(p.Prefix) > maxPrefix || strings.ContainsRune(p.Prefix, 0) {
			t.Errorf("prefix %q", p.Prefix)
		}
		if p.Src.IsValid() != p.Dst.IsValid() || p.Src.Is4() != p.Dst.Is4() {
			t.Errorf("source %v, destination %v", p.Src, p.Dst)
		}
		clear(data)
		if again = p; again != p {
			t.Error("the packet lives in the message")
		}
		if err := again.parse([]byte(before)); err != nil || again != p {
			t.Errorf("a second reading gives %+v (%v), the first %+v", again, err, p)
		}
	})
}
