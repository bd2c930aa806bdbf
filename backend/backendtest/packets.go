package backendtest

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Proto is what a probe sends.
type Proto uint8

// The probes: one datagram to a port that answers, or one connection to a port
// that listens.
const (
	UDP Proto = iota
	TCP
)

// Outcome is what became of a probe.
type Outcome uint8

// The outcomes.
const (
	// Passed: it arrived.
	Passed Outcome = iota
	// Silent: it did not arrive and nothing came back.
	Silent
	// Unreachable: it did not arrive, and port-unreachable came back.
	Unreachable
	// Reset: it did not arrive, and a TCP reset came back.
	Reset
)

// String is the outcome's name in failure messages.
func (o Outcome) String() string {
	return [...]string{"passed", "silent", "unreachable", "reset"}[o]
}

// The network that a Prober provides: the guard's host with the two Guard
// addresses, and a peer on the same link that can send from and receive at the
// addresses the suite uses. Those of the OnLink networks are neighbours (they
// are resolved by ARP and neighbour discovery), the others lie behind the peer.
const (
	Guard4  = "10.77.0.1"
	Guard6  = "fd77::1"
	OnLink4 = "10.77.0.0/24" // used: .2 to .9
	OnLink6 = "fd77::/64"    // used: ::2 to ::9
	Routed4 = "10.78.0.0/16"
	Routed6 = "fd78::/32"
)

// Prober sends packets between a peer and the guard's host.
type Prober interface {
	// Probe sends one probe and says what became of it. from and to are a
	// peer's address and a guard's address, either way round.
	Probe(t testing.TB, b backend.Backend, p Proto, from, to netip.Addr) Outcome
	// ForgetNeighbours empties the guard's and the peer's neighbour tables.
	ForgetNeighbours(t testing.TB)
	// Resolve reports whether the guard can resolve the link-layer address of
	// an OnLink6 address now.
	Resolve(t testing.TB, neighbour netip.Addr) bool
}

// Probing never waits for an absence alone: behind each probe that is expected
// to vanish goes a marker on the same link from an address that nobody blocks.
const (
	marker4, marker6 = "10.77.0.9", "fd77::9"
	answerLimit      = 5 * time.Second
	// grace is what a probe gets after its marker has arrived: two datagrams
	// can be overtaken only while they are queued on different processors.
	grace = 60 * time.Millisecond
)

// probeRow is one probe of a packet test and what must become of it.
type probeRow struct {
	proto    Proto
	from, to string
	want     Outcome
}

func (r probeRow) send(t *testing.T, p Prober, b backend.Backend) {
	t.Helper()
	got := p.Probe(t, b, r.proto, netip.MustParseAddr(r.from), netip.MustParseAddr(r.to))
	if got != r.want {
		t.Errorf("%s -> %s (%s): %s, want %s", r.from, r.to, [...]string{"UDP", "TCP"}[r.proto], got, r.want)
	}
}

// packetTest is a change, or several, and what packets do afterwards.
type packetTest struct {
	name    string
	changes []backend.Change
	probes  []probeRow
}

// packets: the kernel does with real packets what the listing says.
func packets(t *testing.T, s Suite) {
	if s.Packets == nil {
		return
	}
	p := s.Packets(t)
	for _, test := range packetTests() {
		t.Run(test.name, func(t *testing.T) {
			b := s.start(t)
			for _, c := range test.changes {
				apply(t, b, c)
			}
			for _, row := range test.probes {
				row.send(t, p, b)
			}
			if err := b.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, row := range test.probes {
				row.want = Passed
				row.send(t, p, b)
			}
		})
	}
	t.Run("expiry lets pass again", func(t *testing.T) { expiringPackets(t, s, p) })
	t.Run("nested blocks end on their own", func(t *testing.T) { nestedEnds(t, s, p) })
	t.Run("stopped packets are counted", func(t *testing.T) { counted(t, s, p) })
	t.Run("every address", func(t *testing.T) { everyone(t, s, p) })
	streams(t, s, p)
	limitPackets(t, s, p)
	t.Run("neighbour discovery of a blocked address", func(t *testing.T) { neighbours(t, s, p) })
	t.Run("blocks in force without their instance", func(t *testing.T) { orphans(t, s, p) })
}

func dialer(from netip.Addr, udp bool) net.Dialer {
	if udp {
		return net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	}
	return net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: time.Second}
}
