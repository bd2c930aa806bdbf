package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// minBatch is the smallest transaction worth trying where the kernel finds
// larger ones too long.
const minBatch = 16

// Apply makes the change in one netlink transaction, if it has at most 20,000
// elements, the socket buffer takes it and no block changes its action. A
// larger one is cut into several, and a changed action takes two, first in with
// the new block and then out with the old one. Where one of them fails, those
// before it are undone, and the error says if even that failed. In between,
// other programs can see the change half done.
func (b *Backend) Apply(ctx context.Context, c backend.Change) error {
	if err := b.usable(ctx, "apply"); err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return b.fail("apply", err)
	}
	if c.Rebuild {
		return b.reset(ctx, c)
	}
	p, err := b.plan(c, time.Now())
	if err != nil {
		return b.fail("apply", err)
	}
	if err := b.learn(p); err != nil {
		return b.explain("read table", err, false)
	}
	if err := b.keepCounts(p, b.known); err != nil {
		return b.explain("read counters", err, false)
	}
	p = p.without(func(k kind) bool { _, ok := b.known.rules[k]; return ok || p.adds(k) })
	for {
		err := b.commit(ctx, p)
		if !tooLong(err) || b.batch <= minBatch {
			if err == nil && p.allow != nil {
				b.allowed = p.allow
			}
			return b.explain("apply", err, false)
		}
		b.batch /= 2
	}
}

// tooLong reports whether the kernel refused a transaction for its size alone.
func tooLong(err error) bool { return errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) }

// adds reports whether the plan adds an element of the kind.
func (p plan) adds(k kind) bool {
	return slices.ContainsFunc(p.units, func(u unit) bool {
		return slices.ContainsFunc(u.add, func(e entry) bool { return e.kind == k })
	})
}

// learn looks at the table again where the plan touches a set that this
// process does not know: an administrator may have loaded it. A damaged
// structure is put right on the way.
func (b *Backend) learn(p plan) error {
	unknown := false
	for k := range p.kinds() {
		_, ok := b.known.rules[k]
		unknown = unknown || !ok
	}
	if !unknown {
		return nil
	}
	l, err := b.inspect()
	if err != nil {
		return err
	}
	if !l.exists {
		return b.fail("read table", fmt.Errorf("%w: table inet %s", backend.ErrGone, b.config.Table))
	}
	if !l.right {
		if err := b.mend(l); err != nil {
			return err
		}
		if l, err = b.inspect(); err != nil {
			return err
		}
	}
	b.known = l.structure
	return nil
}

// commit sends the plan, in pieces if it must.
func (b *Backend) commit(ctx context.Context, p plan) error {
	pieces, leaving := p.cut(b.batch)
	if len(pieces) == 1 {
		return b.send(p)
	}
	before, err := b.remember(p)
	if err != nil {
		return err
	}
	for i, piece := range pieces {
		err := ctx.Err()
		if i == leaving {
			grace()
		}
		if err == nil {
			err = b.send(piece)
		}
		if err == nil {
			continue
		}
		if undone := b.undo(pieces[:i], before); undone != nil {
			return fmt.Errorf("%w; and a part of the change stays in force: %w", err, undone)
		}
		return err
	}
	return nil
}

// send makes a plan one transaction: sets that are missing with their rules,
// the allow sets, then all removals, then all additions. An addition is always
// preceded by the removal of the same element, because a kernel up to 6.11
// ignores the addition of an element that is there, and none updates its
// comment.
func (b *Backend) send(p plan) error {
	created, err := b.create(p)
	for _, f := range families() {
		elems, ok := p.allow[f.allow]
		if !ok || err != nil {
			continue
		}
		b.conn.FlushSet(f.allowSet(b.table))
		err = b.add(f.allowSet(b.table), elems)
	}
	for _, g := range grouped(p.units, func(u unit) []entry { return u.destroy }) {
		if err == nil {
			err = b.destroy(g.kind.set(b.table, b.config), g.elems)
		}
	}
	for _, g := range grouped(p.units, func(u unit) []entry { return u.add }) {
		if err == nil {
			err = b.add(g.kind.set(b.table, b.config), g.elems)
		}
	}
	if err != nil {
		b.discard()
		return fmt.Errorf("encode elements: %w", err)
	}
	if err := b.conn.Flush(); err != nil {
		return err
	}
	for k, rule := range created {
		b.known.rules[k] = rule.Handle
		b.known.answers = b.known.answers || k.goesTo() != ""
	}
	return nil
}

// create adds the sets that the plan needs and their rules, each at its place
// in the chain.
func (b *Backend) create(p plan) (map[kind]*nftables.Rule, error) {
	var kinds []kind
	for k := range p.kinds() {
		if _, ok := b.known.rules[k]; !ok && p.adds(k) {
			kinds = append(kinds, k)
		}
	}
	slices.SortFunc(kinds, kind.compare)
	if needAnswers(kinds) && !b.known.answers {
		for _, spec := range answerChains(b.config) {
			b.conn.AddChain(spec.chain(b.table))
			b.addRules(spec)
		}
	}
	out := make(map[kind]*nftables.Rule, len(kinds))
	for _, k := range kinds {
		if err := b.conn.AddSet(k.set(b.table, b.config), nil); err != nil {
			return nil, err
		}
		chain := &nftables.Chain{Name: sides()[k.target], Table: b.table}
		rule := &nftables.Rule{Table: b.table, Chain: chain, Exprs: k.rule(b.config), Position: b.known.next(k)}
		if rule.Position == 0 {
			out[k] = b.conn.AddRule(rule)
		} else {
			out[k] = b.conn.InsertRule(rule)
		}
	}
	return out, nil
}

