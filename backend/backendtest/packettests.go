package backendtest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// The peer's addresses in packet tests. Each test blocks the attacker; the
// bystander must never notice.
const (
	attacker4  = "10.77.0.2"
	attacker6  = "fd77::2"
	bystander4 = "10.77.0.3"
	bystander6 = "fd77::3"
)

// family is what a packet test needs to know of an address family.
type family struct {
	guard, attacker, bystander string
	// wide covers inside, nested and hole; outside is beside it.
	wide, narrow           string
	inside, nested, hole   string
	outside, holeNetwork   string
	holeNeighbour, narrow2 string
}

func families() []family {
	return []family{
		{
			guard: Guard4, attacker: attacker4, bystander: bystander4,
			wide: "10.78.8.0/21", narrow: "10.78.9.0/24", narrow2: "10.78.9.64/26",
			inside: "10.78.8.1", nested: "10.78.9.1", outside: "10.78.16.1",
			hole: "10.78.10.7", holeNetwork: "10.78.10.0/29", holeNeighbour: "10.78.10.8",
		},
		{
			guard: Guard6, attacker: attacker6, bystander: bystander6,
			wide: "fd78:0:8::/45", narrow: "fd78:0:9::/48", narrow2: "fd78:0:9:40::/58",
			inside: "fd78:0:8::1", nested: "fd78:0:9::1", outside: "fd78:0:10::1",
			hole: "fd78:0:a::7", holeNetwork: "fd78:0:a::/125", holeNeighbour: "fd78:0:a::8",
		},
	}
}

func packetTests() []packetTest {
	var tests []packetTest
	for i, f := range families() {
		name := [...]string{" v4", " v6"}[i]
		for _, test := range append(f.tests(), f.edgeTests()...) {
			test.name += name
			tests = append(tests, test)
		}
	}
	return tests
}

func (f family) tests() []packetTest {
	attacker, wide := block(f.attacker), block(f.wide)
	change := func(c ...backend.Change) []backend.Change { return c }
	return []packetTest{
		{"drop source", change(add(attacker)), []probeRow{
			{UDP, f.attacker, f.guard, Silent}, {TCP, f.attacker, f.guard, Silent},
			{UDP, f.bystander, f.guard, Passed}, {TCP, f.bystander, f.guard, Passed},
		}},
		{"drop destination", change(add(towards(attacker))), []probeRow{
			{UDP, f.guard, f.attacker, Silent}, {UDP, f.guard, f.bystander, Passed},
			{UDP, f.attacker, f.guard, Passed},
		}},
		{"source block lets the guard send", change(add(attacker)), []probeRow{{UDP, f.guard, f.attacker, Passed}}},
		{"reject", change(add(acting(attacker, backend.Reject))), []probeRow{
			{UDP, f.attacker, f.guard, Unreachable}, {TCP, f.attacker, f.guard, Unreachable}, {UDP, f.bystander, f.guard, Passed},
		}},
		{"reject with reset", change(add(acting(attacker, backend.RejectReset))), []probeRow{
			{UDP, f.attacker, f.guard, Unreachable}, {TCP, f.attacker, f.guard, Reset}, {TCP, f.bystander, f.guard, Passed},
		}},
		{"prefix", change(add(wide)), []probeRow{
			{UDP, f.inside, f.guard, Silent}, {UDP, f.nested, f.guard, Silent}, {UDP, f.outside, f.guard, Passed},
		}},
		{"nested prefixes, the wide one removed", change(add(wide, block(f.narrow), block(f.narrow2)), remove(wide)), []probeRow{
			{UDP, f.inside, f.guard, Passed}, {UDP, f.nested, f.guard, Silent},
		}},
		{"nested prefixes, the narrow one removed", change(add(wide, block(f.narrow)), remove(block(f.narrow))), []probeRow{
			{UDP, f.inside, f.guard, Silent}, {UDP, f.nested, f.guard, Silent},
		}},
		{"allowed address in a blocked prefix", change(allow(f.hole+hostBits(f.hole)), add(wide)), []probeRow{
			{UDP, f.hole, f.guard, Passed}, {UDP, f.holeNeighbour, f.guard, Silent}, {UDP, f.inside, f.guard, Silent},
		}},
		{"allowed prefix after the block", change(add(wide), allow(f.holeNetwork)), []probeRow{
			{UDP, f.hole, f.guard, Passed}, {UDP, f.holeNeighbour, f.guard, Silent},
		}},
		{"allow replaced", change(add(wide), allow(f.holeNetwork), allow(f.inside+hostBits(f.inside))), []probeRow{
			{UDP, f.hole, f.guard, Silent}, {UDP, f.inside, f.guard, Passed},
		}},
		{"allow withdrawn", change(add(wide), allow(f.holeNetwork), allow()), []probeRow{{UDP, f.hole, f.guard, Silent}}},
		{"allowed source does not excuse the destination", change(allow(f.guard+hostBits(f.guard)), add(towards(attacker))), []probeRow{
			{UDP, f.guard, f.attacker, Silent},
		}},
		{"allowed destination", change(allow(f.hole+hostBits(f.hole)), add(towards(wide), wide)), []probeRow{
			{UDP, f.guard, f.hole, Passed}, {UDP, f.guard, f.inside, Silent}, {UDP, f.inside, f.guard, Silent},
		}},
		{"allowed destination does not excuse the source", change(allow(f.guard+hostBits(f.guard)), add(attacker)), []probeRow{
			{UDP, f.attacker, f.guard, Silent},
		}},
		{"action changed", change(add(attacker), backend.Change{
			Remove: []backend.Block{attacker}, Add: []backend.Block{acting(attacker, backend.Reject)},
		}), []probeRow{{UDP, f.attacker, f.guard, Unreachable}}},
		{"removed", change(add(attacker), remove(attacker)), []probeRow{{UDP, f.attacker, f.guard, Passed}}},
	}
}

