package iptables

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// sink makes a device behind which nobody is: what is sent there passes OUTPUT
// once, and who sends is told (EPERM) where a rule drops it.
func sink(t testing.TB) {
	t.Helper()
	nstest.Tool(t, "ip")
	run(t, "ip", "link", "add", "sink0", "arp", "off", "type", "veth", "peer", "name", "sink1")
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "link", "del", "sink0").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	run(t, "ip", "addr", "add", "10.99.0.1/16", "dev", "sink0")
	run(t, "ip", "-6", "addr", "add", "fd99::1/32", "dev", "sink0", "nodad")
	run(t, "ip", "link", "set", "sink0", "up")
	run(t, "ip", "link", "set", "sink1", "up")
}

// send sends n datagrams to an address behind the sink and returns how many
// were not dropped.
func send(t testing.TB, to string, n int) int {
	t.Helper()
	out, err := net.Dial("udp", net.JoinHostPort(to, "9"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	passed := 0
	for sent := 0; sent < n; {
		switch _, err := out.Write([]byte("x")); {
		case err == nil:
			passed++
			sent++
		case errors.Is(err, syscall.EPERM):
			sent++
		case !errors.Is(err, syscall.ECONNREFUSED): // what came back for the one before
			t.Fatal(err)
		}
	}
	return passed
}

// limited is a rate limit of what goes to a prefix.
func limited(prefix string, rate uint64, per time.Duration, burst uint32) backend.Block {
	b := fresh(prefix, backend.RateLimit)
	b.Target, b.Limit = backend.Destination, backend.Limit{Rate: rate, Per: per, Burst: burst}
	return b
}

// packetsOf is what a block's rules have counted.
func packetsOf(t testing.TB, b *Backend, k backend.Key) uint64 {
	t.Helper()
	got, err := b.Lookup(t.Context(), []backend.Key{k})
	if err != nil || !got[0].Found || !got[0].HasPackets {
		t.Fatalf("lookup of %s: %+v, %v", k, got, err)
	}
	return got[0].Packets
}

// want fails the test where a number is not what it should be.
func want[N int | uint64](t testing.TB, what string, got, want N) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %d, want %d", what, got, want)
	}
}

// TestRateLimit: a bucket holds the burst, for the whole of a prefix but its
// holes; it stays what it is when the block is extended, and is a new one where
// the limit is another. What stops everything takes its place.
func TestRateLimit(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		sink(t)
		b, _ := start(t, Config{Variant: v})
		for _, f := range []struct{ wide, one, other, hole string }{
			{"10.99.7.0/24", "10.99.7.1", "10.99.7.2", "10.99.7.3"},
			{"fd99:0:7::/48", "fd99:0:7::1", "fd99:0:7::2", "fd99:0:7::3"},
		} {
			block := limited(f.wide, 1, time.Hour, 5)
			apply(t, b, add(block))
			apply(t, b, allowing(f.hole+map[bool]string{true: "/32", false: "/128"}[block.Prefix.Addr().Is4()]))
			want(t, "of 4 pass", send(t, f.one, 4), 4)
			want(t, "of 10 to another of the network pass", send(t, f.other, 10), 1)
			want(t, "of 10 to an exception pass", send(t, f.hole, 10), 10)
			want(t, "packets", packetsOf(t, b, block.Key), 9)

			block.ExpiresAt = block.ExpiresAt.Add(time.Hour)
			apply(t, b, add(block))
			want(t, "of 10 pass once it is extended", send(t, f.one, 10), 0)
			want(t, "packets", packetsOf(t, b, block.Key), 19)

			block.Limit.Burst = 3
			apply(t, b, add(block))
			want(t, "of 10 pass with another limit", send(t, f.one, 10), 3)
			want(t, "packets", packetsOf(t, b, block.Key), 26)

			drop := block
			drop.Action, drop.Limit = backend.Drop, backend.Limit{}
			apply(t, b, backend.Change{Remove: []backend.Block{block}, Add: []backend.Block{drop}})
			want(t, "of 10 pass a drop", send(t, f.one, 10), 0)
			want(t, "packets", packetsOf(t, b, drop.Key), 10)
			want(t, "of 10 to an exception pass", send(t, f.hole, 10), 10)
			one, other := limited(f.one, 1, time.Hour, 2), limited(f.other, 1, time.Hour, 2)
			apply(t, b, backend.Change{Remove: []backend.Block{drop}, Add: []backend.Block{one, other}})
			want(t, "of 10 pass, limited alone", send(t, f.one, 10), 2)
			want(t, "of 10 pass, another with the same limit", send(t, f.other, 10), 2)
			apply(t, b, remove(one, other))
			want(t, "of 10 pass without a block", send(t, f.one, 10), 10)
		}
	})
}

