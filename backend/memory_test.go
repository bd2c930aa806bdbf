package backend_test

import (
	"net/netip"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
)

func TestMemoryContract(t *testing.T) {
	backendtest.Run(t, backendtest.Suite{
		New: func(testing.TB) backend.Backend { return backend.NewMemory(nil) },
		NewFull: func(_ testing.TB, n int) backend.Backend {
			m := backend.NewMemory(nil)
			m.SetCapacity(n)
			return m
		},
		Packets: func(testing.TB) backendtest.Prober { return tracer{} },
	})
}

// tracer lets the packet tests run on what Memory says of a packet.
type tracer struct{}

func (tracer) Probe(t testing.TB, b backend.Backend, p backendtest.Proto, from, to netip.Addr) backendtest.Outcome {
	m, ok := b.(*backend.Memory)
	if !ok {
		t.Fatalf("%T is no *backend.Memory", b)
	}
	by, stopped := m.Stops(from, to)
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
