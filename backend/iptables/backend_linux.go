package iptables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Watcher  = (*Backend)(nil)
	_ backend.Detacher = (*Backend)(nil)
	_ backend.Skipper  = (*Backend)(nil)
	_ backend.Dropper  = (*Backend)(nil)
)

// Backend keeps blocks in the chain. It has one owner, as backend.Backend
// says; its methods are not safe for concurrent use. Each runs a program, or
// several, and looks at ctx between them.
type Backend struct {
	cfg    Config
	state  state
	chains [numFamilies]*chain
	// absent says why a family has no chain.
	absent [numFamilies]error

	ready, closed bool
	// stale: a rollback failed, so that the state may differ from the kernel.
	stale bool
}

// New checks the configuration. It runs no program and changes nothing: Init
// does. Errors wrap backend.ErrInvalid.
func New(cfg Config) (*Backend, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	return &Backend{cfg: cfg, state: state{entries: map[backend.Slot]*entry{}}}, nil
}

// Name is "iptables", whatever the variant.
func (b *Backend) Name() string { return name }

// Init makes the chain, the rules for neighbour discovery and the jumps, or
// repairs them, and adopts the blocks it finds; those whose end has passed are
// removed. Where one family has no program or no kernel support it warns and
// works with the other. Run again it reads the chain anew: List is then what
// the kernel has. Errors wrap backend.ErrUnavailable, ErrPermission, ErrLocked
// or ErrClosed.
func (b *Backend) Init(ctx context.Context) (err error) {
	if b.closed {
		return opError("init", backend.ErrClosed)
	}
	if !b.ready {
		b.absent = [numFamilies]error{}
	}
	var (
		done   [numFamilies]made
		found  reading
		chains = b.chains
	)
	defer func() {
		if err == nil {
			b.ready = true
			return
		}
		for i, c := range chains {
			if c != nil {
				err = errors.Join(err, c.undo(context.WithoutCancel(ctx), done[i]))
			}
		}
	}()
	for _, f := range b.wanted() {
		c, err := b.openFamily(f)
		if err == nil {
			found.structures[f.index], done[f.index], err = c.setup(ctx)
		}
		if err == nil {
			chains[f.index] = c
			continue
		}
		err = fmt.Errorf("failed to initialize iptables (%s): %w", f.label, err)
		if b.ready || !errors.Is(err, backend.ErrUnavailable) {
			return err
		}
		b.absent[f.index] = err
	}
	if chains == [numFamilies]*chain{} {
		return b.nothing()
	}
	if err := b.adopt(ctx, chains, found); err != nil {
		return err
	}
	b.chains, b.stale = chains, false
	b.warnSetup(ctx)
	return nil
}

// wanted are the families to set up: all that the configuration asks for the
// first time, later those that have a chain.
func (b *Backend) wanted() []family {
	var out []family
	for i, f := range families() {
		if b.ready && b.chains[i] == nil || !b.ready && !b.enabled(f) {
			continue
		}
		out = append(out, f)
	}
	return out
}

func (b *Backend) enabled(f family) bool {
	if f.index == 0 {
		return b.cfg.IPv4
	}
	return b.cfg.IPv6
}

func (b *Backend) openFamily(f family) (*chain, error) {
	if c := b.chains[f.index]; c != nil {
		return c, nil
	}
	return openChain(f, b.cfg)
}

// nothing is the error of an Init that found no family to work with.
func (b *Backend) nothing() error {
	var out error
	for _, err := range b.absent {
		switch {
		case err == nil:
		case out == nil:
			out = err
		default:
			out = fmt.Errorf("%w; %w", out, err)
		}
	}
	return out
}

// adopt takes over what was found in the chains and clears up what needs no
// block.
func (b *Backend) adopt(ctx context.Context, chains [numFamilies]*chain, found reading) error {
	b.state.reload(found.lines())
	p, err := b.state.planTidy(time.Now(), abilities(chains))
	if err != nil {
		return err
	}
	if err := b.commit(ctx, chains, p); err != nil {
		return err
	}
	b.state.accept(p)
	return nil
}

