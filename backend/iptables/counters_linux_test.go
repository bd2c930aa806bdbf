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

// TestDropped: every packet that was stopped is counted for its action and
// family, whatever became of the rule, by us or by somebody else.
func TestDropped(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		sink(t)
		b, _ := start(t, Config{Variant: v})
		host := fresh("10.99.7.1", backend.Drop)
		host.Target = backend.Destination
		six := host
		six.Prefix, six.Action = sample("fd99:0:7::1", backend.Drop).Prefix, backend.RejectReset
		sum := uint64(0)
		stopped := func(what string, to string, n int) {
			t.Helper()
			want(t, what+": pass", send(t, to, n), 0)
			if to == "10.99.7.1" {
				sum += uint64(n)
			}
			want(t, what, drops(t, b, backend.Drop, false), sum)
		}
		apply(t, b, add(host, six))
		stopped("a rule", "10.99.7.1", 5)
		want(t, "of 3 to IPv6 pass", send(t, "fd99:0:7::1", 3), 0)

		host.ExpiresAt = host.ExpiresAt.Add(time.Hour)
		apply(t, b, add(host))
		want(t, "packets of an extended block", packetsOf(t, b, host.Key), 5)
		stopped("an extended rule", "10.99.7.1", 4)
		want(t, "packets of an extended block", packetsOf(t, b, host.Key), 9)

		apply(t, b, remove(host))
		want(t, "a removed rule", drops(t, b, backend.Drop, false), sum)
		apply(t, b, add(host))
		stopped("a rule made again", "10.99.7.1", 2)
		want(t, "packets of a block made again", packetsOf(t, b, host.Key), 2)

		iptables(t, v, 4, "-Z", "NETCAP")
		want(t, "a counter set to zero", drops(t, b, backend.Drop, false), sum)
		stopped("after it", "10.99.7.1", 3)

		apply(t, b, allowing("10.99.0.0/16"))
		want(t, "of 3 pass the whitelist", send(t, "10.99.7.1", 3), 3)
		want(t, "a rule that the whitelist covers", drops(t, b, backend.Drop, false), sum)
		apply(t, b, allowing())
		stopped("once it no longer does", "10.99.7.1", 1)

		limit := limited("10.99.7.1", 1, time.Hour, 2)
		apply(t, b, backend.Change{Remove: []backend.Block{host}, Add: []backend.Block{limit}})
		want(t, "of 5 pass a limit", send(t, "10.99.7.1", 5), 2)
		want(t, "drops of a limit", drops(t, b, backend.RateLimit, false), 3)
		apply(t, b, backend.Change{Remove: []backend.Block{limit}, Add: []backend.Block{host}})
		want(t, "drops of a limit that is gone", drops(t, b, backend.RateLimit, false), 3)
		stopped("a drop in its place", "10.99.7.1", 1)

		unblock(t, v, host)
		want(t, "a rule somebody removed", drops(t, b, backend.Drop, false), sum)
		apply(t, b, add(host))
		stopped("a rule again", "10.99.7.1", 2)
		iptables(t, v, 4, "-F")
		iptables(t, v, 4, "-X")
		apply(t, b, backend.Change{Rebuild: true, Add: []backend.Block{host, six}})
		want(t, "a chain put back", drops(t, b, backend.Drop, false), sum)
		stopped("in a chain put back", "10.99.7.1", 2)
		want(t, "IPv6 rejects", drops(t, b, backend.RejectReset, true), 3)
		want(t, "IPv4 rejects", drops(t, b, backend.RejectReset, false), 0)

		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, "a flushed chain", drops(t, b, backend.Drop, false), sum)
		want(t, "a flushed IPv6 chain", drops(t, b, backend.RejectReset, true), 3)
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
