package nft_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// watching runs a Watch until the test's end and returns what it reports.
func watching(t *testing.T, b *nft.Backend, f func(backend.Event)) <-chan backend.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	events, ready, done := make(chan backend.Event, 1000), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- b.Watch(ctx, ready, func(e backend.Event) {
			events <- e
			if f != nil {
				f(e)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("watch: %v", err)
	}
	return events
}

func next(t *testing.T, events <-chan backend.Event) backend.Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	return backend.Event{}
}

// TestWatchTellsWho: the event names the program, and what others do to their
// own tables or beside ours raises none.
func TestWatchTellsWho(t *testing.T) {
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{})
	apply(t, b, everything(t))
	events := watching(t, b, nil)
	load(t, "table ip NETCAP {\nset drop_src4_32 { type ipv4_addr; elements = { 192.0.2.1 }; }\n}\n"+
		"table inet NETCAP {\nchain mine { accept; }\nset mine { type ipv4_addr; elements = { 192.0.2.1 }; }\n}\n")
	run(t, "delete", "table", "ip", "NETCAP")
	run(t, "delete", "element", "inet", "NETCAP", "mine", "{ 192.0.2.1 }")
	load(t, "delete element inet NETCAP drop_src4_32 { 192.0.2.1 }\ndelete element inet NETCAP drop_src4_24 { 192.0.2.0 }\n")
	e := next(t, events)
	slices.SortFunc(e.Keys, func(a, b backend.Key) int { return a.Prefix.Bits() - b.Prefix.Bits() })
	if e.Kind != backend.Removed || fmt.Sprint(e.Keys) != "[source 192.0.2.0/24 source 192.0.2.1/32]" || !strings.HasPrefix(e.By, "nft (") {
		t.Errorf("event %+v", e)
	}
	run(t, "add", "element", "inet", "NETCAP", "drop_src4_32", "{ 192.0.2.7 }")
	if e := next(t, events); e.Kind != backend.Look || !strings.Contains(e.Reason, "drop_src4_32") {
		t.Errorf("event %+v", e)
	}
	second := open(t, nft.Config{})
	if err := second.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	apply(t, second, backend.Change{Remove: []backend.Block{towards(block(t, "198.51.100.7", backend.Drop))}})
	if e := next(t, events); e.Kind != backend.Removed || len(e.Keys) != 1 || e.Keys[0].Target != backend.Destination {
		t.Errorf("what another Backend does: %+v", e)
	}
	if err := second.Detach(); err != nil {
		t.Fatal(err)
	}
}

// TestWatchOverrun: where messages are lost, it says so and goes on.
func TestWatchOverrun(t *testing.T) {
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{})
	want := many(t, 3000)
	apply(t, b, backend.Change{Add: want})
	nft.SmallMonitor(b)
	release := make(chan struct{})
	events := watching(t, b, func(backend.Event) { <-release })
	remove := func(i int) {
		run(t, "delete", "element", "inet", "NETCAP", "drop_src4_24", "{ "+want[i].Prefix.Addr().String()+" }")
	}
	remove(9)
	if e := next(t, events); e.Kind != backend.Removed {
		t.Errorf("event %s (%s), want removed", e.Kind, e.Reason)
	}
	run(t, "flush", "set", "inet", "NETCAP", "drop_src4_32") // while nobody reads
	close(release)
	if e := next(t, events); e.Kind != backend.Look {
		t.Fatalf("event %s (%s), want look", e.Kind, e.Reason)
	}
	// The end of the flush was lost too, so that the next change may be a part
	// of it; the one after that is not.
	remove(19)
	if e := next(t, events); e.Kind != backend.Look && e.Kind != backend.Removed {
		t.Errorf("event %s (%s), want look", e.Kind, e.Reason)
	}
	remove(29)
	if e := next(t, events); e.Kind != backend.Removed {
		t.Fatalf("event %s (%s, %d keys), want removed", e.Kind, e.Reason, len(e.Keys))
	}
}

