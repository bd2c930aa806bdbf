package backend_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

func host(addr string) backend.Key {
	return backend.Key{Prefix: backend.Host(netip.MustParseAddr(addr))}
}

// TestTamper: each tampering and the events that it raises.
func TestTamper(t *testing.T) {
	one, two, wide := host("192.0.2.1"), host("192.0.2.2"), backend.Key{Prefix: netip.MustParsePrefix("10.0.0.0/8")}
	tests := []struct {
		name string
		do   backend.Tampering
		want []string
	}{
		{"one removed", backend.Tampering{Remove: []backend.Key{one}, By: "x (1)"}, []string{`removed [source 192.0.2.1/32] by "x (1)"`}},
		{"one each of two sets", backend.Tampering{Remove: []backend.Key{wide, one}}, []string{`removed [source 10.0.0.0/8 source 192.0.2.1/32] by ""`}},
		{"a set emptied", backend.Tampering{Remove: []backend.Key{two, one, wide}}, []string{
			`removed [source 10.0.0.0/8] by ""`, `emptied [source 192.0.2.1/32 source 192.0.2.2/32] by ""`}},
		{"nothing there", backend.Tampering{Remove: []backend.Key{host("192.0.2.3")}}, nil},
		{"added", backend.Tampering{Add: []backend.Block{{Key: host("192.0.2.3")}}}, []string{`look [] by ""`}},
		{"damaged", backend.Tampering{Damage: "chain gone", Remove: []backend.Key{one}}, []string{`damaged [] by ""`}},
		{"gone", backend.Tampering{Gone: true}, []string{`damaged [] by ""`}},
		{"lost", backend.Tampering{Gone: true, Lost: true}, []string{`look [] by ""`}},
		{"quiet", backend.Tampering{Gone: true, Quiet: true}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := backend.NewMemory(nil)
				if err := m.Init(t.Context()); err != nil {
					t.Fatal(err)
				}
				c := backend.Change{Add: []backend.Block{{Key: one}, {Key: two}, {Key: wide}}}
				if err := m.Apply(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				var got []string
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() {
					done <- m.Watch(ctx, nil, func(e backend.Event) { got = append(got, fmt.Sprintf("%s %v by %q", e.Kind, e.Keys, e.By)) })
				}()
				synctest.Wait()
				m.Tamper(test.do)
				synctest.Wait()
				cancel()
				if err := <-done; err != nil || !slices.Equal(got, test.want) {
					t.Errorf("events %q (%v), want %q", got, err, test.want)
				}
			})
		})
	}
}

// TestTamperStops: what is damaged stops nothing until it is put right.
func TestTamperStops(t *testing.T) {
	m := backend.NewMemory(nil)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := backend.Block{Key: host("192.0.2.1"), CreatedAt: time.Now()}
	src, dst := b.Prefix.Addr(), netip.MustParseAddr("198.51.100.1")
	for _, c := range []backend.Tampering{{Damage: "jump gone"}, {Gone: true}} {
		if err := m.Apply(t.Context(), backend.Change{Rebuild: true, Add: []backend.Block{b}}); err != nil || m.Passes(src, dst) {
			t.Fatalf("before: %v, passes %t", err, m.Passes(src, dst))
		}
		m.Tamper(c)
		if !m.Passes(src, dst) {
			t.Errorf("%+v: still stops", c)
		}
	}
	err := m.Apply(t.Context(), backend.Change{Add: []backend.Block{b}})
	if !errors.Is(err, backend.ErrGone) || !errors.Is(m.Flush(t.Context()), backend.ErrGone) {
		t.Errorf("apply without a table: %v", err)
	}
	if err := m.Init(t.Context()); err != nil || !m.Passes(src, dst) {
		t.Errorf("after Init: %v, passes %t: the block was gone", err, m.Passes(src, dst))
	}
}

