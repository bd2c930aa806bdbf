package firewall

import (
	"context"
	"errors"
	"fmt"

	"github.com/netcap-guard/netcap-guard/backend"
)

// candidates are the backends that a name stands for, in the order in which
// auto tries them.
func candidates(name string) []string {
	if name == BackendAuto {
		return []string{BackendNFT, BackendIPTables}
	}
	return []string{name}
}

// openBackend makes and initialises the backend that the configuration asks
// for; auto takes the first that works here at all. An error other than that
// is final: falling back to another backend because of a missing permission
// or a locked table would hide it.
func openBackend(ctx context.Context, cfg ManagerConfig) (backend.Backend, error) {
	var missing []error
	for _, name := range candidates(cfg.Backend) {
		b, err := newBackend(name, &cfg)
		if err == nil {
			if err = b.Init(ctx); err == nil {
				return b, nil
			}
			err = errors.Join(err, detach(b))
		}
		if !errors.Is(err, backend.ErrUnavailable) {
			return nil, err
		}
		missing = append(missing, err)
	}
	return nil, errors.Join(missing...)
}

// detach releases a backend and leaves the kernel as it is.
func detach(b backend.Backend) error {
	if d, ok := b.(backend.Detacher); ok {
		return d.Detach()
	}
	return nil
}

// Holding is what one backend was found to enforce.
type Holding struct {
	Backend string
	Blocks  []BlockInfo
	// Packets that each of the blocks has stopped, in their order; nil where
	// that is not known. Only the first 20,000 are asked for.
	Packets []*uint64
}

// Inspect lists what the kernel enforces for this chain name, in every
// backend the configuration allows, and changes nothing: it needs no lock and
// may run beside a guard. A backend that holds nothing of ours is left out. It
// fails if no backend could be asked.
func Inspect(ctx context.Context, config *ManagerConfig) ([]Holding, error) {
	cfg, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	var out []Holding
	err = eachBackend(&cfg, func(b backend.Backend) error {
		blocks, err := b.List(ctx)
		if errors.Is(err, backend.ErrGone) {
			return detach(b)
		}
		h := Holding{Backend: b.Name()}
		x := newIndex(cfg.Now())
		for _, blk := range blocks {
			x.put(&entry{Block: blk, by: inKernel})
		}
		for _, e := range x.list() {
			h.Blocks = append(h.Blocks, e.info())
		}
		if err == nil {
			h.Packets = counted(ctx, b, h.Blocks)
		}
		if err = errors.Join(err, detach(b)); err != nil {
			return err
		}
		out = append(out, h)
		return nil
	})
	return out, err
}

// Cleanup takes everything of ours out of the kernel, whether a guard runs or
// not, in every backend the configuration allows; nothing there is a success.
func Cleanup(ctx context.Context, config *ManagerConfig) error {
	cfg, err := config.withDefaults()
	if err != nil {
		return err
	}
	return eachBackend(&cfg, func(b backend.Backend) error { return b.Close(ctx) })
}

// eachBackend calls f for each backend that exists here. Backends that do not
// are passed over, unless none exists.
func eachBackend(cfg *ManagerConfig, f func(backend.Backend) error) error {
	var missing, failed []error
	names := candidates(cfg.Backend)
	for _, name := range names {
		b, err := newBackend(name, cfg)
		if err == nil {
			err = f(b)
		}
		switch {
		case errors.Is(err, backend.ErrPermission):
			return fmt.Errorf("firewall: %w", err) // the same for each of them: say it once
		case errors.Is(err, backend.ErrUnavailable):
			missing = append(missing, err)
		case err != nil:
			failed = append(failed, err)
		}
	}
	if len(missing) == len(names) {
		return errors.Join(missing...)
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	return nil
}
