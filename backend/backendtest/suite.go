// Package backendtest holds the one contract suite that every backend passes:
// what backend.Backend promises, as assertions against a kernel that really
// enforces (or, for the in-memory backend, pretends to).
//
//	func TestContract(t *testing.T) {
//		backendtest.Run(t, backendtest.Suite{New: ..., Packets: ..., Persistent: true})
//	}
//
// The subtests share one kernel and run one after another. Each starts from
// and ends with a kernel without anything of ours.
package backendtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Suite says how to make the backend under test and what may be asked of it.
type Suite struct {
	// New makes an instance that is not initialised yet. All instances of a
	// suite work on the same kernel objects (same table or chain name). The
	// suite closes or detaches what New made.
	New func(t testing.TB) backend.Backend

	// NewFull makes an instance that has room for n blocks of one kind (IPv4
	// hosts, DROP, source), to provoke ErrFull. Nil where the kernel has no
	// bound (iptables).
	NewFull func(t testing.TB, n int) backend.Backend

	// Packets makes what sends packets through the backend's kernel. It is
	// called once, before any instance is made; the Prober's methods get the
	// instance in force. Nil leaves the packet tests out.
	Packets func(t testing.TB) Prober

	// Persistent: the blocks outlive the instance (a kernel). The instances
	// must then implement backend.Detacher.
	Persistent bool

	// Precision is how far an ExpiresAt that was read back may be off, and how
	// much later than its end a block may still be listed. 0 means one second.
	Precision time.Duration

	// Actions are the actions the backend can do; of the others it must say
	// backend.ErrUnsupported. Nil means Drop, Reject and RejectReset.
	Actions []backend.Action

	// Foreign does what somebody else does to our objects. Nil leaves the
	// tests out that need it.
	Foreign *Foreign

	// Polls: Watch raises Look from time to time instead of saying what
	// happened.
	Polls bool

	// Snapshot prints everything the kernel holds, ours and others', without
	// what changes by itself (counters). The suite compares it before Init
	// and after Close. Nil where there is no kernel.
	Snapshot func(t testing.TB) string

	// watcher: the backend is a backend.Watcher.
	watcher bool
}

// Run runs the whole suite.
func Run(t *testing.T, s Suite) {
	if s.Precision == 0 {
		s.Precision = time.Second
	}
	if s.Actions == nil {
		s.Actions = []backend.Action{backend.Drop, backend.Reject, backend.RejectReset}
	}
	probe := s.New(t)
	_, s.watcher = probe.(backend.Watcher)
	closeIt(t, probe)
	groups := []struct {
		name string
		run  func(*testing.T, Suite)
	}{
		{"lifecycle", lifecycle},
		{"blocks", blocks},
		{"changes", changes},
		{"refusals", refusals},
		{"expiry", expiry},
		{"limits", limits},
		{"scale", scale},
		{"lookup", lookup},
		{"foreign", foreign},
		{"watch", watch},
		{"packets", packets},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) { g.run(t, s) })
	}
}

// start makes and initialises an instance that is closed at the test's end.
func (s Suite) start(t *testing.T) backend.Backend {
	t.Helper()
	b := s.New(t)
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := b.Init(t.Context()); err != nil {
		t.Fatalf("init: %v", err)
	}
	return b
}

func apply(t *testing.T, b backend.Backend, c backend.Change) {
	t.Helper()
	if err := b.Apply(t.Context(), c); err != nil {
		t.Fatalf("apply: %v\n%s", err, clip(c.String()))
	}
}

func add(blocks ...backend.Block) backend.Change { return backend.Change{Add: blocks} }

func remove(blocks ...backend.Block) backend.Change { return backend.Change{Remove: blocks} }

func allow(prefixes ...string) backend.Change {
	list := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		list = append(list, netip.MustParsePrefix(p))
	}
	return backend.Change{Allow: &list}
}

// list returns what the backend lists, in the order of compare.
func list(t *testing.T, b backend.Backend) []backend.Block {
	t.Helper()
	got, err := b.List(t.Context())
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	slices.SortFunc(got, compare)
	return got
}

