//go:build !linux

package nft

import (
	"context"
	"fmt"
	"runtime"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Backend is the nftables backend. It exists on Linux only: elsewhere New
// returns an error and no Backend can be made.
type Backend struct{}

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Detacher = (*Backend)(nil)
	_ backend.Skipper  = (*Backend)(nil)
	_ backend.Watcher  = (*Backend)(nil)
	_ backend.Dropper  = (*Backend)(nil)
)

// New returns an error that wraps backend.ErrUnavailable.
func New(c Config) (*Backend, error) {
	if _, err := c.complete(); err != nil {
		return nil, (*Backend)(nil).fail("open", err)
	}
	return nil, (*Backend)(nil).unavailable("open")
}

// Name returns "nft".
func (*Backend) Name() string { return name }

// Init reports that there is no nftables here.
func (b *Backend) Init(context.Context) error { return b.unavailable("init") }

// Apply reports that there is no nftables here.
func (b *Backend) Apply(context.Context, backend.Change) error { return b.unavailable("apply") }

// List reports that there is no nftables here.
func (b *Backend) List(context.Context) ([]backend.Block, error) { return nil, b.unavailable("list") }

// Flush reports that there is no nftables here.
func (b *Backend) Flush(context.Context) error { return b.unavailable("flush") }

// Close has nothing to remove.
func (*Backend) Close(context.Context) error { return nil }

// Detach has nothing to release.
func (*Backend) Detach() error { return nil }

// Skipped is 0.
func (*Backend) Skipped() int { return 0 }

// Lookup reports that there is no nftables here.
func (b *Backend) Lookup(context.Context, []backend.Key) ([]backend.Status, error) {
	return nil, b.unavailable("lookup")
}

// Watch reports that there is no nftables here.
func (b *Backend) Watch(context.Context, chan<- struct{}, func(backend.Event)) error {
	return b.unavailable("watch")
}

// Dropped reports that there is no nftables here.
func (b *Backend) Dropped(context.Context) ([]backend.Drops, error) {
	return nil, b.unavailable("read counters")
}

func (b *Backend) unavailable(op string) error {
	return b.fail(op, fmt.Errorf("%w: nftables exists on Linux only, this is %s", backend.ErrUnavailable, runtime.GOOS))
}
