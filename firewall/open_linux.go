package firewall

import (
	"context"
	"github.com/netcap-guard/netcap-guard/backend"
)

func openBackend(ctx context.Context, cfg ManagerConfig) (backend.Backend, error) {
	return nil, backend.ErrUnavailable
}
