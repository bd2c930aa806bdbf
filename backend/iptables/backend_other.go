//go:build !linux

package iptables

import (
	"context"
	"fmt"

	"github.com/netcap-guard/netcap-guard/backend"
)

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Watcher  = (*Backend)(nil)
	_ backend.Detacher = (*Backend)(nil)
	_ backend.Skipper  = (*Backend)(nil)
	_ backend.Dropper  = (*Backend)(nil)
)

// errNotLinux is what every operation returns on this system.
var errNotLinux = fmt.Errorf("%w: iptables is only on Linux", backend.ErrUnavailable)

// Backend cannot work on this system: there is no iptables.
type Backend struct{}

// New checks the configuration and returns an error that wraps
// backend.ErrInvalid or backend.ErrUnavailable.
func New(cfg Config) (*Backend, error) {
	if _, err := cfg.complete(); err != nil {
		return nil, err
	}
	return nil, opError("open", errNotLinux)
}

// Name is "iptables".
func (*Backend) Name() string { return name }

// Init returns an error that wraps backend.ErrUnavailable.
func (*Backend) Init(context.Context) error { return opError("init", errNotLinux) }

// Apply returns an error that wraps backend.ErrUnavailable.
func (*Backend) Apply(context.Context, backend.Change) error { return opError("apply", errNotLinux) }

// List returns an error that wraps backend.ErrUnavailable.
func (*Backend) List(context.Context) ([]backend.Block, error) {
	return nil, opError("list", errNotLinux)
}

// Flush returns an error that wraps backend.ErrUnavailable.
func (*Backend) Flush(context.Context) error { return opError("flush", errNotLinux) }

// Close does nothing: there is nothing of ours.
func (*Backend) Close(context.Context) error { return nil }

// Detach does nothing.
func (*Backend) Detach() error { return nil }

// Skipped is 0.
func (*Backend) Skipped() int { return 0 }

// Lookup returns an error that wraps backend.ErrUnavailable.
func (*Backend) Lookup(context.Context, []backend.Key) ([]backend.Status, error) {
	return nil, opError("look up", errNotLinux)
}

// Watch returns an error that wraps backend.ErrUnavailable.
func (*Backend) Watch(context.Context, chan<- struct{}, func(backend.Event)) error {
	return opError("watch", errNotLinux)
}

// EndsOnWallClock is true.
func (*Backend) EndsOnWallClock() bool { return true }

// Dropped returns an error that wraps backend.ErrUnavailable.
func (*Backend) Dropped(context.Context) ([]backend.Drops, error) {
	return nil, opError("count drops", errNotLinux)
}

// Rules is 0.
func (*Backend) Rules() int { return 0 }
