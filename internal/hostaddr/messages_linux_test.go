package hostaddr

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// pack is a message body: a header that begins with the given bytes, and
// attributes.
func pack(t testing.TB, size int, header []byte, attrs ...netlink.Attribute) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(slices.Clone(header), make([]byte, size-len(header))...), b...)
}

func attr(kind uint16, value []byte) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: value}
}

func addr(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

// path is a struct rtnexthop with its attributes.
func path(t testing.TB, attrs ...netlink.Attribute) []byte {
	b := pack(t, unix.SizeofRtNexthop, nil, attrs...)
	binary.NativeEndian.PutUint16(b, uint16(len(b)))
	return b
}

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func routes(t testing.TB) map[string][]byte {
	route := func(family, length, kind byte, attrs ...netlink.Attribute) []byte {
		return pack(t, unix.SizeofRtMsg, []byte{family, length, 0, 0, unix.RT_TABLE_MAIN, 0, 0, kind}, attrs...)
	}
	const v4, v6, unicast = unix.AF_INET, unix.AF_INET6, unix.RTN_UNICAST
	via6 := append(binary.NativeEndian.AppendUint16(nil, v6), addr("fe80::9")...)
	two := slices.Concat(path(t, attr(unix.RTA_GATEWAY, addr("192.0.2.5"))), path(t, attr(unix.RTA_VIA, via6)), path(t))
	return map[string][]byte{
		"plain: 192.0.2.1":                             route(v4, 0, unicast, attr(unix.RTA_OIF, number(2)), attr(unix.RTA_GATEWAY, addr("192.0.2.1"))),
		"IPv6: 2001:db8::1":                            route(v6, 0, unicast, attr(unix.RTA_GATEWAY, addr("2001:db8::1"))),
		"IPv4 over IPv6: fe80::9":                      route(v4, 0, unicast, attr(unix.RTA_VIA, via6)),
		"two paths and one on link: 192.0.2.5 fe80::9": route(v4, 0, unicast, attr(unix.RTA_MULTIPATH|netlink.Nested, two)),
		"object: #7":                                   route(v4, 0, unicast, attr(rtaNexthopID, number(7))),
		"object, spelt out as well: 192.0.2.7":         route(v4, 0, unicast, attr(rtaNexthopID, number(7)), attr(unix.RTA_GATEWAY, addr("192.0.2.7"))),
		"unspecified gateway:":                         route(v6, 0, unicast, attr(unix.RTA_GATEWAY, addr("::"))),
		"on link:":                                     route(v4, 0, unicast, attr(unix.RTA_OIF, number(2))),
		"no default route:":                            route(v4, 24, unicast, attr(unix.RTA_GATEWAY, addr("192.0.2.1"))),
		"unreachable:":                                 route(v6, 0, unix.RTN_UNREACHABLE, attr(unix.RTA_GATEWAY, addr("2001:db8::1"))),
		"another family:":                              route(unix.AF_MPLS, 0, unicast, attr(unix.RTA_GATEWAY, addr("192.0.2.1"))),
		"short: !":                                     {v4, 0, 0},
		"gateway of 3 bytes: !":                        route(v4, 0, unicast, attr(unix.RTA_GATEWAY, []byte{1, 2, 3})),
		"via of one byte: !":                           route(v4, 0, unicast, attr(unix.RTA_VIA, []byte{1})),
		"attribute cut short: !":                       route(v4, 0, unicast, attr(unix.RTA_GATEWAY, addr("192.0.2.1")))[:unix.SizeofRtMsg+6],
		"good path, then garbage: 192.0.2.5 !":         route(v4, 0, unicast, attr(unix.RTA_MULTIPATH, append(path(t, attr(unix.RTA_GATEWAY, addr("192.0.2.5"))), 4, 0, 0, 0, 0, 0, 0, 0))),
	}
}

func TestParseDefaultRoute(t *testing.T) {
	for name, b := range routes(t) {
		name, want, _ := strings.Cut(name, ":")
		t.Run(name, func(t *testing.T) {
			hops, err := parseDefaultRoute(b)
			var got []string
			for _, h := range hops {
				if h.via.IsValid() {
					got = append(got, h.via.String())
				} else {
					got = append(got, fmt.Sprintf("#%d", h.object))
				}
			}
			if err != nil {
				got = append(got, "!")
			}
			if strings.Join(got, " ") != strings.TrimSpace(want) {
				t.Errorf("got %q, want %q (%v)", got, want, err)
			}
		})
	}
}

func addresses(t testing.TB) map[string][]byte {
	msg := func(family, bits byte, attrs ...netlink.Attribute) []byte {
		return pack(t, unix.SizeofIfAddrmsg, []byte{family, bits}, attrs...)
	}
	return map[string][]byte{
		"IPv4; 192.0.2.1/32 own address,192.0.2.255/32 broadcast": msg(unix.AF_INET, 24,
			attr(unix.IFA_ADDRESS, addr("192.0.2.1")), attr(unix.IFA_LOCAL, addr("192.0.2.1")), attr(unix.IFA_BROADCAST, addr("192.0.2.255"))),
		"IPv6; 2001:db8::1/128 own address": msg(unix.AF_INET6, 64, attr(unix.IFA_ADDRESS, addr("2001:db8::1"))),
		"peer; 192.0.2.1/32 own address,198.51.100.3/32 broadcast": msg(unix.AF_INET, 30,
			attr(unix.IFA_ADDRESS, addr("198.51.100.2")), attr(unix.IFA_LOCAL, addr("192.0.2.1"))),
		"prefix length of nonsense; 192.0.2.1/32 own address": msg(unix.AF_INET, 200, attr(unix.IFA_LOCAL, addr("192.0.2.1")), attr(unix.IFA_ADDRESS, addr("192.0.2.1"))),
		"another family;":       msg(unix.AF_PHONET, 0, attr(unix.IFA_LOCAL, []byte{1})),
		"no address; !":         msg(unix.AF_INET, 24),
		"short; !":              {unix.AF_INET},
		"address of 3 bytes; !": msg(unix.AF_INET, 24, attr(unix.IFA_LOCAL, []byte{1, 2, 3})),
	}
}

func TestParseAddress(t *testing.T) {
	for name, b := range addresses(t) {
		name, want, _ := strings.Cut(name, ";")
		t.Run(name, func(t *testing.T) {
			es, err := parseAddress(b)
			got := strings.Join(prefixes(sorted(es)), ",")
			if err != nil {
				got += "!"
			}
			if got != strings.TrimSpace(want) {
				t.Errorf("got %q, want %q (%v)", got, want, err)
			}
		})
	}
}

// FuzzMessages: whatever the bytes, no panic, and nothing but whole addresses.
func FuzzMessages(f *testing.F) {
	for _, b := range routes(f) {
		f.Add(b)
	}
	for _, b := range addresses(f) {
		f.Add(b)
	}
	f.Add(pack(f, sizeofNhmsg, []byte{unix.AF_INET}, attr(unix.NHA_ID, number(1)), attr(unix.NHA_GROUP, make([]byte, 17)), attr(unix.NHA_GATEWAY, addr("192.0.2.1"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		hops, _ := parseDefaultRoute(b)
		for _, h := range hops {
			if !h.via.IsValid() == (h.object == 0) || h.via.IsValid() && h.via.IsUnspecified() {
				t.Errorf("hop %+v", h)
			}
		}
		es, err := parseAddress(b)
		for _, e := range es {
			if !e.Prefix.IsValid() || !e.Prefix.IsSingleIP() || e.Prefix.Addr().Zone() != "" {
				t.Errorf("entry %+v", e)
			}
		}
		if len(es) == 0 && err == nil && len(b) >= unix.SizeofIfAddrmsg && (b[0] == unix.AF_INET || b[0] == unix.AF_INET6) {
			t.Errorf("%x names no address, and that is no error", b)
		}
		if objects, _ := parseNexthop(b); len(objects) > 1 {
			t.Errorf("%d objects in one message", len(objects))
		}
	})
}
