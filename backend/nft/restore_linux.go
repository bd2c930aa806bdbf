package nft

import (
	"context"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/netcap-guard/netcap-guard/backend"
)

// reset is Apply of a Change with Rebuild: structure, blocks and allowed
// prefixes in one transaction. What is too large for one is done in two steps
// that leave no moment without the blocks that are there and stay: first the
// structure around them, then the difference.
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
	g := goal{allow: b.allows(l), fill: make(map[kind][]nftables.SetElement)}
	if c.Allow != nil {
		g.allow = allowed(*c.Allow)
	}
	if l.exists {
		if err := b.keepCounts(p, l.structure); err != nil {
			return b.explain("read counters", err, false)
		}
	}
	for _, add := range grouped(p.units, func(u unit) []entry { return u.add }) {
		g.fill[add.kind] = add.elems
	}
	if len(p.units) > b.batch {
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

// keepCounts lets what replaces a block of the same action go on counting
// where that one stands.
func (b *Backend) keepCounts(p plan, s structure) error {
	if !b.config.Counters {
		return nil
	}
	var questions []question
	var at []*nftables.SetElement
	for i := range p.units {
		for j := range p.units[i].add {
			e := &p.units[i].add[j]
			if _, known := s.rules[e.kind]; known {
				questions, at = append(questions, question{e.kind, e.elem.Key}), append(at, &e.elem)
			}
		}
	}
	answers, err := b.read.find(b.config.Table, questions)
	if err != nil {
		return err
	}
	for i, e := range answers {
		if e != nil {
			at[i].Counter = e.counter()
		}
	}
	return nil
}