// TestLimitWithManyHoles: a limit that takes several rules, as long as they can
// be, has one bucket, and comes back.
func TestLimitWithManyHoles(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		sink(t)
		first, _ := newBackend(t, Config{Variant: v})
		if err := first.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		var all []backend.Block
		var allow []netip.Prefix
		for _, p := range []string{"10.99.0.0/17", "fd99::/33"} {
			b := limited(p, 1, time.Hour, 24)
			b.Rule, b.Reason = strings.Repeat("r", backend.MaxRuleName), strings.Repeat("long ", 50)
			all = append(all, b)
			for i := range 2*maxHoles + 1 {
				a := b.Prefix.Addr().AsSlice()
				a[len(a)-2], a[len(a)-1] = byte(i), 9
				hole, _ := netip.AddrFromSlice(a)
				allow = append(allow, backend.Host(hole))
			}
		}
		apply(t, first, backend.Change{Add: all, Allow: &allow})
		if err := first.Detach(); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, v)
		b, _ := start(t, Config{Variant: v})
		if got, err := b.List(t.Context()); err != nil || len(got) != 2 || got[0].Limit != all[0].Limit || snapshot(t, v) != before {
			t.Errorf("adopted %v, %v", got, err)
		}
		for _, f := range []struct{ hole, low, high string }{{"10.99.64.9", "10.99.0.8", "10.99.100.1"}, {"fd99::4009", "fd99::8", "fd99::4:1"}} {
			want(t, "of 30 to an exception pass", send(t, f.hole, 30), 30)
			want(t, "of 20 pass", send(t, f.low, 20), 20)
			want(t, "of 20 to the other end pass", send(t, f.high, 20), 4)
		}
		apply(t, b, remove(all...))
	})
}

// TestRateRefills: what flows back is the rate. The bucket never fills up again
// here, however slow the machine, so that nothing is lost above the burst.
func TestRateRefills(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		sink(t)
		b, _ := start(t, Config{Variant: v})
		const burst, each = 200, 100 * time.Millisecond
		apply(t, b, add(limited("10.99.7.1", 10, time.Second, burst)))
		begin := time.Now()
		passed := 0
		for time.Since(begin) < 1100*time.Millisecond {
			passed += send(t, "10.99.7.1", 10)
			<-time.After(10 * time.Millisecond)
		}
		least := burst + int(time.Since(begin)/each) - 1
		for send(t, "10.99.7.1", 1) == 1 { // what is left
			passed++
		}
		took := time.Since(begin)
		if most := burst + int(took/each) + 1; passed < least || passed > most {
			t.Errorf("%d passed in %s, want %d to %d", passed, took, least, most)
		}
	})
}

// limits are what both programs can do, and how they list it.
func limits() map[backend.Limit]string {
	const aDay = 24 * time.Hour
	return map[backend.Limit]string{
		{Rate: 60, Per: time.Minute, Burst: 5}:              "1/sec",
		{Rate: 1, Per: time.Second, Burst: 86_400}:          "1/sec",
		{Rate: 3600, Per: time.Second, Burst: 7}:            "3610/sec",
		{Rate: 1, Per: aDay, Burst: 1}:                      "1/day",
		{Rate: 7, Per: aDay, Burst: 7}:                      "7/day",
		{Rate: 25, Per: aDay, Burst: 1}:                     "25/day",
		{Rate: 48, Per: aDay, Burst: 2}:                     "2/hour",
		{Rate: 700, Per: time.Minute, Burst: 3}:             "700/min",
		{Rate: 100, Per: time.Hour, Burst: 2400}:            "100/hour",
		{Rate: 1_000_000, Per: time.Second, Burst: 1000}:    "1000000/sec",
		{Rate: 60_000_000, Per: time.Minute, Burst: 1}:      "1000000/sec",
		{Rate: 1000, Per: time.Second, Burst: 1_000_000}:    "1000/sec",
		{Rate: 86_400_000_000, Per: aDay, Burst: 1_000_000}: "1000000/sec",
		{Rate: 333_333, Per: time.Second, Burst: 333_333}:   "333333/sec",
	}
}

// TestLimitsComeBack: another process reads every limit exactly and leaves the
// rules alone, and what it removes is gone.
func TestLimitsComeBack(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		first, _ := newBackend(t, Config{Variant: v})
		if err := first.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		var all []backend.Block
		for l := range limits() {
			for _, p := range []string{"192.0.2.%d", "2001:db8::%d"} {
				b := limited(fmt.Sprintf(p, len(all)+1), l.Rate, l.Per, l.Burst)
				b.CreatedAt, b.ExpiresAt = created, time.Time{}
				all = append(all, b)
			}
		}
		apply(t, first, add(all...))
		if err := first.Detach(); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, v)
		second, _ := start(t, Config{Variant: v})
		got, err := second.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if g, w := texts(got), texts(all); g != w {
			t.Errorf("listed\n%s\nwant\n%s", g, w)
		}
		if after := snapshot(t, v); after != before {
			t.Errorf("adoption made of\n%s\nthis:\n%s", before, after)
		}
		apply(t, second, remove(all[:2]...))
		apply(t, second, remove(all[2:]...))
		if left := snapshot(t, v); strings.Contains(left, "hashlimit") {
			t.Errorf("left behind:\n%s", left)
		}
	})
}