// next is the handle of the rule that the kind's rule comes before; 0 means it
// is the last.
func (s structure) next(k kind) uint64 {
	var best kind
	found := false
	for o := range s.rules {
		if o.target == k.target && k.compare(o) < 0 && (!found || o.compare(best) < 0) {
			best, found = o, true
		}
	}
	if !found {
		return 0 // the zero kind is one too: the set of 0.0.0.0/0
	}
	return s.rules[best]
}

func (b *Backend) add(set *nftables.Set, elems []nftables.SetElement) error {
	for part := range slices.Chunk(elems, maxMessage) {
		if err := b.conn.SetAddElements(set, part); err != nil {
			return err
		}
	}
	return nil
}

// destroy removes elements that may be missing. Kernels before 6.3 can only
// delete what is there, or the whole transaction fails: there the elements are
// added first, which does nothing to those that exist, and none may come twice.
func (b *Backend) destroy(set *nftables.Set, elems []nftables.SetElement) error {
	if !b.destroys {
		byKey := func(x, y nftables.SetElement) int { return bytes.Compare(x.Key, y.Key) }
		elems = slices.SortedFunc(slices.Values(elems), byKey)
		elems = slices.CompactFunc(elems, func(x, y nftables.SetElement) bool { return bytes.Equal(x.Key, y.Key) })
	}
	for part := range slices.Chunk(elems, maxMessage) {
		if b.destroys {
			if err := b.conn.SetDestroyElements(set, part); err != nil {
				return err
			}
			continue
		}
		if err := errors.Join(b.conn.SetAddElements(set, part), b.conn.SetDeleteElements(set, part)); err != nil {
			return err
		}
	}
	return nil
}

// discard throws away what was buffered. The library has no call for that, but
// a message it refuses makes its Flush send nothing and forget everything.
func (b *Backend) discard() {
	_ = b.conn.SetAddElements(&nftables.Set{Anonymous: true}, nil)
	_ = b.conn.Flush()
}

// past is what the sets held before a plan that has to be cut.
type past struct {
	blocks map[kind]map[string]element
	allow  map[string][]nftables.SetElement
}

// remember looks up what the plan is going to change.
func (b *Backend) remember(p plan) (past, error) {
	out := past{blocks: make(map[kind]map[string]element)}
	var questions []question
	for _, u := range p.units {
		for _, e := range u.destroy {
			if _, ok := b.known.rules[e.kind]; ok {
				questions = append(questions, question{e.kind, e.elem.Key})
			}
		}
	}
	answers, err := b.read.find(b.config.Table, questions)
	if err != nil {
		return out, err
	}
	for i, e := range answers {
		k := questions[i].kind
		if out.blocks[k] == nil {
			out.blocks[k] = make(map[string]element)
		}
		if e != nil {
			out.blocks[k][string(e.key)] = *e
		}
	}
	if p.allow == nil {
		return out, nil
	}
	if out.allow = b.allowed; out.allow == nil {
		l, err := b.inspect()
		if err != nil {
			return out, err
		}
		out.allow = b.allows(l)
	}
	return out, nil
}

// undo puts back what was there before the pieces, the last one first, so that
// there is room at every step. New sets stay, empty.
func (b *Backend) undo(done []plan, before past) error {
	now := time.Now()
	for i, piece := range slices.Backward(done) {
		var back plan
		if i == 0 {
			back.allow = before.allow
		}
		for _, u := range piece.units {
			back.units = append(back.units, before.unit(u, now))
		}
		if err := b.send(back); err != nil {
			return err
		}
	}
	return nil
}

// unit takes out what u put in and puts in what was there.
func (p past) unit(u unit, now time.Time) unit {
	back := unit{destroy: append(slices.Clone(u.destroy), bareAll(u.add)...)}
	done := make(map[kind]bool)
	for _, e := range back.destroy {
		was, ok := p.blocks[e.kind][string(e.elem.Key)]
		if !ok || done[e.kind] {
			continue
		}
		done[e.kind] = true
		elem := nftables.SetElement{Key: was.key, Comment: was.comment, Counter: was.counter()}
		if was.timed {
			elem.Timeout = was.remaining - now.Sub(was.read)
		}
		if !was.timed || elem.Timeout >= time.Millisecond {
			back.add = append(back.add, entry{e.kind, elem})
		}
	}
	return back
}

func bareAll(entries []entry) []entry {
	out := make([]entry, 0, len(entries))
	for _, e := range entries {
		out = append(out, entry{e.kind, bare(e.elem)})
	}
	return out
}