func compare(a, b backend.Block) int {
	if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
		return c
	}
	if c := a.Prefix.Bits() - b.Prefix.Bits(); c != 0 {
		return c
	}
	return int(a.Target)*100 + int(a.Action) - int(b.Target)*100 - int(b.Action)
}

// wantList fails the test unless the backend lists exactly these blocks, every
// field within what the suite allows.
func (s Suite) wantList(t *testing.T, b backend.Backend, want ...backend.Block) {
	t.Helper()
	want = slices.Clone(want)
	slices.SortFunc(want, compare)
	got := list(t, b)
	if len(got) != len(want) {
		t.Fatalf("listed %d blocks, want %d:\ngot  %s\nwant %s", len(got), len(want), clip(text(got)), clip(text(want)))
	}
	for i := range want {
		if err := s.same(got[i], want[i]); err != nil {
			t.Errorf("listed %s\nwant   %s: %v", got[i], want[i], err)
		}
	}
}

// same says what tells got, read back, from want, which was applied.
func (s Suite) same(got, want backend.Block) error {
	off := got.ExpiresAt.Sub(want.ExpiresAt)
	switch {
	case got.Slot() != want.Slot():
		return errors.New("key or action differs")
	case got.Limit != want.Limit:
		return fmt.Errorf("limit %s, want %s", got.Limit, want.Limit)
	case got.LogPrefix != want.LogPrefix:
		return fmt.Errorf("log prefix %q, want %q", got.LogPrefix, want.LogPrefix)
	case got.Rule != want.Rule:
		return fmt.Errorf("rule %q, want %q", got.Rule, want.Rule)
	case got.Reason != want.Reason:
		return fmt.Errorf("reason %q, want %q", got.Reason, want.Reason)
	case got.CreatedAt.UnixMilli() != want.CreatedAt.UnixMilli():
		return fmt.Errorf("created %s, want %s", got.CreatedAt, want.CreatedAt)
	case got.Permanent() != want.Permanent():
		return fmt.Errorf("permanent %t, want %t", got.Permanent(), want.Permanent())
	case !want.Permanent() && (off > s.Precision || off < -s.Precision):
		return fmt.Errorf("ends %s, want %s", got.ExpiresAt, want.ExpiresAt)
	}
	return nil
}

// until polls cond until it holds, and fails the test after limit.
func until(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("after %s still not: %s", limit, what)
		}
	}
}

func text(blocks []backend.Block) string { return add(blocks...).String() }

// clip keeps a failure message readable.
func clip(s string) string {
	const most = 2000
	if len(s) > most {
		return s[:most] + " …"
	}
	return s
}

// block makes a block of prefix for an hour from now, with the fields a rule
// would give it. Without a slash in prefix it is a single address.
func block(prefix string) backend.Block {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		p = backend.Host(netip.MustParseAddr(prefix))
	}
	now := time.Now()
	return backend.Block{
		Key:       backend.Key{Prefix: p},
		Rule:      "Block Port Scanner",
		Reason:    "50 SYN in 10s",
		CreatedAt: now,
		ExpiresAt: now.Add(time.Hour),
	}
}

// with changes a copy of a block.
func with(b backend.Block, change func(*backend.Block)) backend.Block {
	change(&b)
	return b
}

func lasting(b backend.Block, d time.Duration) backend.Block {
	return with(b, func(b *backend.Block) { b.ExpiresAt = b.CreatedAt.Add(d) })
}

func permanent(b backend.Block) backend.Block {
	return with(b, func(b *backend.Block) { b.ExpiresAt = time.Time{} })
}

// acting gives a copy of a block another action, with the limit or the log
// prefix that goes with it.
func acting(b backend.Block, a backend.Action) backend.Block {
	return with(b, func(b *backend.Block) {
		b.Action, b.Log = a, a == backend.Log
		b.Limit, b.LogPrefix = backend.Limit{}, ""
		switch a {
		case backend.RateLimit:
			b.Limit = backend.Limit{Rate: 10, Per: time.Second, Burst: 5}
		case backend.Log:
			b.LogPrefix = "NETCAP: "
		}
	})
}

func towards(b backend.Block) backend.Block {
	return with(b, func(b *backend.Block) { b.Target = backend.Destination })
}
