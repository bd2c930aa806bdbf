package backendtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// lifecycle: Init, Flush, Close, Detach and who finds what afterwards.
func lifecycle(t *testing.T, s Suite) {
	t.Run("init is idempotent", func(t *testing.T) {
		b := s.start(t)
		apply(t, b, add(block("192.0.2.1")))
		for range 2 {
			if err := b.Init(t.Context()); err != nil {
				t.Fatalf("init again: %v", err)
			}
		}
		if got := list(t, b); len(got) != 1 {
			t.Errorf("after a second Init: %s", text(got))
		}
	})
	t.Run("apply before init", func(t *testing.T) {
		b := s.New(t)
		defer closeIt(t, b)
		if err := b.Apply(t.Context(), add(block("192.0.2.1"))); !errors.Is(err, backend.ErrGone) {
			t.Errorf("apply before Init: %v, want ErrGone", err)
		}
	})
	t.Run("flush keeps the structure", func(t *testing.T) {
		b := s.start(t)
		apply(t, b, add(block("192.0.2.1"), permanent(block("2001:db8::/48")), towards(acting(block("198.51.100.0/24"), backend.Reject))))
		for range 2 {
			if err := b.Flush(t.Context()); err != nil {
				t.Fatalf("flush: %v", err)
			}
			s.wantList(t, b)
		}
		again := block("192.0.2.1")
		apply(t, b, add(again))
		s.wantList(t, b, again)
	})
	t.Run("close leaves nothing", func(t *testing.T) { closes(t, s) })
	t.Run("close without init", func(t *testing.T) { closeIt(t, s.New(t)) })
	t.Run("cancelled context", func(t *testing.T) {
		b := s.start(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Apply(ctx, add(block("192.0.2.1"))); !errors.Is(err, context.Canceled) {
			t.Errorf("apply: %v, want context.Canceled", err)
		}
		s.wantList(t, b)
	})
	t.Run("adoption", func(t *testing.T) { adoption(t, s) })
}

func closeIt(t *testing.T, b backend.Backend) {
	t.Helper()
	if err := b.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
}

func detach(t *testing.T, b backend.Backend) {
	t.Helper()
	d, ok := b.(backend.Detacher)
	if !ok {
		closeIt(t, b)
		t.Fatal("a backend with a kernel must implement backend.Detacher")
	}
	if err := d.Detach(); err != nil {
		t.Fatalf("detach: %v", err)
	}
}

func closes(t *testing.T, s Suite) {
	before := ""
	if s.Snapshot != nil {
		before = s.Snapshot(t)
	}
	b := s.start(t)
	var all []backend.Block
	for _, a := range s.Actions {
		all = append(all, acting(block("192.0.2.1"), a), acting(block("2001:db8::1"), a), towards(acting(block("198.51.100.0/24"), a)))
	}
	for _, one := range all {
		apply(t, b, add(one))
	}
	apply(t, b, allow("198.51.100.7/32", "2001:db8:1::/64"))
	for range 2 {
		closeIt(t, b)
	}
	ctx := t.Context()
	_, listErr := b.List(ctx)
	for op, err := range map[string]error{
		"init": b.Init(ctx), "list": listErr, "flush": b.Flush(ctx),
		"apply": b.Apply(ctx, add(block("192.0.2.1"))),
	} {
		if !errors.Is(err, backend.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", op, err)
		}
	}
	if s.Snapshot != nil {
		if after := s.Snapshot(t); after != before {
			t.Errorf("left behind after Close:\n%s\nbefore Init it was:\n%s", after, before)
		}
	}
}

// adoption: blocks outlive the instance that made them, with every field.
func adoption(t *testing.T, s Suite) {
	if !s.Persistent {
		return
	}
	first := s.New(t)
	if err := first.Init(t.Context()); err != nil {
		t.Fatalf("init: %v", err)
	}
	want := []backend.Block{
		block("192.0.2.1"), permanent(block("2001:db8::1")), lasting(block("198.51.100.0/24"), 24*time.Hour),
		towards(acting(lasting(block("2001:db8:2::/48"), 2*time.Hour), backend.Reject)),
	}
	apply(t, first, add(want...))
	detach(t, first)
	if err := first.Apply(t.Context(), add(block("192.0.2.2"))); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("apply after Detach: %v, want ErrClosed", err)
	}
	closeIt(t, first)
	second := s.start(t)
	s.wantList(t, second, want...)
	longer := lasting(want[0], 3*time.Hour)
	apply(t, second, backend.Change{Add: []backend.Block{longer}, Remove: want[1:2]})
	s.wantList(t, second, longer, want[2], want[3])
}

// blocks: every field of every kind of block comes back.
func blocks(t *testing.T, s Suite) {
	prefixes := []string{
		"192.0.2.1", "2001:db8::1", "192.0.2.0/24", "10.0.0.0/8", "172.16.32.0/19", "203.0.113.4/31", "128.0.0.0/1",
		"2001:db8::/64", "2001:db8::/32", "2001:db8:1:2:3::/80", "2001:db8::2/127", "8000::/1",
	}
	for _, a := range s.Actions {
		for _, target := range []backend.Target{backend.Source, backend.Destination} {
			t.Run(fmt.Sprintf("%s %s", a, target), func(t *testing.T) {
				b := s.start(t)
				var want []backend.Block
				for i, p := range prefixes {
					one := lasting(acting(block(p), a), time.Duration(i+1)*10*time.Minute)
					one.Target = target
					one.Rule = fmt.Sprintf("rule %d", i)
					if i%5 == 4 {
						one = permanent(one)
					}
					want = append(want, one)
				}
				apply(t, b, add(want...))
				s.wantList(t, b, want...)
				apply(t, b, remove(want[:6]...))
				s.wantList(t, b, want[6:]...)
			})
		}
	}
	t.Run("nested prefixes with ends of their own", func(t *testing.T) {
		b := s.start(t)
		want := []backend.Block{
			lasting(block("192.0.0.0/16"), 3*time.Hour), lasting(block("192.0.2.0/24"), time.Hour),
			lasting(block("192.0.2.1"), 2*time.Hour), permanent(block("192.0.2.128/25")),
		}
		apply(t, b, add(want...))
		s.wantList(t, b, want...)
		apply(t, b, remove(want[1]))
		s.wantList(t, b, want[0], want[2], want[3])
	})
	t.Run("both targets", func(t *testing.T) {
		b := s.start(t)
		source, destination := block("192.0.2.1"), lasting(towards(acting(block("192.0.2.1"), backend.Reject)), 2*time.Hour)
		apply(t, b, add(source, destination))
		s.wantList(t, b, source, destination)
		apply(t, b, remove(source))
		s.wantList(t, b, destination)
	})
	t.Run("lifetimes", func(t *testing.T) {
		b := s.start(t)
		var want []backend.Block
		for i, d := range []time.Duration{time.Minute, 90 * time.Second, 24 * time.Hour, 365 * 24 * time.Hour, 10 * 365 * 24 * time.Hour} {
			want = append(want, lasting(block(fmt.Sprintf("192.0.2.%d", i+1)), d))
		}
		apply(t, b, add(want...))
		s.wantList(t, b, want...)
	})
	t.Run("comments", func(t *testing.T) { comments(t, s) })
}
