package nft

import (
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
// larger one is cut into several. Where one of them fails, those before it are
// undone, and the error says if even that failed: of a change that found a full
// set nothing is in force, and a caller who wants what fits halves it. In
// between, other programs can see the change half done.
//
// A changed action takes two transactions, first in with the new block, then
// out with the old one, and the time in between that the kernel needs to be
// through with every packet under way (5 to 30 ms, once for all blocks of the
// change; see grace). Where the kernel refuses to wait (processors with
// nohz_full, a seccomp filter), a packet that is slower than both transactions
// can slip through: 1 of 30,000 changes was seen to let one pass.
//
// A rate limit that is replaced begins with a full bucket; its count goes on.
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
	if !b.ready {
		return b.fail("apply", fmt.Errorf("%w: table inet %s is not made yet", backend.ErrGone, b.config.Table))
	}
	p, err := b.plan(c, time.Now())
	if err != nil {
		return b.fail("apply", err)
	}
	if err := b.learn(p); err != nil {
		return b.explain("read table", err, false)
	}
	if err := b.prefixes(p); err != nil {
		return b.fail("apply", err)
	}
	p = p.without(func(k kind) bool { _, ok := b.known.rules[k]; return ok || p.puts(k) })
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

// learn looks at the table again where the plan touches a set that this
// process does not know: an administrator may have loaded it. A damaged
// structure is put right on the way.
func (b *Backend) learn(p plan) error {
	unknown := false
	p.touches(func(k kind) {
		_, ok := b.known.rules[k]
		unknown = unknown || !ok
	})
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
	defer b.wire.release()
	n := b.batch
	if len(p.drop)+len(p.put) > n {
		n = min(n, maxPiece)
	}
	pieces, leaving := p.cut(n)
	var done []step
	for i, piece := range pieces {
		err := ctx.Err()
		if i == leaving {
			grace()
		}
		var s step
		if err == nil {
			s, err = b.take(piece, len(pieces) > 1)
		}
		if err == nil {
			done = append(done, s)
			continue
		}
		if undone := b.undo(done, leaving); undone != nil {
			return fmt.Errorf("%w; and a part of the change stays in force: %w", err, undone)
		}
		return err
	}
	return nil
}

// step is a piece that was sent, and what undoes it.
type step struct {
	piece plan
	// was holds what the piece took out or replaced; nil where it met nothing.
	was []entry
	// allow is what the allow sets held, nil where the piece left them.
	allow map[string][]nftables.SetElement
}

// take sends one piece. Most blocks are new, and then the kernel is told to put
// them in and to refuse if it has one already (which takes it 20 ms: it waits
// for every packet under way before it lets go of what it was given; Linux
// 6.18). If it does, if it was to be expected, or if the piece
// takes something out, what is there is looked up as far as somebody needs it
// (undoable, or to count on), taken out and replaced: a kernel up to 6.11
// ignores the addition of an element that is there, and none updates its
// comment.
func (b *Backend) take(piece plan, undoable bool) (step, error) {
	s := step{piece: piece}
	if len(piece.drop) == 0 && piece.allow == nil && !piece.meets {
		err := b.send(piece, true)
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENFILE) {
			return s, err
		}
	}
	var err error
	if undoable || b.config.Counters {
		if s.was, err = b.remember(piece, undoable); err != nil {
			return s, err
		}
	}
	if undoable && piece.allow != nil {
		if s.allow, err = b.allowsNow(); err != nil {
			return s, err
		}
	}
	return s, b.send(piece, false)
}

// send makes a piece one transaction: sets that are missing with their rules,
// the allow sets, then all removals, then all additions. Fresh, nothing is
// removed and nothing may be there.
func (b *Backend) send(p plan, fresh bool) error {
	b.wire.begin()
	created, err := b.create(p)
	if err != nil {
		return err
	}
	flags := uint16(unix.NLM_F_CREATE)
	if fresh {
		flags |= unix.NLM_F_EXCL
	} else {
		for _, list := range [][]entry{p.drop, p.put} {
			for part := range runs(list) {
				b.destroy(part)
			}
		}
	}
	for part := range runs(p.put) {
		b.wire.elements(unix.NFT_MSG_NEWSETELEM, flags, b.config.Table, part, false)
	}
	if err := b.wire.commit(); err != nil || !created {
		return err
	}
	// What was done holds; without the new rules' handles the next set that is
	// made finds its place when the table is looked at again.
	if l, err := b.inspect(); err == nil && l.right {
		b.known = l.structure
	} else {
		p.touches(b.known.guess)
	}
	return nil
}

