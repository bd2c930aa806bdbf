package links

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// deadline is how long a test waits for what the kernel tells at once.
const deadline = 20 * time.Second

// ip changes the namespace of this test process, a line a command.
func ip(t *testing.T, script string) {
	t.Helper()
	nstest.Tool(t, "ip")
	cmd := exec.CommandContext(t.Context(), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip: %v\n%s\n%s", err, out, script)
	}
}

// remove takes links away at the end of the test; one may be gone.
func remove(t *testing.T, names ...string) {
	t.Cleanup(func() {
		for _, n := range names {
			_ = exec.Command("ip", "link", "del", n).Run()
		}
	})
}

func attrs(t testing.TB, list ...netlink.Attribute) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func attr(kind uint16, value []byte) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: value}
}

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func be16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

func addr(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

// message is a link number 7 with the attributes.
func message(t testing.TB, kind string, data []netlink.Attribute, more ...netlink.Attribute) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], 7)
	binary.NativeEndian.PutUint32(b[8:], unix.IFF_UP)
	info := attrs(t, attr(unix.IFLA_INFO_KIND, []byte(kind+"\x00")), attr(unix.IFLA_INFO_DATA, attrs(t, data...)))
	more = append([]netlink.Attribute{attr(unix.IFLA_IFNAME, []byte("x0\x00")), attr(unix.IFLA_LINKINFO, info)}, more...)
	return append(b, attrs(t, more...)...)
}