// TestWatchLargeChange: our own largest transaction overruns nothing, and a
// flush of as many is one event with all keys.
func TestWatchLargeChange(t *testing.T) {
	if !beside(t, "") {
		return
	}
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{Counters: true})
	events := watching(t, b, nil)
	want := many(t, 20_000)
	for range 3 {
		apply(t, b, backend.Change{Add: want})
	}
	run(t, "flush", "set", "inet", "NETCAP", "drop_src4_32")
	if e := next(t, events); e.Kind != backend.Emptied || len(e.Keys) != 18_000 {
		t.Errorf("event %s (%s) with %d keys, want all emptied", e.Kind, e.Reason, len(e.Keys))
	}
}

// TestWatchPutsBack: an event's handler may call the other methods, and what it
// does raises no event.
func TestWatchPutsBack(t *testing.T) {
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{})
	want := everything(t)
	want.Rebuild = true
	apply(t, b, want)
	before := list(t, b)
	done := make(chan error, 100)
	watching(t, b, func(backend.Event) { done <- b.Apply(t.Context(), want) })
	for i := range 20 {
		run(t, []string{"flush", "delete"}[i%2], []string{"ruleset", "table inet NETCAP"}[i%2])
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := list(t, b); !sameBlocks(got, before) {
			t.Fatalf("put back:\n%v\nwant\n%v", got, before)
		}
	}
	if len(done) > 0 {
		t.Error("putting it back raised an event")
	}
}

