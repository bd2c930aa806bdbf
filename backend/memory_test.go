package backend_test

import (
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
