package iptables

import (
	"context"
	"errors"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// find opens the programs of the families that the configuration asks for, to
// look at what is there or to take it away without Init. Nothing is changed.
// It fails where there is no program at all.
func (b *Backend) find() ([]*chain, error) {
	var (
		out    []*chain
		absent []error
	)
	for _, f := range families() {
		if !b.enabled(f) {
			continue
		}
		if c, err := openChain(f, b.cfg); err == nil {
			out = append(out, c)
		} else {
			absent = append(absent, err)
		}
	}
	if len(out) == 0 {
		return nil, absent[0]
	}
	return out, nil
}

// eachFound calls f for every family that works here. It fails where none
// does, else with the errors of those that should have.
func (b *Backend) eachFound(op string, f func(*chain) error) error {
	chains, err := b.find()
	if err != nil {
		return opError(op, err)
	}
	var absent, failed []error
	for _, c := range chains {
		switch err := f(c); {
		case errors.Is(err, backend.ErrPermission):
			return err // the next family would only say it again
		case errors.Is(err, backend.ErrUnavailable):
			absent = append(absent, err)
		case err != nil:
			failed = append(failed, err)
		}
	}
	if len(absent) == len(chains) {
		return absent[0]
	}
	return errors.Join(failed...)
}

// look lists the blocks of the chains as they are, without Init.
func (b *Backend) look(ctx context.Context) ([]backend.Block, error) {
	var (
		lines []line
		gone  error
		found bool
	)
	err := b.eachFound("list", func(c *chain) error {
		l, err := c.list(ctx)
		if errors.Is(err, backend.ErrGone) {
			gone = err
			return nil
		}
		found = found || err == nil
		lines = append(lines, l.lines...)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, gone
	}
	s := state{entries: map[backend.Slot]*entry{}}
	s.reload(lines)
	return s.blocks(time.Now()), nil
}

// clean takes away what an earlier process left, without Init.
func (b *Backend) clean(ctx context.Context) error {
	return b.eachFound("close", func(c *chain) error { return b.takeAway(ctx, []*chain{c}) })
}

// takeAway removes jumps and chains; nil is a family without iptables. Rules
// of somebody else in our chain are warned of where a Backend was at work.
func (b *Backend) takeAway(ctx context.Context, chains []*chain) error {
	var errs []error
	for _, c := range chains {
		if c == nil {
			continue
		}
		errs = append(errs, b.takeOne(ctx, c))
		if b.cfg.Variant != "" {
			continue
		}
		if o := c.other(ctx, b.cfg); o != nil {
			errs = append(errs, b.takeOne(ctx, o))
		}
	}
	return errors.Join(errs...)
}

func (b *Backend) takeOne(ctx context.Context, c *chain) error {
	s, err := c.read(ctx)
	if err != nil {
		return err
	}
	if s.foreign > 0 {
		b.cfg.Logger.Warn("rules of somebody else go with our chain", "chain", c.name, "family", c.label, "rules", s.foreign)
	}
	return c.remove(ctx, s)
}