// TestWatchOtherNamespace: with NetNS, what happens there is reported and what
// happens here is not, also where New was called on a thread inside.
func TestWatchOtherNamespace(t *testing.T) {
	nstest.Tool(t, "nft")
	other := nstest.NS(t, nstest.Lab(t), "other")
	f, err := os.Open("/run/netns/" + other.Name)
	if err != nil {
		t.Fatal(err)
	}
	byFile := open(t, nft.Config{NetNS: int(f.Fd())})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var byThread *nft.Backend
	err = other.Do(func() (err error) {
		byThread, err = nft.New(nft.Config{Table: "second"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	here := start(t, nft.Config{})
	apply(t, here, everything(t))
	for table, b := range map[string]*nft.Backend{"NETCAP": byFile, "second": byThread} {
		if err := b.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		apply(t, b, everything(t))
		events := watching(t, b, nil)
		run(t, "flush", "set", "inet", "NETCAP", "drop_src4_24")
		nstest.Run(t, other, "nft", "delete", "element", "inet", table, "drop_src4_32", "{ 192.0.2.1 }")
		if e := next(t, events); e.Kind != backend.Removed || fmt.Sprint(e.Keys) != "[source 192.0.2.1/32]" {
			t.Errorf("table %s: event %+v", table, e)
		}
		apply(t, here, everything(t))
	}
	for _, b := range []*nft.Backend{byFile, byThread} {
		t.Cleanup(func() {
			if err := b.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWatchEndsWithClose: a Watch that its owner forgot ends, and says why.
func TestWatchEndsWithClose(t *testing.T) {
	b := open(t, nft.Config{})
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- b.Watch(t.Context(), ready, func(backend.Event) {}) }()
	<-ready
	wantError(t, b.Watch(t.Context(), nil, func(backend.Event) {}), backend.ErrInvalid)
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-done, backend.ErrClosed)
	wantError(t, b.Watch(t.Context(), nil, func(backend.Event) {}), backend.ErrClosed)
}

// TestPacketCounts: each block counts the packets it stops, and goes on where
// it stood when it is extended or the table put back.
func TestPacketCounts(t *testing.T) {
	_, prober := network(t)
	b := start(t, nft.Config{Counters: true})
	host, wide := block(t, attacker, backend.Drop), block(t, "10.77.0.0/28", backend.Reject)
	wide.Prefix = wide.Prefix.Masked()
	allow := netipPrefixes("10.77.0.1/32", "10.77.0.9/32")
	apply(t, b, backend.Change{Add: []backend.Block{host, wide}, Allow: &allow})
	keys := []backend.Key{host.Key, wide.Key}
	probe := func(n int, from string) {
		for range n {
			prober.Probe(t, b, backendtest.UDP, mustAddr(from), mustAddr(backendtest.Guard4))
		}
	}
	wantCounts := func(when string, want ...uint64) {
		t.Helper()
		got, err := b.Lookup(t.Context(), keys)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range got {
			if !s.HasPackets || s.Packets != want[i] {
				t.Errorf("%s: %s counted %d (%t), want %d", when, s.Key, s.Packets, s.HasPackets, want[i])
			}
		}
	}
	wantCounts("at first", 0, 0)
	probe(3, attacker)
	probe(2, "10.77.0.3")
	wantCounts("after probes", 3, 2)
	host.ExpiresAt = host.ExpiresAt.Add(time.Hour)
	apply(t, b, backend.Change{Add: []backend.Block{host}})
	wantCounts("after an extension", 3, 2)
	probe(1, attacker)
	apply(t, b, backend.Change{Rebuild: true, Add: []backend.Block{host, wide}})
	wantCounts("after a rebuild", 4, 2)
	run(t, "flush", "chain", "inet", "NETCAP", "source")
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	probe(1, attacker)
	wantCounts("after Init", 5, 2)
	plain := start(t, nft.Config{Table: "plain"})
	apply(t, plain, backend.Change{Add: []backend.Block{host}})
	if got, err := plain.Lookup(t.Context(), keys[:1]); err != nil || !got[0].Found || got[0].HasPackets {
		t.Errorf("without counters: %+v, %v", got, err)
	}
}

// TestLookupOfLogs: without Init the packets of logs are told as well, once
// they were listed, whatever text is in front of them.
func TestLookupOfLogs(t *testing.T) {
	_, prober := network(t)
	b := start(t, nft.Config{Counters: true})
	logs := []backend.Block{logged(block(t, attacker, backend.Log), "SSH: "), logged(block(t, "10.77.0.3", backend.Log), "")}
	drop := block(t, attacker, backend.Drop)
	apply(t, b, backend.Change{Add: append([]backend.Block{drop}, logs...)})
	for range 3 {
		prober.Probe(t, b, backendtest.UDP, mustAddr(attacker), mustAddr(backendtest.Guard4))
	}
	before := open(t, nft.Config{})
	if got := list(t, before); len(got) != 3 {
		t.Fatalf("listed %v", got)
	}
	got, err := before.Lookup(t.Context(), []backend.Key{drop.Key, logs[0].Key, logs[1].Key})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint64{3, 3, 0} {
		if s := got[i]; !s.Found || !s.HasPackets || s.Packets != want {
			t.Errorf("%+v, want %d packets", s, want)
		}
	}
	if err := before.Detach(); err != nil {
		t.Error(err)
	}
}

// TestLookupMany: a thousand keys, half of them blocked, in their order, and
// as quick among many as among few.
func TestLookupMany(t *testing.T) {
	b := start(t, nft.Config{Counters: true})
	blocks := many(t, 1000)
	apply(t, b, backend.Change{Add: blocks[:500]})
	keys := make([]backend.Key, 0, len(blocks))
	for _, one := range blocks {
		keys = append(keys, one.Key)
	}
	got, err := b.Lookup(t.Context(), keys)
	if err != nil || len(got) != len(keys) {
		t.Fatalf("%d answers, %v", len(got), err)
	}
	for i, s := range got {
		if s.Key != keys[i] || s.Found != (i < 500) {
			t.Errorf("answer %d: %+v", i, s)
		}
	}
	before := open(t, nft.Config{})
	if got, err := before.Lookup(t.Context(), keys[:1]); err != nil || !got[0].Found {
		t.Errorf("without Init: %+v, %v", got, err)
	}
	if err := before.Detach(); err != nil {
		t.Error(err)
	}
	odd := []backend.Key{{}, {Prefix: keys[0].Prefix, Log: true}, {Prefix: keys[0].Prefix, Target: 9}}
	for i, k := range odd {
		if got, err := b.Lookup(t.Context(), []backend.Key{k}); err != nil || got[0].Found {
			t.Errorf("odd key %d: %+v, %v", i, got, err)
		}
	}
}
