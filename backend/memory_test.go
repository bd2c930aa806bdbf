package backend_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
)

func TestMemoryContract(t *testing.T) {
	backendtest.Run(t, backendtest.Suite{
		New:     func(testing.TB) backend.Backend { return backend.NewMemory(nil) },
		Actions: backend.Actions(),
		NewFull: func(_ testing.TB, n int) backend.Backend {
			m := backend.NewMemory(nil)
			m.SetCapacity(n)
			return m
		},
		Packets: func(testing.TB) backendtest.Prober { return tracer{} },
		Foreign: &backendtest.Foreign{
			Remove: func(t testing.TB, b backend.Backend, blocks ...backend.Block) {
				for _, one := range blocks {
					memory(t, b).Tamper(backend.Tampering{Remove: []backend.Key{one.Key}, By: "somebody (1)"})
				}
			},
			Empty: func(t testing.TB, b backend.Backend) {
				blocks, err := b.List(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var c backend.Tampering
				for _, one := range blocks {
					if one.Action == backend.Drop && one.Target == backend.Source && one.Prefix.Bits() == 32 {
						c.Remove = append(c.Remove, one.Key)
					}
				}
				memory(t, b).Tamper(c)
			},
			Damages: []backendtest.Damage{
				{Name: "damaged", Do: func(t testing.TB, b backend.Backend) { memory(t, b).Tamper(backend.Tampering{Damage: "jump gone"}) }},
				{Name: "gone", Gone: true, Do: func(t testing.TB, b backend.Backend) { memory(t, b).Tamper(backend.Tampering{Gone: true}) }},
			},
		},
	})
}

func memory(t testing.TB, b backend.Backend) *backend.Memory {
	t.Helper()
	m, ok := b.(*backend.Memory)
	if !ok {
		t.Fatalf("%T is no *backend.Memory", b)
	}
	return m
}

// tracer lets the packet tests run on what Memory says of a packet.
type tracer struct{}

func (tracer) Probe(t testing.TB, b backend.Backend, p backendtest.Proto, from, to netip.Addr) backendtest.Outcome {
	by, stopped := memory(t, b).Stops(from, to)
	switch {
	case !stopped:
		return backendtest.Passed
	case by.Action == backend.RejectReset && p == backendtest.TCP:
		return backendtest.Reset
	case by.Action == backend.Drop:
		return backendtest.Silent
	}
	return backendtest.Unreachable
}

func (tracer) ForgetNeighbours(testing.TB) {}

// Resolve: Memory stops no neighbour discovery, it has no link.
func (tracer) Resolve(testing.TB, netip.Addr) bool { return true }

// TestMemoryClock: a replay's clock decides what is in force, in both
// directions of a trace.
func TestMemoryClock(t *testing.T) {
	now := at(1_700_000_000_000)
	m := backend.NewMemory(func() time.Time { return now })
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	attacker, victim := netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	host := backend.Block{Key: backend.Key{Prefix: backend.Host(attacker)}, Action: backend.Reject, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	network := backend.Block{Key: backend.Key{Prefix: netip.MustParsePrefix("192.0.2.0/24")}, CreatedAt: now, ExpiresAt: now.Add(2 * time.Hour)}
	if err := m.Apply(t.Context(), backend.Change{Add: []backend.Block{network, host}}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		by    int // the length of the prefix that stops; 0: passes
		list  int
	}{{0, 32, 2}, {time.Hour - 1, 32, 2}, {time.Hour, 24, 1}, {2*time.Hour - 1, 24, 1}, {2 * time.Hour, 0, 0}} {
		now = host.CreatedAt.Add(step.after)
		by, stopped := m.Stops(attacker, victim)
		if stopped != (step.by > 0) || stopped && by.Prefix.Bits() != step.by || m.Passes(attacker, victim) == stopped {
			t.Errorf("after %s stopped %t by %s", step.after, stopped, by.Prefix)
		}
		if got, err := m.List(t.Context()); err != nil || len(got) != step.list {
			t.Errorf("after %s listed %v, %v", step.after, got, err)
		}
		if !m.Passes(victim, attacker) {
			t.Errorf("after %s a source block stops what goes to the attacker", step.after)
		}
	}
}

// TestMemoryAllowed: the list is remembered and belongs to nobody else.
func TestMemoryAllowed(t *testing.T) {
	m := backend.NewMemory(nil)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	mine := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	if err := m.Apply(t.Context(), backend.Change{Allow: &mine}); err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(mine)
	mine[0] = netip.MustParsePrefix("0.0.0.0/0")
	m.Allowed()[1] = mine[0]
	if got := m.Allowed(); !slices.Equal(got, want) {
		t.Errorf("allowed %v, want %v", got, want)
	}
	if err := m.Flush(t.Context()); err != nil || !slices.Equal(m.Allowed(), want) {
		t.Errorf("after Flush allowed %v (%v), want %v", m.Allowed(), err, want)
	}
}

// BenchmarkMemoryApply is one block made and lifted beside others that stay.
func BenchmarkMemoryApply(b *testing.B) {
	for _, n := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			now := at(1_700_000_000_000)
			m := backend.NewMemory(func() time.Time { return now })
			if err := m.Init(b.Context()); err != nil {
				b.Fatal(err)
			}
			numbered := func(i int) backend.Block {
				addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
				return backend.Block{Key: backend.Key{Prefix: backend.Host(addr)}, CreatedAt: now, ExpiresAt: now.Add(time.Hour + time.Duration(i)*time.Second)}
			}
			var c backend.Change
			for i := range n {
				c.Add = append(c.Add, numbered(i+1))
			}
			if err := m.Apply(b.Context(), c); err != nil {
				b.Fatal(err)
			}
			one := []backend.Block{numbered(0)}
			for b.Loop() {
				if err := m.Apply(b.Context(), backend.Change{Add: one}); err != nil {
					b.Fatal(err)
				}
				if err := m.Apply(b.Context(), backend.Change{Remove: one}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestMemoryEnds: blocks of every order of ends, extended, replaced and lifted
// at random, end when they should and never count against the room after it.
func TestMemoryEnds(t *testing.T) {
	now := at(1_700_000_000_000)
	m := backend.NewMemory(func() time.Time { return now })
	const room = 20
	m.SetCapacity(room)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	want := map[backend.Slot]time.Time{}
	for step := range 5000 {
		now = now.Add(time.Duration(rng.IntN(4)) * time.Second)
		maps.DeleteFunc(want, func(_ backend.Slot, end time.Time) bool { return !end.IsZero() && !now.Before(end) })
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(40))})
		b := backend.Block{Key: backend.Key{Prefix: backend.Host(addr)}, Action: backend.Action(rng.IntN(2)), CreatedAt: now}
		if rng.IntN(8) > 0 {
			b.ExpiresAt = now.Add(time.Duration(rng.IntN(90)) * time.Second) // some are over at once
		}
		switch n := rng.IntN(20); {
		case n == 0:
			if err := m.Apply(t.Context(), backend.Change{Rebuild: true, Add: []backend.Block{b}}); err != nil {
				t.Fatal(err)
			}
			clear(want)
		case n < 7:
			if err := m.Apply(t.Context(), backend.Change{Remove: []backend.Block{b, b}}); err != nil {
				t.Fatal(err)
			}
			delete(want, b.Slot())
			continue
		default:
			_, had := want[b.Slot()]
			full := len(want) == room && !had && !b.Expired(now)
			if err := m.Apply(t.Context(), backend.Change{Add: []backend.Block{b}}); errors.Is(err, backend.ErrFull) != full || !full && err != nil {
				t.Fatalf("step %d, %d blocks: %v", step, len(want), err)
			}
			if full {
				continue
			}
		}
		delete(want, b.Slot())
		if !b.Expired(now) {
			want[b.Slot()] = b.ExpiresAt
		}
		got := map[backend.Slot]time.Time{}
		list, err := m.List(t.Context())
		for _, one := range list {
			got[one.Slot()] = one.ExpiresAt
		}
		if err != nil || !maps.Equal(got, want) {
			t.Fatalf("step %d: %v, %v, want %v", step, got, err, want)
		}
	}
}
