package backendtest

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// edge is a prefix with the addresses at its borders.
type edge struct {
	prefix                             string
	before, first, middle, last, after string
}

// edges are prefixes of lengths that end inside an octet or a word, and on
// one.
func (f family) edges() []edge {
	if f.guard == Guard4 {
		return []edge{
			{"10.78.8.0/21", "10.78.7.255", "10.78.8.0", "10.78.12.77", "10.78.15.255", "10.78.16.0"},
			{"10.78.20.64/27", "10.78.20.63", "10.78.20.64", "10.78.20.80", "10.78.20.95", "10.78.20.96"},
			{"10.78.23.6/31", "10.78.23.5", "10.78.23.6", "10.78.23.7", "10.78.23.7", "10.78.23.8"},
		}
	}
	const ones = ":ffff:ffff:ffff:ffff"
	return []edge{
		{"fd78:0:8::/45", "fd78:0:7:ffff" + ones, "fd78:0:8::", "fd78:0:c::77", "fd78:0:f:ffff" + ones, "fd78:0:10::"},
		{"fd78:0:20:40::/59", "fd78:0:20:3f" + ones, "fd78:0:20:40::", "fd78:0:20:50::1", "fd78:0:20:5f" + ones, "fd78:0:20:60::"},
		{"fd78:0:23::6/127", "fd78:0:23::5", "fd78:0:23::6", "fd78:0:23::7", "fd78:0:23::7", "fd78:0:23::8"},
	}
}

// edgeTests: a block stops its first and its last address and what lies
// between, and nothing beside.
func (f family) edgeTests() []packetTest {
	var all []backend.Block
	var from, to []probeRow
	for _, e := range f.edges() {
		all = append(all, block(e.prefix))
		for addr, want := range map[string]Outcome{e.before: Passed, e.first: Silent, e.middle: Silent, e.last: Silent, e.after: Passed} {
			if stopped := slices.ContainsFunc(f.edges(), func(o edge) bool {
				return netip.MustParsePrefix(o.prefix).Contains(netip.MustParseAddr(addr))
			}); stopped {
				want = Silent // the neighbour of one is inside another
			}
			from, to = append(from, probeRow{UDP, addr, f.guard, want}), append(to, probeRow{UDP, f.guard, addr, want})
		}
	}
	down := make([]backend.Block, 0, len(all))
	for _, one := range all {
		down = append(down, towards(one))
	}
	return []packetTest{
		{"edges of source blocks", []backend.Change{add(all...)}, from},
		{"edges of destination blocks", []backend.Change{add(down...)}, to},
		{"edges of a hole", []backend.Change{allow(f.holeNetwork), add(block(f.wide))}, f.holeRows()},
	}
}

// holeRows: the hole is the first eight addresses of a /24 or /48 in wide.
func (f family) holeRows() []probeRow {
	before, first, last, after := "10.78.9.255", "10.78.10.0", "10.78.10.7", "10.78.10.8"
	if f.guard != Guard4 {
		before, first, last, after = "fd78:0:9:ffff:ffff:ffff:ffff:ffff", "fd78:0:a::", "fd78:0:a::7", "fd78:0:a::8"
	}
	return []probeRow{
		{UDP, before, f.guard, Silent}, {UDP, first, f.guard, Passed}, {UDP, last, f.guard, Passed}, {UDP, after, f.guard, Silent},
	}
}

