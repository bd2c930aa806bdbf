package firewall

import (
	"fmt"
	"math"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/iptables"
	"github.com/netcap-guard/netcap-guard/backend/nft"
)

// newBackend makes the named backend without touching the kernel's objects.
func newBackend(name string, cfg *ManagerConfig) (backend.Backend, error) {
	switch name {
	case BackendNFT:
		return nft.New(nft.Config{
			Table: cfg.ChainName, IPv4: cfg.EnableIPv4, IPv6: cfg.EnableIPv6, Logger: cfg.Logger,
			Counters: !cfg.NoBlockCounters, RejectRate: cfg.RejectRate,
			Protect: cfg.ProtectTable, LogGroup: cfg.LogGroup,
			SetSize: uint32(min(uint64(cfg.MaxActiveBlocks), math.MaxUint32)),
		})
	case BackendIPTables:
		return iptables.New(iptables.Config{
			Chain: cfg.ChainName, IPv4: cfg.EnableIPv4, IPv6: cfg.EnableIPv6, Logger: cfg.Logger,
			Variant: cfg.IPTablesVariant, RejectRate: int(min(cfg.RejectRate, math.MaxInt32)),
			CheckInterval: cfg.CheckInterval, LogGroup: cfg.LogGroup,
		})
	}
	return nil, fmt.Errorf("%w: backend %q", backend.ErrInvalid, name)
}
