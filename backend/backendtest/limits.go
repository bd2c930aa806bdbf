package backendtest

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Listener is implemented by Probers that can hear what logs copy.
type Listener interface {
	// Logged runs f and returns the prefixes of what was copied to the
	// backend's log group meanwhile, one for each packet, in order. It waits
	// until there are at least want, or for a moment where want is 0.
	Logged(t testing.TB, want int, f func()) []string
}

func (s Suite) can(a backend.Action) bool { return slices.Contains(s.Actions, a) }

func limiting(b backend.Block, rate uint64, per time.Duration, burst uint32) backend.Block {
	b = acting(b, backend.RateLimit)
	b.Limit = backend.Limit{Rate: rate, Per: per, Burst: burst}
	return b
}

func logging(b backend.Block, prefix string) backend.Block {
	b = acting(b, backend.Log)
	b.LogPrefix = prefix
	return b
}

// limits: a rate limit and a log come back as they were, stand beside the other
// blocks of an address or give way to them, and are replaced like any block.
func limits(t *testing.T, s Suite) {
	if s.can(backend.RateLimit) {
		t.Run("rates", func(t *testing.T) { rates(t, s) })
	}
	if s.can(backend.Log) {
		t.Run("prefixes", func(t *testing.T) { prefixes(t, s) })
	}
	t.Run("dropped", func(t *testing.T) { zeros(t, s) })
}

// rates: every unit, the smallest and the largest come back exactly; a new rate
// takes the place of the old one, a stronger action that of the limit.
func rates(t *testing.T, s Suite) {
	b := s.start(t)
	var want []backend.Block
	for i, l := range []backend.Limit{
		{Rate: 10, Per: time.Second, Burst: 5}, {Rate: 10, Per: time.Minute, Burst: 5}, {Rate: 90, Per: time.Minute, Burst: 1},
		{Rate: 7, Per: time.Hour, Burst: 100}, {Rate: 1, Per: 24 * time.Hour, Burst: 1}, {Rate: 1000000, Per: time.Second, Burst: 10000},
		{Rate: 3, Per: time.Second, Burst: 4},
	} {
		for _, p := range []string{fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("2001:db8:%d::/48", i+1)} {
			one := limiting(block(p), l.Rate, l.Per, l.Burst)
			want = append(want, one, towards(one))
		}
	}
	apply(t, b, add(want...))
	s.wantList(t, b, want...)
	want[0].Limit = backend.Limit{Rate: 5, Per: time.Minute, Burst: 50}
	want[0] = lasting(want[0], 2*time.Hour)
	apply(t, b, add(want[0]))
	s.wantList(t, b, want...)
	for i := range 4 {
		stronger := lasting(acting(want[i], backend.Drop), 3*time.Hour)
		apply(t, b, backend.Change{Remove: []backend.Block{want[i]}, Add: []backend.Block{stronger}})
		want[i] = stronger
	}
	s.wantList(t, b, want...)
	apply(t, b, remove(want[2:]...))
	s.wantList(t, b, want[:2]...)
}

// prefixes: a log stands beside every other block of its address, with any text
// in front; a new text takes the place of the old one.
func prefixes(t *testing.T, s Suite) {
	b := s.start(t)
	texts := []string{"", "x", "NETCAP: ", " lead and trail ", "it's {1}; #é %s ", "-j ACCEPT", "--nflog-group 1", "_3a_20", strings.Repeat("x", backend.MaxLogPrefix)}
	var want []backend.Block
	for i, text := range texts {
		one := block(fmt.Sprintf("192.0.2.%d", i+1))
		want = append(want, logging(one, text), one)
	}
	want = append(want, logging(towards(block("2001:db8::/32")), "six "))
	apply(t, b, add(want...))
	s.wantList(t, b, want...)
	want[0] = lasting(logging(want[0], "another: "), 2*time.Hour)
	apply(t, b, add(want[0]))
	s.wantList(t, b, want...)
	bare := backend.Block{Key: want[0].Key, Action: backend.Log}
	apply(t, b, remove(bare))
	s.wantList(t, b, want[1:]...)
	s.wantStatus(t, b, want[0].Key, nil)
	last := want[len(want)-1]
	s.wantStatus(t, b, last.Key, &last)
}

