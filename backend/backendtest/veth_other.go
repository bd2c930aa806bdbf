//go:build !linux

package backendtest

import (
	"context"
	"testing"
)

// Namespace is a network namespace for the peer. There are none on this
// system.
type Namespace interface {
	Do(f func() error) error
	IP(ctx context.Context, args ...string) error
}

// Veth fails the test: real packets need network namespaces.
func Veth(t testing.TB, _ string, _ Namespace) Prober {
	t.Helper()
	t.Fatal("packet tests need network namespaces, which exist on Linux only")
	return nil
}
