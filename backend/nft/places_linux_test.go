package nft_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// TestPlaces: in whatever order kinds of blocks are first seen, their rules and
// the gates come to stand as a table made at once has them.
func TestPlaces(t *testing.T) {
	nstest.Tool(t, "nft")
	chains := func() string {
		_, rest, _ := strings.Cut(ruleset(t), "\tchain source")
		source, _, _ := strings.Cut(rest, "\tchain prerouting")
		return source
	}
	all := everything(t).Add
	b := start(t, nft.Config{})
	apply(t, b, backend.Change{Add: all})
	want := chains()
	for range 10 {
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for part := range slices.Chunk(all, 1+rand.IntN(3)) {
			apply(t, b, backend.Change{Add: part})
		}
		if got := chains(); got != want {
			t.Fatalf("in the order %v:\n%s\nwant\n%s", all, got, want)
		}
	}
}

// older is a table as it was made before gates were: an allow look-up first in
// every chain.
const older = `table inet NETCAP {
	counter count_drop4 { packets 7 bytes 700; }
	set allow4 { type ipv4_addr; flags interval; elements = { 192.0.2.53 }; }
	set allow6 { type ipv6_addr; flags interval; }
	set drop_src4_32 { type ipv4_addr; size 1000000; flags timeout; counter;
		elements = { 192.0.2.1 counter packets 3 bytes 180 timeout 1h comment "NETCAP: r; x; @1700000000000", 192.0.2.2 } }
	set drop_src4_24 { type ipv4_addr; size 1000000; flags timeout; counter; elements = { 198.51.100.0 } }
	chain source {
		ip saddr @allow4 return
		ip6 saddr @allow6 return
		ip saddr @drop_src4_32 counter name "count_drop4" drop
		ip saddr & 255.255.255.0 == @drop_src4_24 counter name "count_drop4" drop
	}
	chain destination {
		ip daddr @allow4 return
		ip6 daddr @allow6 return
	}
	chain prerouting { type filter hook prerouting priority raw - 10; policy accept; jump source; jump destination; }
	chain output { type filter hook output priority raw - 10; policy accept; jump source; jump destination; }
}
`

// TestOlderStructure: what an older version left is put right at the start, and
// keeps blocks, counts and allowed addresses.
func TestOlderStructure(t *testing.T) {
	nstest.Tool(t, "nft")
	load(t, older)
	b := start(t, nft.Config{Counters: true})
	got := list(t, b)
	if len(got) != 3 || got[0].Prefix != netip.MustParsePrefix("192.0.2.1/32") || got[0].Rule != "r" || got[0].Permanent() || !got[1].Permanent() {
		t.Errorf("listed %v", got)
	}
	status, err := b.Lookup(t.Context(), []backend.Key{got[0].Key})
	if err != nil || status[0].Packets != 3 || dropped(t, b, backend.Drop, false) != 7 {
		t.Errorf("counts are not kept: %+v, %v", status, err)
	}
	listing := ruleset(t)
	for _, want := range []string{"{ 192.0.2.53 }", "@drop_src4_32 ip saddr != @allow4", "ip saddr @allow4 return"} {
		if !strings.Contains(listing, want) {
			t.Errorf("%q is missing:\n%s", want, listing)
		}
	}
}

// TestAllowedAndBlocked: an allowed address passes whatever else is blocked,
// limited or logged around it, and inside prefixes the counts are those of the
// others alone.
func TestAllowedAndBlocked(t *testing.T) {
	nstest.Tool(t, "nft")
	const packets = 20
	peer, _ := network(t)
	b := start(t, nft.Config{Counters: true})
	for name, f := range map[string]struct{ good, bad, guard, wide string }{
		"IPv4": {attacker, "10.77.0.3", backendtest.Guard4, "10.77.0.0/24"},
		"IPv6": {attacker6, "fd77::3", backendtest.Guard6, "fd77::/64"},
	} {
		t.Run(name, func(t *testing.T) {
			allow := netipPrefixes(backend.Host(mustAddr(f.good)).String())
			for _, one := range []backend.Block{
				block(t, f.good, backend.Drop), limited(block(t, f.good, backend.RateLimit), "1/day", 1), logged(block(t, f.wide, backend.Log), "x"),
				block(t, f.wide, backend.Drop), limited(block(t, f.wide, backend.RateLimit), "1/day", 1),
			} {
				apply(t, b, backend.Change{Allow: &allow, Add: []backend.Block{one}})
				arrived := flood(t, peer, f.good, f.guard, packets, packets)
				if arrived != packets {
					t.Errorf("%s: %d of %d packets of the allowed address passed", one, arrived, packets)
				}
				hosts := one.Prefix == backend.Host(mustAddr(f.good))
				if !hosts && one.Action != backend.RateLimit {
					if got := counted(t, b, one.Key); got != 0 {
						t.Errorf("%s: counts %d packets of the allowed address", one, got)
					}
				}
				want := map[backend.Action]int{backend.Drop: 0, backend.RateLimit: 1, backend.Log: packets}[one.Action]
				if hosts {
					want = packets
				}
				passed := flood(t, peer, f.bad, f.guard, packets, want)
				if passed != want {
					t.Errorf("%s: %d of %d packets of the neighbour passed, want %d", one, passed, packets, want)
				}
				apply(t, b, backend.Change{Remove: []backend.Block{one}})
			}
		})
	}
}

func counted(t *testing.T, b *nft.Backend, key backend.Key) uint64 {
	t.Helper()
	status, err := b.Lookup(t.Context(), []backend.Key{key})
	if err != nil || !status[0].Found || !status[0].HasPackets {
		t.Fatalf("lookup %s: %+v, %v", key, status, err)
	}
	return status[0].Packets
}

// flood sends packets from the peer and returns how many came. It waits long
// for as many as are wanted, and not long for more.
func flood(t *testing.T, peer *netlab.NS, from, to string, packets, want int) int {
	t.Helper()
	in, err := net.ListenPacket("udp", net.JoinHostPort(to, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	err = peer.Do(func() error {
		out, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(mustAddr(from), 0)), in.LocalAddr().(*net.UDPAddr))
		if err != nil {
			return err
		}
		defer func() { _ = out.Close() }()
		for range packets {
			if _, err := out.Write([]byte("x")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1)
	for n := 0; ; n++ {
		limit := 5 * time.Second
		if n >= want {
			limit = 50 * time.Millisecond
		}
		if err := in.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := in.ReadFrom(buf); err != nil {
			return n
		}
	}
}
