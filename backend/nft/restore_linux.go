package nft

import (
	"context"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// reset is Apply of a Change with Rebuild: structure, blocks and allowed
// prefixes in one transaction. What is too large for one, or changes the action
// of a block (see plan.cut), is done in two steps that leave no moment without
// the blocks that are there and stay: first the structure around them, then the
// difference.
func (b *Backend) reset(ctx context.Context, c backend.Change) error {
	if !b.ready {
		return b.fail("rebuild", backend.ErrGone)
	}
	p, err := b.plan(backend.Change{Add: c.Add}, time.Now())
	if err != nil {
		return b.fail("rebuild", err)
	}
	l, err := b.inspect()
	if err == nil {
		err = b.mine(l)
	}
	if err != nil {
		return b.explain("read table", err, true)
	}
	g := goal{allow: b.allows(l), fill: make(map[kind][]entry)}
	if c.Allow != nil {
		g.allow = allowed(*c.Allow)
	}
	if err := b.prefixes(p); err != nil {
		return b.fail("rebuild", err)
	}
	moves := false
	if l.exists {
		if moves, err = b.meets(p, l.structure); err != nil {
			return b.explain("read table", err, false)
		}
	}
	for part := range runs(p.put) {
		g.fill[*part[0].kind] = part
	}
	if moves || len(p.put) > b.batch {
		return b.resetInSteps(ctx, l, c)
	}
	err = b.restore(l, g)
	if tooLong(err) {
		return b.resetInSteps(ctx, l, c)
	}
	if err != nil {
		return b.explain("rebuild", err, true)
	}
	b.allowed = g.allow
	return b.look()
}

func (b *Backend) resetInSteps(ctx context.Context, l live, c backend.Change) error {
	if !l.right {
		if err := b.mend(l); err != nil {
			return b.explain("rebuild", err, true)
		}
	}
	if err := b.look(); err != nil {
		return err
	}
	there, err := b.blocks()
	if err != nil {
		return b.explain("rebuild", err, false)
	}
	stays := make(map[backend.Slot]struct{}, len(c.Add))
	for _, one := range c.Add {
		stays[one.Slot()] = struct{}{}
	}
	there = slices.DeleteFunc(there, func(one backend.Block) bool { _, ok := stays[one.Slot()]; return ok })
	return b.Apply(ctx, backend.Change{Remove: there, Add: c.Add, Allow: c.Allow})
}

// look learns the structure as it is.
func (b *Backend) look() error {
	l, err := b.inspect()
	if err != nil {
		return b.explain("read table", err, false)
	}
	b.known = l.structure
	return nil
}

// meets looks up what is there for the blocks that the plan puts in: what
// replaces a block of the same action goes on counting where that one stands.
// It reports whether one of them is there with another action.
func (b *Backend) meets(p plan, s structure) (moves bool, err error) {
	var ask []question
	var about []*entry // nil for the set of another action
	for i := range p.put {
		e := &p.put[i]
		for k := range s.rules {
			switch {
			case k == *e.kind && b.config.Counters:
				about = append(about, e)
			case k != *e.kind && k.action != backend.Log && k.target == e.kind.target && k.v6 == e.kind.v6 && k.bits == e.kind.bits:
				about = append(about, nil)
			default:
				continue
			}
			ask = append(ask, question{k, e.addr.AsSlice()})
		}
	}
	answers, err := b.read.find(b.config.Table, ask)
	if err != nil {
		return false, err
	}
	for i, e := range answers {
		switch {
		case e == nil:
		case about[i] == nil:
			moves = true
		default:
			about[i].was = e
		}
	}
	return moves, nil
}