// warnSetup says, the first time, what this machine lacks or has twice.
func (b *Backend) warnSetup(ctx context.Context) {
	if b.ready {
		return
	}
	for _, err := range b.absent {
		if err != nil {
			b.cfg.Logger.Warn("one address family is not guarded", "error", err)
		}
	}
	b.warnOther(ctx)
	for _, c := range b.chains {
		if c != nil && c.can.noTime {
			b.cfg.Logger.Warn("kernel module xt_time is missing: blocks end only while this process runs", "family", c.label)
			return
		}
	}
}

// read lists the chains into the state.
func (s *state) read(ctx context.Context, chains [numFamilies]*chain) (r reading, err error) {
	for i, c := range chains {
		if c == nil {
			continue
		}
		if r.structures[i], err = c.read(ctx); err != nil {
			return r, err
		}
		if r.structures[i].hidden {
			r.structures[i].lines = s.known(i) // nothing says otherwise
		}
	}
	r.changed = s.reload(r.lines())
	return r, nil
}

// refresh reads the chains. Until they are all there every Apply does it
// again, so that it need not guess what became of them.
func (b *Backend) refresh(ctx context.Context) (reading, error) {
	r, err := b.state.read(ctx, b.chains)
	if err == nil {
		b.stale = r.gone()
	}
	return r, err
}

// usable reports an error where Init has not run or Close has.
func (b *Backend) usable(op string) error {
	switch {
	case b.closed:
		return opError(op, backend.ErrClosed)
	case !b.ready:
		return opError(op, fmt.Errorf("%w: Init has not run", backend.ErrGone))
	}
	return nil
}

// List runs iptables once a family and looks at chain, jumps and the rules for
// neighbour discovery: backend.ErrGone where no family has our chain,
// backend.ErrDamaged, with each reason in words, where anything else is not as
// Init makes it, beside the blocks that are there. Blocks whose end has passed are not in it.
// A block that lies wholly inside the allow list has no rule; it is in the list
// for as long as this Backend lives, because its rule comes back when the allow
// list no longer covers it, but no later process can adopt it.
//
// Before Init, List looks at what an earlier or another process left and
// changes nothing; where no family has our chain that is backend.ErrGone.
func (b *Backend) List(ctx context.Context) ([]backend.Block, error) {
	if !b.closed && !b.ready {
		return b.look(ctx)
	}
	if err := b.usable("list"); err != nil {
		return nil, err
	}
	r, err := b.refresh(ctx)
	if err != nil {
		return nil, err
	}
	return b.state.blocks(time.Now()), r.fault()
}

// Skipped is the number of rules in our chains that are not ours, when they
// were last read. They are left alone for as long as the chain exists.
func (b *Backend) Skipped() int {
	n := 0
	for _, c := range b.chains {
		if c != nil {
			n += c.foreign
		}
	}
	return n
}

// Flush reads the chains and removes every rule of ours from them. Rules of
// somebody else stay. Where no family has our chain that is backend.ErrGone.
func (b *Backend) Flush(ctx context.Context) error {
	if err := b.usable("flush"); err != nil {
		return err
	}
	r, err := b.refresh(ctx)
	if err != nil {
		return err
	}
	p := b.state.planFlush()
	if err := b.commit(ctx, b.chains, p); err != nil {
		return err
	}
	b.state.accept(p)
	if err := r.fault(); errors.Is(err, backend.ErrGone) {
		return err
	}
	return nil
}

// Close removes the jumps and deletes the chains, with everything in them:
// rules that somebody else put into our chain go too, after a warning. Where a
// family fails the other is still closed, the errors are joined and Close may
// be called again. Where the configuration leaves the variant open, the chain
// of the other variant goes as well. Without Init it cleans up after an earlier
// process (after an Init that failed, Detach is what changes nothing).
// Afterwards every method but Close and Detach returns backend.ErrClosed.
func (b *Backend) Close(ctx context.Context) error {
	if b.closed {
		return nil
	}
	var err error
	if b.ready {
		err = b.takeAway(ctx, b.chains[:])
	} else {
		err = b.clean(ctx)
	}
	b.closed = err == nil
	return err
}

// Detach ends the use of the Backend and leaves chain, jumps and blocks in the
// kernel. It holds nothing between calls, so there is nothing to release.
func (b *Backend) Detach() error {
	b.closed = true
	return nil
}