// hostBits is the prefix length of a single address, as text.
func hostBits(addr string) string {
	if netip.MustParseAddr(addr).Is4() {
		return "/32"
	}
	return "/128"
}

// expiringPackets: the attacker is out until the end and in again soon after.
func expiringPackets(t *testing.T, s Suite, p Prober) {
	for _, f := range families() {
		b := s.start(t)
		short := lasting(block(f.attacker), 2*time.Second)
		apply(t, b, add(short))
		probeRow{UDP, f.attacker, f.guard, Silent}.send(t, p, b)
		s.passesAgain(t, p, b, f, f.attacker, short)
		closeIt(t, b)
	}
}

// neighbours: a blocked IPv6 neighbour can still be resolved, and resolve us,
// or the innocent behind the same router would be cut off.
func neighbours(t *testing.T, s Suite, p Prober) {
	for _, c := range []backend.Change{
		add(block(attacker6)), add(towards(block(attacker6))),
		add(block("fd77::/64"), towards(block("fd77::/64"))),
		// Solicitations are sent to ff02::1:ff00:0/104, and answered from the
		// target's own address.
		add(block("fe80::/10"), towards(block("fe80::/10")), towards(block("ff02::/16"))),
	} {
		b := s.start(t)
		apply(t, b, c)
		p.ForgetNeighbours(t)
		resolved := p.Resolve(t, netip.MustParseAddr(attacker6))
		if !resolved {
			t.Errorf("the blocked neighbour %s was not resolved with\n%s", attacker6, c)
		}
		closeIt(t, b)
	}
}

// orphans: what a detached instance left stops packets until its end.
func orphans(t *testing.T, s Suite, p Prober) {
	if !s.Persistent {
		return
	}
	first := s.New(t)
	if err := first.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	apply(t, first, add(block(attacker4), block(attacker6)))
	detach(t, first)
	stopped := []probeRow{{UDP, attacker4, Guard4, Silent}, {UDP, attacker6, Guard6, Silent}}
	for _, row := range stopped {
		row.send(t, p, first)
	}
	second := s.start(t)
	for _, row := range stopped {
		row.send(t, p, second)
	}
	closeIt(t, second)
	for _, row := range stopped {
		row.want = Passed
		row.send(t, p, second)
	}
}