// TestLimitsListed: the programs list a rate as listedRate says.
func TestLimitsListed(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, _ := start(t, Config{Variant: v})
		for l, want := range limits() {
			one := limited("192.0.2.1", l.Rate, l.Per, l.Burst)
			apply(t, b, add(one))
			got := iptables(t, v, 4, "-S", "NETCAP")
			if listedRate(l) != want || !strings.Contains(got, " --hashlimit-above "+want+" ") {
				t.Errorf("%s: want %s, we say %s, the program\n%s", l, want, listedRate(l), got)
			}
		}
	})
}

// TestLimitsRefused: what hashlimit cannot express is refused before anything
// is done.
func TestLimitsRefused(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		ran := counting(t, v)
		b, _ := start(t, Config{})
		good := fresh("192.0.2.9", backend.Drop)
		for _, l := range []backend.Limit{
			{Rate: 1, Per: 24 * time.Hour, Burst: 5}, {Rate: 1_000_001, Per: time.Second, Burst: 1},
			{Rate: 1, Per: time.Hour, Burst: 25}, {Rate: 10, Per: time.Second, Burst: 1_000_001},
			{Rate: 1_000_000, Per: time.Second, Burst: math.MaxUint32}, {Rate: 700_000, Per: time.Second, Burst: 1},
		} {
			ran()
			bad := limited("192.0.2.1", l.Rate, l.Per, l.Burst)
			err := b.Apply(t.Context(), add(good, bad))
			if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "iptables") || !strings.Contains(err.Error(), l.String()) {
				t.Errorf("%s: %v, want ErrUnsupported that names backend and limit", l, err)
			}
			if runs := ran(); !slices.Equal(runs, []string{""}) {
				t.Errorf("%s: ran %q", l, runs)
			}
		}
		want(t, "blocks", count(t, b), 0)
	})
}

// TestKernelRefusesInTheMiddle: one rule of many that the kernel does not take,
// of the second family: nothing of the change is done.
func TestKernelRefusesInTheMiddle(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, _ := start(t, Config{Variant: v})
		kept := []backend.Block{limited("192.0.2.1", 5, time.Minute, 2), fresh("2001:db8::1", backend.Reject)}
		apply(t, b, add(kept...))
		before := snapshot(t, v)
		all := many(1000, backend.Drop)
		for i := range 500 {
			one := fresh(fmt.Sprintf("2001:db8:1::%x", i+1), backend.Drop)
			all = append(all, one)
			if i == 250 {
				// Past CheckLimit, so that it is the kernel that refuses.
				all = append(all, limited("2001:db8:2::1", 1, 24*time.Hour, 5))
			}
		}
		c := backend.Change{Add: all, Remove: kept}
		_, err := b.try(t.Context(), c)
		if err == nil {
			t.Fatal("the kernel took it")
		}
		t.Log(err)
		if after := snapshot(t, v); after != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
		want(t, "blocks", count(t, b), 2)
		if r, err := b.state.read(t.Context(), b.chains); err != nil || r.changed {
			t.Errorf("the chain is not what it is taken for: %v", err)
		}
	})
}

// TestMeterNames: a table has a name of its own for everything in which it
// differs, and blocks that differ in nothing of it share one.
func TestMeterNames(t *testing.T) {
	names := map[string]string{}
	base := limited("192.0.2.1", 10, time.Second, 5)
	for what, b := range map[string]backend.Block{
		"base": base, "prefix": limited("192.0.2.0/24", 10, time.Second, 5), "rate": limited("192.0.2.1", 11, time.Second, 5),
		"unit": limited("192.0.2.1", 10, time.Minute, 5), "burst": limited("192.0.2.1", 10, time.Second, 6),
		"target": func() backend.Block { s := base; s.Target = backend.Source; return s }(),
	} {
		n := meterName("NETCAP", b)
		if other, twice := names[n]; twice || len(n) > 15 || !isMeterName(n) {
			t.Errorf("table %q of %s, %s", n, what, other)
		}
		names[n] = what
	}
	same := limited("192.0.2.2", 10, time.Second, 5)
	same.ExpiresAt, same.Rule = time.Time{}, "another"
	if meterName("NETCAP", same) != meterName("NETCAP", base) || meterName("OTHER", base) == meterName("NETCAP", base) {
		t.Error("the table depends on what it should not, or not on the chain")
	}
}
