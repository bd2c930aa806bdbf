package iptables

import (
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// drops is what a Backend says of one action and family.
func drops(t testing.TB, b *Backend, a backend.Action, is6 bool) uint64 {
	t.Helper()
	all, err := b.Dropped(t.Context())
	if err != nil || len(all) != 2*int(backend.RateLimit+1) {
		t.Fatalf("dropped: %v, %v", all, err)
	}
	for _, d := range all {
		if d.Action == a && d.Is6 == is6 {
			return d.Packets
		}
	}
	t.Fatalf("no count for %s in %v", a, all)
	return 0
}

// dropCount sends packets that a block stops and holds the Backend to the sum.
type dropCount struct {
	*Backend
	host backend.Block // drops what goes to 10.99.7.1
	sum  uint64
}

func countDrops(t *testing.T, v string) *dropCount {
	t.Helper()
	sink(t)
	b, _ := start(t, Config{Variant: v})
	host := fresh("10.99.7.1", backend.Drop)
	host.Target = backend.Destination
	return &dropCount{Backend: b, host: host}
}

// stopped sends n packets, all of which must be stopped and counted.
func (d *dropCount) stopped(t *testing.T, what string, n int) {
	t.Helper()
	want(t, what+": pass", send(t, "10.99.7.1", n), 0)
	d.sum += uint64(n)
	d.same(t, what)
}

// same: nothing was added to the sum, nothing is lost of it.
func (d *dropCount) same(t *testing.T, what string) {
	t.Helper()
	want(t, what, drops(t, d.Backend, backend.Drop, false), d.sum)
}

// TestDropped: every packet that was stopped is counted for its action and
// family, whatever we do with the rule that did it.
func TestDropped(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		d := countDrops(t, v)
		apply(t, d.Backend, add(d.host))
		d.stopped(t, "a rule", 5)
		d.host.ExpiresAt = d.host.ExpiresAt.Add(time.Hour)
		apply(t, d.Backend, add(d.host))
		want(t, "packets of an extended block", packetsOf(t, d.Backend, d.host.Key), 5)
		d.stopped(t, "an extended rule", 4)
		want(t, "packets of an extended block", packetsOf(t, d.Backend, d.host.Key), 9)

		apply(t, d.Backend, remove(d.host))
		d.same(t, "a removed rule")
		apply(t, d.Backend, add(d.host))
		d.stopped(t, "a rule made again", 2)
		want(t, "packets of a block made again", packetsOf(t, d.Backend, d.host.Key), 2)

		apply(t, d.Backend, allowing("10.99.0.0/16"))
		want(t, "of 3 pass the whitelist", send(t, "10.99.7.1", 3), 3)
		d.same(t, "a rule that the whitelist covers")
		apply(t, d.Backend, allowing())
		d.stopped(t, "once it no longer does", 1)

		limit := limited("10.99.7.1", 1, time.Hour, 2)
		apply(t, d.Backend, backend.Change{Remove: []backend.Block{d.host}, Add: []backend.Block{limit}})
		want(t, "of 5 pass a limit", send(t, "10.99.7.1", 5), 2)
		want(t, "drops of a limit", drops(t, d.Backend, backend.RateLimit, false), 3)
		apply(t, d.Backend, backend.Change{Remove: []backend.Block{limit}, Add: []backend.Block{d.host}})
		want(t, "drops of a limit that is gone", drops(t, d.Backend, backend.RateLimit, false), 3)
		d.stopped(t, "a drop in its place", 1)
	})
}

// TestDroppedDamage: nor does it matter what somebody else does.
func TestDroppedDamage(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		d := countDrops(t, v)
		six := d.host
		six.Prefix, six.Action = sample("fd99:0:7::1", backend.Drop).Prefix, backend.RejectReset
		apply(t, d.Backend, add(d.host, six))
		d.stopped(t, "a rule", 2)
		want(t, "of 3 to IPv6 pass", send(t, "fd99:0:7::1", 3), 0)
		iptables(t, v, 4, "-Z", "NETCAP")
		d.same(t, "a counter set to zero")
		d.stopped(t, "after it", 3)

		unblock(t, v, d.host)
		d.same(t, "a rule somebody removed")
		apply(t, d.Backend, add(d.host))
		d.stopped(t, "a rule again", 2)
		for _, c := range []string{"-F", "-X"} {
			iptables(t, v, 4, c)
		}
		apply(t, d.Backend, backend.Change{Rebuild: true, Add: []backend.Block{d.host, six}})
		d.same(t, "a chain put back")
		d.stopped(t, "in a chain put back", 2)
		want(t, "IPv6 rejects", drops(t, d.Backend, backend.RejectReset, true), 3)
		want(t, "IPv4 rejects", drops(t, d.Backend, backend.RejectReset, false), 0)

		if err := d.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.same(t, "a flushed chain")
		want(t, "a flushed IPv6 chain", drops(t, d.Backend, backend.RejectReset, true), 3)
	})
}

// TestDroppedAdopted: another process goes on from what the rules have counted.
func TestDroppedAdopted(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		sink(t)
		first, _ := newBackend(t, Config{Variant: v})
		if err := first.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		host := fresh("10.99.7.1", backend.Reject)
		host.Target = backend.Destination
		apply(t, first, add(host))
		want(t, "of 6 pass", send(t, "10.99.7.1", 6), 0)
		if err := first.Detach(); err != nil {
			t.Fatal(err)
		}
		// Without a bound the rule in front of the reject goes: its count not.
		second, _ := start(t, Config{Variant: v, RejectRate: -1})
		want(t, "rejects", drops(t, second, backend.Reject, false), 6)
		want(t, "packets", packetsOf(t, second, host.Key), 6)
	})
}