func TestParse(t *testing.T) {
	a := netip.MustParseAddr
	parent := attr(unix.IFLA_LINK, u32(3))
	elsewhere := attr(unix.IFLA_LINK_NETNSID, u32(0))
	ends := []netlink.Attribute{attr(2, addr("192.0.2.1")), attr(3, addr("192.0.2.2"))}
	ipip := Tunnel{Remote: a("192.0.2.2"), Local: a("192.0.2.1"), Protocols: []uint8{4}}
	for _, tt := range []struct {
		name string
		data []byte
		want Link
	}{
		{"port", message(t, "veth", nil, attr(unix.IFLA_MASTER, u32(9))), Link{Kind: "veth", Master: 9}},
		{"VLAN", message(t, "vlan", []netlink.Attribute{attr(1, binary.NativeEndian.AppendUint16(nil, 5)), attr(5, be16(0x88a8))}, parent),
			Link{Kind: "vlan", Parent: 3, VLAN: Tag{0x88a8, 5}}},
		{"VLAN of an old kernel", message(t, "vlan", []netlink.Attribute{attr(1, binary.NativeEndian.AppendUint16(nil, 5))}), Link{Kind: "vlan", VLAN: five}},
		{"parent elsewhere", message(t, "macvlan", nil, parent, elsewhere), Link{Kind: "macvlan"}},
		{"other names", message(t, "", nil, attr(unix.IFLA_PROP_LIST, attrs(t, attr(unix.IFLA_ALT_IFNAME, []byte("uplink\x00"))))),
			Link{Names: []string{"x0", "uplink"}}},
		{"ipip", message(t, "ipip", ends), Link{Kind: "ipip", Tunnel: ipip}},
		{"ipip elsewhere", message(t, "ipip", ends, elsewhere), Link{Kind: "ipip"}},
		{"ipip in UDP", message(t, "ipip", append(slices.Clone(ends), attr(15, binary.NativeEndian.AppendUint16(nil, 1)))), Link{Kind: "ipip"}},
		{"ip6tnl", message(t, "ip6tnl", []netlink.Attribute{attr(2, addr("::")), attr(3, addr("2001:db8::2"))}),
			Link{Kind: "ip6tnl", Tunnel: Tunnel{Remote: a("2001:db8::2"), Protocols: []uint8{4, 41}}}},
		{"gretap", message(t, "gretap", []netlink.Attribute{attr(6, addr("192.0.2.1")), attr(7, addr("192.0.2.2"))}),
			Link{Kind: "gretap", Tunnel: Tunnel{Remote: a("192.0.2.2"), Local: a("192.0.2.1"), Protocols: []uint8{47}}}},
		{"vti", message(t, "vti", []netlink.Attribute{attr(4, addr("0.0.0.0")), attr(5, addr("192.0.2.2"))}),
			Link{Kind: "vti", Tunnel: Tunnel{Remote: a("192.0.2.2"), Protocols: []uint8{50}}}},
		{"geneve", message(t, "geneve", []netlink.Attribute{attr(7, addr("2001:db8::2")), attr(5, be16(6082))}),
			Link{Kind: "geneve", Tunnel: Tunnel{Remote: a("2001:db8::2"), Protocols: []uint8{17}, Port: 6082}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Index, tt.want.Up = 7, true
			if tt.want.Names == nil {
				tt.want.Names = []string{"x0"}
			}
			if got, err := parse(tt.data); err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
	if _, err := parse(make([]byte, unix.SizeofIfInfomsg-1)); !errors.Is(err, errMalformed) {
		t.Errorf("short: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message(f, "vlan", []netlink.Attribute{attr(1, []byte{5, 0})}))
	f.Add(message(f, "vxlan", []netlink.Attribute{attr(2, addr("192.0.2.2")), attr(15, be16(4789))}))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parse(data)
		if err != nil && !errors.Is(err, errMalformed) {
			t.Fatal(err)
		}
		table := Build([]Link{l}, Captured{All: true})
		_ = table.Repeats(l.Index, false, l.VLAN) // it must end
	})
}

// following runs Follow for the rest of the test. What it returns waits until
// the links of now fit.
func following(t *testing.T) (await func(what string, fits func(find func(name string) Link) bool)) {
	t.Helper()
	told, ready, done := make(chan []Link, 100), make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- Follow(ctx, slog.New(slog.DiscardHandler), ready, func(all []Link) { told <- all }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("Follow: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Follow ended with %v", err)
		}
	})
	return func(what string, fits func(func(string) Link) bool) {
		t.Helper()
		give := time.After(deadline)
		var last []Link
		for {
			select {
			case last = <-told:
			case <-give:
				t.Fatalf("%s: not in %+v", what, last)
			}
			if fits(func(name string) Link {
				for _, l := range last {
					if slices.Contains(l.Names, name) {
						return l
					}
				}
				return Link{}
			}) {
				return
			}
		}
	}
}

func TestFollow(t *testing.T) {
	remove(t, "p0", "br0", "mv0", "vx0", "vx6")
	await := following(t)
	type find = func(string) Link
	await("lo is there", func(l find) bool { return l("lo").Up && l("lo").Kind == "" })

	ip(t, "link add br0 type bridge\nlink add p0 type veth peer name p1\nlink set p0 master br0")
	await("a port", func(l find) bool {
		return l("br0").Kind == kindBridge && l("p0").Kind == "veth" && l("p0").Master == l("br0").Index && l("p0").Parent == l("p1").Index
	})
	ip(t, "link set br0 up\nlink property add dev br0 altname lan")
	await("up, with two names", func(l find) bool { return l("lan").Up && l("lan").Names[0] == "br0" })
	ip(t, "link set p0 nomaster")
	await("no port any more", func(l find) bool { return l("p0").Index != 0 && l("p0").Master == 0 })

	ip(t, "link add mv0 link p1 type macvlan mode bridge")
	await("MACVLAN", func(l find) bool { return l("mv0").Kind == kindMACVLAN && l("mv0").Parent == l("p1").Index })
	ip(t, "link add vx0 type vxlan id 7 remote 192.0.2.2 local 192.0.2.1 dstport 4789\nlink add vx6 type vxlan id 8 remote 2001:db8::2 dstport 0")
	await("VXLAN", func(l find) bool {
		four := Tunnel{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1"), []uint8{udp}, 4789}
		six := Tunnel{netip.MustParseAddr("2001:db8::2"), netip.Addr{}, []uint8{udp}, 8472}
		return reflect.DeepEqual(l("vx0").Tunnel, four) && reflect.DeepEqual(l("vx6").Tunnel, six)
	})
	ip(t, "link del br0")
	await("gone", func(l find) bool { return l("br0").Index == 0 && l("p0").Index != 0 })
}
