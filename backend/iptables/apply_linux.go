package iptables

import (
	"cmp"
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
// Errors wrap backend.ErrInvalid, ErrUnsupported (see
// backend.CheckLimit),
// ErrUnavailable (the family is off), ErrLocked, ErrPermission, ErrGone,
// ErrFull or ErrClosed.
func (b *Backend) Apply(ctx context.Context, c backend.Change) error {
	if err := b.usable("apply"); err != nil {
		return err
	}
	if err := b.check(c); err != nil {
		return opError("apply", err)
	}
	if c.Rebuild {
		return b.rebuild(ctx, c)
	}
	if b.stale {
		if _, err := b.reread(ctx, c); err != nil {
			return err
		}
	}
	p, err := b.try(ctx, c)
	if err == nil || final(err) {
		b.done(p, err)
		return err
	}
	changed, missing := b.reread(ctx, c)
	if missing != nil || !changed {
		return cmp.Or(missing, err)
	}
	// Somebody else removed rules of ours; with what is there now, again.
	p, err = b.try(ctx, c)
	b.done(p, err)
	return err
}

// reread brings the state up to date. It reports whether the blocks were not
// what they were taken for, and fails where the change cannot be made because
// a chain is gone.
func (b *Backend) reread(ctx context.Context, c backend.Change) (changed bool, err error) {
	r, err := b.refresh(ctx)
	if err != nil {
		return false, err
	}
	return r.changed, opError("apply", r.misses(c))
}

// rebuildTries bounds how often a rebuild starts again because somebody else
// changed the table between its reading and its transaction.
const rebuildTries = 4

// rebuild puts the structure back and makes the blocks those of c.Add, in one
// transaction a family. Rules that are right already are not touched, nor are
// those of somebody else. Where the second family fails the blocks of the
// first are rolled back; its chain and jumps stay mended.
func (b *Backend) rebuild(ctx context.Context, c backend.Change) error {
	for n := 1; ; n++ {
		p, err := b.tryRebuild(ctx, c)
		if err == nil || final(err) || n == rebuildTries {
			b.done(p, err)
			return err
		}
	}
}

// tryRebuild reads the chains, works the rebuild out and commits it.
func (b *Backend) tryRebuild(ctx context.Context, c backend.Change) (*plan, error) {
	r, err := b.state.read(ctx, b.chains)
	if err != nil {
		return nil, err
	}
	b.stale = true // until it is done
	for i, s := range r.structures {
		if s != nil && s.hidden {
			b.cfg.Logger.Warn("rules in our chain that only nft can show go", "chain", s.name, "family", s.family.label)
			b.state.forget(i) // mend takes all rules out
		}
	}
	p, err := b.state.planRebuild(c, time.Now(), b.can())
	if err != nil {
		return nil, opError("apply", err)
	}
	for i, s := range r.structures {
		if s != nil {
			p.edits[i].mend = s.mend()
		}
	}
	if err := b.commit(ctx, b.chains, p); err != nil {
		return nil, err
	}
	b.stale = false
	return p, nil
}

// try works the Change out and commits it.
func (b *Backend) try(ctx context.Context, c backend.Change) (*plan, error) {
	p, err := b.state.plan(c, time.Now(), b.can())
	if err != nil {
		return nil, opError("apply", err)
	}
	if err := b.recount(ctx, p); err != nil {
		return nil, err
	}
	return p, b.commit(ctx, b.chains, p)
}

// recount reads the counters of the families that lose rules in the plan, as
// late as can be: what such a rule counts afterwards, until it is gone, is lost
// (a few milliseconds' packets). A chain that is missing has nothing to lose.
func (b *Backend) recount(ctx context.Context, p *plan) error {
	var read []line
	for i, c := range b.chains {
		if c == nil || len(p.edits[i].del) == 0 {
			continue
		}
		l, err := c.count(ctx)
		if err != nil && !errors.Is(err, backend.ErrGone) {
			return err
		}
		read = append(read, l...)
	}
	b.state.recount(read)
	return nil
}

// Dropped is what our rules have stopped, those that are gone included, since
// this Backend's Init, which takes over what the rules that it finds have
// counted. It runs iptables once a family and reads the whole chain, so it
// costs what List costs, and it should not be asked more often. What a rule
// stops between its last reading and its end is not counted: a few milliseconds
// where this Backend removes it, up to the interval of List where somebody else
// does. A chain that was deleted and put back goes on counting.
func (b *Backend) Dropped(ctx context.Context) ([]backend.Drops, error) {
	if err := b.usable("count drops"); err != nil {
		return nil, err
	}
	if _, err := b.refresh(ctx); err != nil {
		return nil, err
	}
	var out []backend.Drops
	for i, counts := range b.state.stopped() {
		for a, n := range counts {
			out = append(out, backend.Drops{Action: backend.Action(a), Is6: i == 1, Packets: n})
		}
	}
	return out, nil
}

// done records what the kernel has taken.
func (b *Backend) done(p *plan, err error) {
	if err != nil {
		return
	}
	b.state.accept(p)
}

// Rules is how many rules of ours the longer of the two chains has, as far as
// is known without looking: what a packet that nothing blocks is compared with.
func (b *Backend) Rules() int {
	n := b.state.rules()
	return max(n[0], n[1])
}

// final reports whether an error cannot come from a table that is not what we
// took it for, so that another try makes no sense.
func final(err error) bool {
	for _, is := range []error{
		backend.ErrLocked, backend.ErrPermission, backend.ErrUnavailable, backend.ErrUnsupported,
		backend.ErrInvalid, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

func (b *Backend) can() [numFamilies]features { return abilities(b.chains) }

// abilities is what each family can do.
func abilities(chains [numFamilies]*chain) [numFamilies]features {
	var out [numFamilies]features
	for i, c := range chains {
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
		if a.Action == backend.RateLimit {
			if err := backend.CheckLimit(name, a.Limit); err != nil {
				return fmt.Errorf("%s: %w", a.Key, err)
			}
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
	b.state.carry(p, abilities(chains))
	for i, c := range chains {
		if c == nil {
			continue
		}
		if p.edits[i].empty() {
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
			if back.empty() {
				continue
			}
			if e := d.apply(context.WithoutCancel(ctx), back); e != nil {
				b.stale = true
				err = errors.Join(err, fmt.Errorf("roll back: %w", e))
			}
		}
		return err
	}
	return nil
}