// destroy removes elements that may be missing. Kernels before 6.3 can only
// delete what is there, or the whole transaction fails: there the elements are
// added first, which does nothing to those that exist, and none may come twice.
func (b *Backend) destroy(part []entry) {
	if b.destroys {
		b.wire.elements(msgDestroySetElem, 0, b.config.Table, part, true)
		return
	}
	part = slices.SortedFunc(slices.Values(part), func(x, y entry) int { return x.addr.Compare(y.addr) })
	part = slices.CompactFunc(part, func(x, y entry) bool { return x.addr == y.addr })
	b.wire.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, b.config.Table, part, true)
	b.wire.elements(unix.NFT_MSG_DELSETELEM, 0, b.config.Table, part, true)
}

// create adds the sets that the plan needs with their rules, each at its place
// in the chain, and the new allowed addresses. It reports whether there is a
// new set.
func (b *Backend) create(p plan) (bool, error) {
	var kinds []kind
	for part := range runs(p.put) {
		if _, ok := b.known.rules[*part[0].kind]; !ok {
			kinds = append(kinds, *part[0].kind)
		}
	}
	if len(kinds) == 0 && p.allow == nil {
		return false, nil
	}
	slices.SortFunc(kinds, kind.compare)
	b.limitSets(kinds)
	return len(kinds) > 0, b.wire.structure(func(c *nftables.Conn) error {
		if needAnswers(kinds) && !b.known.answers {
			for _, spec := range answerChains(b.config) {
				c.AddChain(spec.chain(b.table))
				b.addRules(c, spec)
			}
		}
		for _, k := range kinds {
			if err := b.addSet(c, k); err != nil {
				return err
			}
		}
		for _, l := range b.known.absent(kinds) {
			chain := &nftables.Chain{Name: sides()[l.target], Table: b.table}
			rule := &nftables.Rule{Table: b.table, Chain: chain, Exprs: l.rule(b.config), Position: b.known.next(l)}
			if rule.Position == 0 {
				c.AddRule(rule)
			} else {
				c.InsertRule(rule)
			}
		}
		for _, f := range families() {
			if elems, ok := p.allow[f.allow]; ok {
				c.FlushSet(f.allowSet(b.table))
				if err := addAllowed(c, f.allowSet(b.table), elems); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// addSet makes the kind's set; those of rate limits are made by limitSets.
func (b *Backend) addSet(c *nftables.Conn, k kind) error {
	if k.action == backend.RateLimit {
		return nil
	}
	return c.AddSet(k.set(b.table, b.config), nil)
}

func (b *Backend) limitSets(kinds []kind) {
	for _, k := range kinds {
		if k.action == backend.RateLimit {
			b.wire.limitSet(k, b.config)
		}
	}
}

// maxMessage is how many allowed prefixes are handed to the library at once.
const maxMessage = 1000

func addAllowed(c *nftables.Conn, set *nftables.Set, elems []nftables.SetElement) error {
	for part := range slices.Chunk(elems, maxMessage) {
		if err := c.SetAddElements(set, part); err != nil {
			return err
		}
	}
	return nil
}

// remember looks up what the piece is going to replace, lets what goes in
// count on, and returns what undoes the piece; all that it takes out too, if
// undoable.
func (b *Backend) remember(p plan, undoable bool) ([]entry, error) {
	lists := [][]entry{p.put}
	if undoable {
		lists = append(lists, p.drop)
	}
	var was []entry
	now := time.Now()
	for _, list := range lists {
		known := slices.DeleteFunc(pointers(list), func(e *entry) bool { _, ok := b.known.rules[*e.kind]; return !ok })
		answers, err := b.read.find(b.config.Table, questions(known))
		if err != nil {
			return nil, err
		}
		for i, e := range answers {
			if e == nil {
				continue
			}
			known[i].was = e
			if back, lives := again(known[i].kind, e, now); lives {
				was = append(was, back)
			}
		}
	}
	return was, nil
}

func pointers(list []entry) []*entry {
	out := make([]*entry, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out
}

func questions(entries []*entry) []question {
	out := make([]question, len(entries))
	for i, e := range entries {
		out[i] = question{*e.kind, e.addr.AsSlice()}
	}
	return out
}

// allowsNow is what the allow sets hold.
func (b *Backend) allowsNow() (map[string][]nftables.SetElement, error) {
	if b.allowed != nil {
		return b.allowed, nil
	}
	l, err := b.inspect()
	return b.allows(l), err
}

// undo puts back what was there before the steps, the last one first, so that
// there is room at every one. New sets stay, empty.
func (b *Backend) undo(done []step, leaving int) error {
	for i, s := range slices.Backward(done) {
		if i == leaving-1 && len(done) > leaving {
			grace() // what had left is back, and everybody finds it
		}
		back := plan{drop: s.piece.put, put: s.was, allow: s.allow}
		if err := b.send(back, false); err != nil {
			return err
		}
	}
	return nil
}
