//go:build !linux

package firewall

import (
	"log/slog"

	"github.com/netcap-guard/netcap-guard/backend"
)

// chainLock has nothing to lock here.
type chainLock struct{}

func lockChain(string, *slog.Logger) (*chainLock, error) { return nil, ErrNotLinux }

func (*chainLock) release() error { return nil }

func newBackend(string, *ManagerConfig) (backend.Backend, error) { return nil, ErrNotLinux }
