package conntrack

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// attribute is one attribute with its padding.
func attribute(kind uint16, parts ...[]byte) []byte {
	var value []byte
	for _, p := range parts {
		value = append(value, p...)
	}
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

// tuple is one direction of a connection.
func tuple(kind uint16, src, dst string) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	first := uint16(1)
	if s.Is6() {
		first = 3
	}
	return attribute(kind|1<<15, attribute(tupleIP|1<<15, attribute(first, s.AsSlice()), attribute(first+1, d.AsSlice())),
		attribute(2|1<<15, attribute(1, []byte{6})))
}

func message(family byte, attrs ...[]byte) []byte {
	out := []byte{family, 0, 0, 0}
	for _, a := range attrs {
		out = append(out, a...)
	}
	return out
}

func TestParseAndMatch(t *testing.T) {
	natted := message(2, tuple(attrOrig, "192.0.2.1", "198.51.100.7"), tuple(attrReply, "10.0.0.5", "192.0.2.1"),
		attribute(3, []byte{0, 0, 0, 0x0e}), attribute(attrID, []byte{1, 2, 3, 4}), attribute(attrZone, []byte{0, 9}))
	six := message(10, tuple(attrOrig, "2001:db8::1", "2001:db8::2"), tuple(attrReply, "2001:db8::2", "2001:db8::1"))
	for _, tc := range []struct {
		name, prefix, except string
		data                 []byte
		want, bad            bool
	}{
		{"source", "192.0.2.1/32", "", natted, true, false},
		{"destination", "198.51.100.7/32", "", natted, true, false},
		{"behind NAT", "10.0.0.0/8", "", natted, true, false},
		{"another", "192.0.2.2/32", "", natted, false, false},
		{"everybody", "0.0.0.0/0", "", natted, true, false},
		{"the other family", "::/0", "", natted, false, false},
		{"excepted", "192.0.2.0/24", "192.0.2.1", natted, false, false},
		{"another is excepted", "192.0.2.0/24", "192.0.2.2", natted, true, false},
		{"IPv6", "2001:db8::2/128", "", six, true, false},
		{"IPv6 network", "2001:db8::/32", "", six, true, false},
		{"nothing", "192.0.2.1/32", "", message(2), false, false},
		{"no header", "192.0.2.1/32", "", []byte{2, 0, 0}, false, true},
		{"an address of another length", "192.0.2.1/32", "", message(2, attribute(attrOrig, attribute(tupleIP, attribute(1, []byte{192, 0, 2})))), false, true},
		{"IPv6 where IPv4 belongs", "192.0.2.1/32", "", message(2, attribute(attrOrig, attribute(tupleIP, attribute(1, make([]byte, 16))))), false, true},
		{"an attribute longer than its list", "192.0.2.1/32", "", message(2, []byte{9, 0, 1, 0}), false, true},
		{"half an attribute", "192.0.2.1/32", "", message(2, []byte{9, 0}), false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var e entry
			err := e.parse(tc.data)
			if (err != nil) != tc.bad {
				t.Fatalf("error %v, want one: %v", err, tc.bad)
			}
			m := newMatcher([]netip.Prefix{netip.MustParsePrefix(tc.prefix), netip.MustParsePrefix("203.0.113.0/24")}, func(a netip.Addr) bool {
				return a.String() == tc.except
			})
			if got := m.any(&e); got != tc.want && !tc.bad {
				t.Errorf("matches %v, want %v", got, tc.want)
			}
		})
	}
	var e entry
	if err := e.parse(natted); err != nil || string(e.id) != "\x01\x02\x03\x04" || string(e.zone) != "\x00\x09" || len(e.orig) == 0 || e.family != 2 {
		t.Errorf("%+v, %v", e, err)
	}
}

// FuzzParse: no message makes the parser panic, and what it keeps of one is
// part of it.
func FuzzParse(f *testing.F) {
	f.Add(message(2, tuple(attrOrig, "192.0.2.1", "198.51.100.7"), tuple(attrReply, "10.0.0.5", "192.0.2.1"), attribute(attrID, []byte{1, 2, 3, 4})))
	f.Add([]byte{10, 0, 0, 0, 4, 0})
	m := newMatcher([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		var e entry
		if e.parse(data) != nil {
			return
		}
		ends := 0
		for _, a := range e.ends {
			if a.IsValid() {
				ends++
			}
		}
		if m.any(&e) != (ends > 0) {
			t.Errorf("%d ends, matches all: %v", ends, m.any(&e))
		}
		if len(e.orig)+len(e.id)+len(e.zone) > len(data) {
			t.Errorf("kept more than there was: %+v", e)
		}
	})
}