// zeros: a backend that counts by action and family does so for each.
func zeros(t *testing.T, s Suite) {
	b := s.start(t)
	if d, ok := b.(backend.Dropper); ok {
		seen := make(map[backend.Drops]bool)
		for _, one := range droppedBy(t, d) {
			one.Packets = 0
			seen[one] = true
		}
		for _, a := range s.Actions {
			for _, v6 := range []bool{false, true} {
				if a != backend.Log && !seen[backend.Drops{Action: a, Is6: v6}] {
					t.Errorf("no count of %s, IPv6 %t", a, v6)
				}
			}
		}
	}
}

func droppedBy(t *testing.T, d backend.Dropper) []backend.Drops {
	t.Helper()
	out, err := d.Dropped(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// limitPackets: what rate limits and logs do with packets.
func limitPackets(t *testing.T, s Suite, p Prober) {
	ends, ok := p.(Ends)
	if !ok {
		return
	}
	if s.can(backend.RateLimit) {
		t.Run("rate limit", func(t *testing.T) {
			for _, f := range families() {
				limited(t, s, ends, p, f)
			}
		})
		t.Run("one bucket for a prefix", func(t *testing.T) {
			for _, f := range families() {
				oneBucket(t, s, ends, f)
			}
		})
	}
	if l, ok := p.(Listener); ok && s.can(backend.Log) {
		t.Run("log", func(t *testing.T) {
			for _, f := range families() {
				logged(t, s, p, l, f)
			}
		})
	}
}

// The rate limit of the packet tests, and what is sent against it.
const (
	limitSent = 300
	limitTime = 3 * time.Second
)

// limited: of 300 packets in 3 seconds 30 to 40 pass at 10 a second and a burst
// of 5, the bystander loses none, and what was dropped is counted. A stronger
// action stops the rest; afterwards all pass.
func limited(t *testing.T, s Suite, ends Ends, p Prober, f family) {
	b := s.start(t)
	one := limiting(block(f.attacker), 10, time.Second, 5)
	apply(t, b, add(one))
	before := s.stopped(t, b, backend.RateLimit, f)
	got := paced(t, ends, f, f.attacker, f.bystander)
	// A machine that stalls lets more time go by, and with it more tokens.
	most := 5 + int64(got.took/(100*time.Millisecond)) + 5
	if got.arrived[0] < 30 || got.arrived[0] > most {
		t.Errorf("%d of %d packets in %s passed the limit, want 30 to %d", got.arrived[0], limitSent, got.took, most)
	}
	if got.arrived[1] != limitSent {
		t.Errorf("%d of %d packets of the bystander passed", got.arrived[1], limitSent)
	}
	over := uint64(limitSent - got.arrived[0])
	if n := s.stopped(t, b, backend.RateLimit, f) - before; s.counts(b) && n != over {
		t.Errorf("counted %d dropped packets, want %d", n, over)
	}
	if status := s.statusOf(t, b, one.Key); status.HasPackets && status.Packets != over {
		t.Errorf("the block counted %d packets, want the %d above the rate", status.Packets, over)
	}
	stronger := lasting(acting(one, backend.Drop), 2*time.Hour)
	apply(t, b, backend.Change{Remove: []backend.Block{one}, Add: []backend.Block{stronger}})
	for range 3 {
		probeRow{UDP, f.attacker, f.guard, Silent}.send(t, p, b)
	}
	apply(t, b, remove(stronger))
	for range 20 {
		probeRow{UDP, f.attacker, f.guard, Passed}.send(t, p, b)
	}
	closeIt(t, b)
}

// counts reports whether the backend counts what it stops.
func (s Suite) counts(b backend.Backend) bool {
	_, ok := b.(backend.Dropper)
	return ok
}

// stopped is what an action has stopped in the family so far.
func (s Suite) stopped(t *testing.T, b backend.Backend, a backend.Action, f family) uint64 {
	t.Helper()
	d, ok := b.(backend.Dropper)
	if !ok {
		return 0
	}
	for _, one := range droppedBy(t, d) {
		if one.Action == a && one.Is6 == netip.MustParseAddr(f.guard).Is6() {
			return one.Packets
		}
	}
	t.Errorf("no count of %s", a)
	return 0
}

func (s Suite) statusOf(t *testing.T, b backend.Backend, key backend.Key) backend.Status {
	t.Helper()
	got, err := b.Lookup(t.Context(), []backend.Key{key})
	if err != nil || len(got) != 1 {
		t.Fatalf("lookup: %v, %v", got, err)
	}
	return got[0]
}

// oneBucket: the addresses of a limited prefix share its bucket.
func oneBucket(t *testing.T, s Suite, ends Ends, f family) {
	b := s.start(t)
	apply(t, b, add(limiting(block(f.wide), 1, 24*time.Hour, 1)))
	got := burst(t, ends, f, 10, f.inside, f.nested, f.outside)
	if n := got.arrived[0] + got.arrived[1]; n != 1 {
		t.Errorf("%d packets of two addresses passed, want the one of their prefix", n)
	}
	if got.arrived[2] != 10 {
		t.Errorf("%d of 10 packets from outside the prefix passed", got.arrived[2])
	}
	closeIt(t, b)
}

// logged: a log copies the packets of a source that passes and of one that is
// blocked, with its prefix, and of nobody else; a log changes nobody's fate.
func logged(t *testing.T, s Suite, p Prober, l Listener, f family) {
	b := s.start(t)
	apply(t, b, add(block(f.attacker), logging(block(f.attacker), "blocked: "), logging(block(f.wide), "passing: ")))
	for _, step := range []struct {
		row  probeRow
		want []string
	}{
		{probeRow{UDP, f.attacker, f.guard, Silent}, []string{"blocked: "}},
		{probeRow{UDP, f.inside, f.guard, Passed}, []string{"passing: "}},
		{probeRow{UDP, f.bystander, f.guard, Passed}, nil},
	} {
		got := l.Logged(t, len(step.want), func() { step.row.send(t, p, b) })
		if !slices.Equal(got, step.want) {
			t.Errorf("a packet from %s was copied as %q, want %q", step.row.from, got, step.want)
		}
	}
	apply(t, b, remove(logging(block(f.wide), "passing: ")))
	row := probeRow{UDP, f.inside, f.guard, Passed}
	if got := l.Logged(t, 0, func() { row.send(t, p, b) }); len(got) != 0 {
		t.Errorf("after the log was taken out: %q", got)
	}
	closeIt(t, b)
}

// tally is what became of the packets of several senders.
type tally struct {
	arrived []int64
	took    time.Duration // from the first packet to the last
}

// paced sends limitSent packets of each sender, evenly over limitTime.
func paced(t *testing.T, ends Ends, f family, from ...string) tally {
	t.Helper()
	tick := time.NewTicker(limitTime / limitSent)
	defer tick.Stop()
	return send(t, ends, f, limitSent, func() { <-tick.C }, from)
}

// burst sends n packets of each sender at once.
func burst(t *testing.T, ends Ends, f family, n int, from ...string) tally {
	t.Helper()
	return send(t, ends, f, n, func() {}, from)
}

// send sends n packets of each sender and counts those that arrive until a
// marker of nobody's address has.
func send(t *testing.T, ends Ends, f family, n int, wait func(), from []string) tally {
	t.Helper()
	var in net.PacketConn
	if err := ends.AtGuard(func() (err error) {
		in, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", net.JoinHostPort(f.guard, "0"))
		return err
	}); err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer func() { _ = in.Close() }()
	end := marker4
	if netip.MustParseAddr(f.guard).Is6() {
		end = marker6
	}
	var out []net.Conn
	defer func() {
		for _, c := range out {
			_ = c.Close()
		}
	}()
	for _, addr := range append(slices.Clone(from), end) {
		if err := ends.AtPeer(func() error {
			d := dialer(netip.MustParseAddr(addr), true)
			c, err := d.DialContext(t.Context(), "udp", in.LocalAddr().String())
			if err == nil {
				out = append(out, c)
			}
			return err
		}); err != nil {
			t.Fatalf("connect: %v", err)
		}
	}
	done := make(chan tally, 1)
	go func() { done <- receive(in, len(from)) }()
	begin := time.Now()
	for range n {
		wait()
		for i := range from {
			if _, err := out[i].Write([]byte{byte(i)}); err != nil {
				t.Fatalf("write: %v", err)
			}
		}
	}
	took := time.Since(begin)
	if _, err := out[len(from)].Write([]byte{byte(len(from))}); err != nil {
		t.Fatalf("write: %v", err)
	}
	select {
	case got := <-done:
		got.took = took
		return got
	case <-time.After(answerLimit):
		t.Fatal("not even the marker arrived")
	}
	return tally{}
}

// receive counts what arrives from each of n senders, until a moment after the
// marker: sent last, it can overtake on another processor.
func receive(in net.PacketConn, n int) tally {
	got := tally{arrived: make([]int64, n)}
	buf := make([]byte, 8)
	for {
		size, _, err := in.ReadFrom(buf)
		switch {
		case err != nil:
			return got
		case size == 1 && int(buf[0]) < n:
			got.arrived[buf[0]]++
		default:
			_ = in.SetReadDeadline(time.Now().Add(grace))
		}
	}
}