// everyone: a block of every address of a family stops all but the allowed,
// and nobody of the other family.
func everyone(t *testing.T, s Suite, p Prober) {
	if !s.watcher {
		return
	}
	for i, f := range families() {
		all, other := [...]string{"0.0.0.0/0", "::/0"}[i], families()[1-i]
		// The guard's own addresses and the marker's are allowed, as a Manager
		// and a test need it.
		holes := []string{f.guard + hostBits(f.guard), f.holeNetwork, f.bystander + hostBits(f.bystander)}
		marker := [...]string{marker4, marker6}[i]
		holes = append(holes, marker+hostBits(marker))
		for _, c := range []struct {
			name  string
			block backend.Block
			rows  []probeRow
		}{
			{"source", block(all), []probeRow{
				{UDP, f.attacker, f.guard, Silent}, {TCP, f.attacker, f.guard, Silent}, {UDP, f.inside, f.guard, Silent},
				{UDP, f.holeNeighbour, f.guard, Silent}, {UDP, f.hole, f.guard, Passed}, {UDP, f.bystander, f.guard, Passed},
				{UDP, other.attacker, other.guard, Passed}, {UDP, f.guard, f.attacker, Passed},
			}},
			{"destination", towards(block(all)), []probeRow{
				{UDP, f.guard, f.attacker, Silent}, {UDP, f.guard, f.inside, Silent}, {UDP, f.guard, f.hole, Passed},
				{UDP, f.attacker, f.guard, Passed}, {UDP, other.guard, other.attacker, Passed},
			}},
		} {
			t.Run(c.name+" "+all, func(t *testing.T) {
				b := s.start(t)
				apply(t, b, allow(holes...))
				apply(t, b, add(c.block))
				s.wantList(t, b, c.block)
				s.wantStatus(t, b, c.block.Key, &c.block)
				for _, row := range c.rows {
					row.send(t, p, b)
				}
				apply(t, b, remove(c.block))
				for _, row := range c.rows {
					row.want = Passed
					row.send(t, p, b)
				}
			})
		}
	}
}

// counted: a backend that counts packets counts those that it stops, and no
// others.
func counted(t *testing.T, s Suite, p Prober) {
	if !s.watcher {
		return
	}
	for _, f := range families() {
		b := s.start(t)
		hit, spared := block(f.attacker), block(f.wide)
		apply(t, b, add(hit, spared))
		for range 3 {
			probeRow{UDP, f.attacker, f.guard, Silent}.send(t, p, b)
			probeRow{UDP, f.bystander, f.guard, Passed}.send(t, p, b)
		}
		got, err := s.looker(t, b).Lookup(t.Context(), []backend.Key{hit.Key, spared.Key})
		if err != nil {
			t.Fatal(err)
		}
		if got[0].HasPackets && (got[0].Packets != 3 || got[1].Packets != 0) {
			t.Errorf("counted %d and %d packets, want 3 and 0", got[0].Packets, got[1].Packets)
		}
		closeIt(t, b)
	}
}

// nestedEnds: of two nested blocks with different ends, each ends on its own.
func nestedEnds(t *testing.T, s Suite, p Prober) {
	b := s.start(t)
	rows := func(f family, inside Outcome) {
		probeRow{UDP, f.inside, f.guard, inside}.send(t, p, b)
		probeRow{UDP, f.nested, f.guard, Silent}.send(t, p, b)
		probeRow{UDP, f.outside, f.guard, Passed}.send(t, p, b)
	}
	// The narrow block ends first, together with a bystander's that shows it.
	ends := map[string]backend.Block{}
	for _, f := range families() {
		ends[f.bystander] = lasting(block(f.bystander), 2*time.Second)
		apply(t, b, add(ends[f.bystander], block(f.wide), lasting(block(f.narrow), 2*time.Second)))
		rows(f, Silent)
	}
	for _, f := range families() {
		s.passesAgain(t, p, b, f, f.bystander, ends[f.bystander])
		rows(f, Silent)
	}
	// The wide block ends first.
	for _, f := range families() {
		ends[f.wide] = lasting(block(f.wide), 2*time.Second)
		apply(t, b, add(ends[f.wide], block(f.narrow)))
		rows(f, Silent)
	}
	for _, f := range families() {
		s.passesAgain(t, p, b, f, f.inside, ends[f.wide])
		rows(f, Passed)
	}
}

// passesAgain waits until from reaches the guard. It must not before the
// block's end, and nothing that is sent a second after it may be stopped.
func (s Suite) passesAgain(t *testing.T, p Prober, b backend.Backend, f family, from string, one backend.Block) {
	t.Helper()
	var stopped, passed time.Time
	until(t, time.Until(one.ExpiresAt)+s.Precision+5*time.Second, from+" passes again", func() bool {
		before := time.Now()
		ok := p.Probe(t, b, UDP, netip.MustParseAddr(from), netip.MustParseAddr(f.guard)) == Passed
		passed = time.Now()
		if !ok {
			stopped = before
		}
		return ok
	})
	if passed.Before(one.ExpiresAt) {
		t.Errorf("%s passed %s before the block's end", from, one.ExpiresAt.Sub(passed))
	}
	if late := stopped.Sub(one.ExpiresAt); late > s.Precision {
		t.Errorf("%s was stopped %s after the block's end", from, late)
	}
}
