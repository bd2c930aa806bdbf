package iptables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Apply makes the Change. One addition or removal is one run of iptables,
// anything more one transaction of iptables-restore a family. A replacement
// is the removal of the old rule and the addition of the new one in one
// transaction. An end that iptables cannot express (after 2038-01-19) is an
// error, never cut short.
//
// Errors wrap backend.ErrInvalid, ErrUnsupported (RateLimit, Log),
// ErrUnavailable (the family is off), ErrLocked, ErrPermission, ErrGone,
// ErrFull or ErrClosed.
func (b *Backend) Apply(ctx context.Context, c backend.Change) error {
	if err := b.usable("apply"); err != nil {
		return err
	}
	if err := b.check(c); err != nil {
		return opError("apply", err)
	}
	if b.stale {
		if _, err := b.state.read(ctx, b.chains); err != nil {
			return err
		}
		b.stale = false
	}
	p, err := b.try(ctx, c)
	if err == nil || !b.differs(ctx, &err) {
		b.done(p, err)
		return err
	}
	// Somebody else removed rules of ours; with what is there now, again.
	p, err = b.try(ctx, c)
	b.done(p, err)
	return err
}

// try works the Change out and commits it.
func (b *Backend) try(ctx context.Context, c backend.Change) (*plan, error) {
	p, err := b.state.plan(c, time.Now(), b.can())
	if err != nil {
		return nil, opError("apply", err)
	}
	return p, b.commit(ctx, b.chains, p)
}

// done records what the kernel has taken.
func (b *Backend) done(p *plan, err error) {
	if err != nil {
		return
	}
	b.state.accept(p)
	if b.warnedMany {
		return
	}
	for i, n := range b.state.rules() {
		if n > manyRules {
			b.warnedMany = true
			b.cfg.Logger.Warn("every packet is compared with every rule of the chain: use backend nft for so many blocks",
				"family", families()[i].label, "chain", b.cfg.Chain, "rules", n)
		}
	}
}

// differs reads the chains after a failure and reports whether they are not
// what we took them for, so that another try makes sense. Where the chain is
// gone the error becomes backend.ErrGone.
func (b *Backend) differs(ctx context.Context, err *error) bool {
	for _, final := range []error{
		backend.ErrLocked, backend.ErrPermission, backend.ErrUnavailable, backend.ErrUnsupported,
		backend.ErrInvalid, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(*err, final) {
			return false
		}
	}
	changed, e := b.state.read(ctx, b.chains)
	if e != nil {
		*err = e
		return false
	}
	return changed
}

func (b *Backend) can() [numFamilies]features {
	var out [numFamilies]features
	for i, c := range b.chains {
		if c != nil {
			out[i] = c.can
		}
	}
	return out
}

// check refuses what cannot be done, before anything is tried.
func (b *Backend) check(c backend.Change) error {
	if err := c.Validate(); err != nil {
		return err
	}
	for _, a := range c.Add {
		if !a.Action.Stops() {
			return fmt.Errorf("%w: %s of %s (backend iptables drops and rejects)", backend.ErrUnsupported, a.Action, a.Prefix)
		}
		i := familyOf(a.Prefix.Addr())
		if b.chains[i] != nil {
			continue
		}
		if b.absent[i] != nil {
			return fmt.Errorf("%s: %w", a.Key, b.absent[i])
		}
		return fmt.Errorf("%s: %w: %s is switched off", a.Key, backend.ErrUnavailable, families()[i].label)
	}
	return nil
}

// commit makes the plan's edits: one transaction a family. Where the second
// family fails the first is rolled back.
func (b *Backend) commit(ctx context.Context, chains [numFamilies]*chain, p *plan) error {
	for i, c := range chains {
		if c == nil {
			continue
		}
		err := c.apply(ctx, p.edits[i])
		if err == nil {
			continue
		}
		for j, d := range chains[:i] {
			if d == nil {
				continue
			}
			back := edit{del: p.edits[j].add, add: p.edits[j].del}
			if e := d.apply(context.WithoutCancel(ctx), back); e != nil {
				b.stale = true
				err = errors.Join(err, fmt.Errorf("roll back: %w", e))
			}
		}
		return err
	}
	return nil
}