// TestWatchRefused: a Watch needs Init, and there is one at a time.
func TestWatchRefused(t *testing.T) {
	m := backend.NewMemory(nil)
	nobody := func(backend.Event) {}
	if err := m.Watch(t.Context(), nil, nobody); !errors.Is(err, backend.ErrGone) {
		t.Errorf("watch before Init: %v", err)
	}
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- m.Watch(ctx, ready, nobody) }()
	<-ready
	if err := m.Watch(t.Context(), nil, nobody); !errors.Is(err, backend.ErrInvalid) {
		t.Errorf("a second watch: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("watch: %v", err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Watch(t.Context(), nil, nobody); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("watch after Close: %v", err)
	}
}

// TestValidate: what no backend may touch a kernel for.
func TestValidate(t *testing.T) {
	good := backend.Block{Key: host("192.0.2.1")}
	with := func(change func(*backend.Block)) backend.Change {
		b := good
		change(&b)
		return backend.Change{Add: []backend.Block{b}}
	}
	tests := []struct {
		name string
		c    backend.Change
		ok   bool
	}{
		{"nothing", backend.Change{}, true},
		{"a host", backend.Change{Add: []backend.Block{good}, Remove: []backend.Block{good, good}}, true},
		{"every IPv4 address", with(func(b *backend.Block) { b.Prefix = netip.MustParsePrefix("0.0.0.0/0") }), true},
		{"every IPv6 address", with(func(b *backend.Block) { b.Prefix = netip.MustParsePrefix("::/0") }), true},
		{"every address allowed", backend.Change{Allow: &[]netip.Prefix{netip.MustParsePrefix("::/0")}}, true},
		{"no prefix", with(func(b *backend.Block) { b.Prefix = netip.Prefix{} }), false},
		{"host bits", with(func(b *backend.Block) { b.Prefix = netip.MustParsePrefix("192.0.2.1/0") }), false},
		{"mapped", with(func(b *backend.Block) { b.Prefix = netip.MustParsePrefix("::ffff:192.0.2.1/128") }), false},
		{"target", with(func(b *backend.Block) { b.Target = 2 }), false},
		{"action", with(func(b *backend.Block) { b.Action = 99 }), false},
		{"log flag", with(func(b *backend.Block) { b.Log = true }), false},
		{"rate missing", with(func(b *backend.Block) { b.Action = backend.RateLimit }), false},
		{"rate", with(func(b *backend.Block) {
			b.Action, b.Limit = backend.RateLimit, backend.Limit{Rate: 1, Per: time.Second, Burst: 1}
		}), true},
		{"rate without a burst", with(func(b *backend.Block) {
			b.Action, b.Limit = backend.RateLimit, backend.Limit{Rate: 1, Per: time.Second}
		}), false},
		{"a limit that nothing asks for", with(func(b *backend.Block) { b.Limit.Rate = 1 }), false},
		{"a prefix that nothing asks for", with(func(b *backend.Block) { b.LogPrefix = "x" }), false},
		{"log prefix", with(func(b *backend.Block) { b.Action, b.Log, b.LogPrefix = backend.Log, true, "NETCAP: " }), true},
		{"log prefix with a quote", with(func(b *backend.Block) { b.Action, b.Log, b.LogPrefix = backend.Log, true, `"` }), false},
		{"twice", backend.Change{Add: []backend.Block{good, good}}, false},
		{"bad removal", backend.Change{Remove: []backend.Block{{}}}, false},
		{"bad removal that nobody looks at", backend.Change{Rebuild: true, Remove: []backend.Block{{}}}, true},
		{"allowed with host bits", backend.Change{Allow: &[]netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := test.c.Validate(); (err == nil) != test.ok || err != nil && !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("%v, want valid %t", err, test.ok)
			}
		})
	}
	if (backend.Change{Rebuild: true}).Empty() || (backend.Change{Rebuild: true}).String() != "rebuild" {
		t.Error("a rebuild alone is a change, printed as rebuild")
	}
}
