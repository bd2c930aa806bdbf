package nft

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/netcap-guard/netcap-guard/backend"
)

// plan is a Change in terms of sets.
type plan struct {
	// drop is taken out for good.
	drop []entry
	// put goes in, and takes the place of what is there in the same set.
	put []entry
	// leave is taken out of one set because put brings the same address into
	// another one; see cut.
	leave []entry
	// meets: something of put is known to be there.
	meets bool
	// allow holds the new elements of allow sets, by the set's name; nil
	// leaves them as they are.
	allow map[string][]nftables.SetElement
}

// maxPrefixes is how many different texts logs may have in front: each is a
// set of its own, which every packet is looked up in.
const maxPrefixes = 64

// planner makes a plan. Kinds are few, so the entries share them.
type planner struct {
	plan
	known structure
	kinds map[kind]*kind
	last  *kind
	going map[backend.Slot]struct{} // what Add names, where somebody asks
}

// plan translates a valid Change. It fails for what this backend cannot do.
// The entries point into c.
func (b *Backend) plan(c backend.Change, now time.Time) (plan, error) {
	p := planner{known: b.known}
	p.put, p.meets = make([]entry, 0, len(c.Add)), c.Replaces
	for i := range c.Add {
		if err := b.takes(&c.Add[i]); err != nil {
			return plan{}, fmt.Errorf("add %s: %w", c.Add[i], err)
		}
	}
	if len(c.Remove) > 0 {
		p.going = make(map[backend.Slot]struct{}, len(c.Add))
		for i := range c.Add {
			p.going[c.Add[i].Slot()] = struct{}{}
		}
	}
	for i := range c.Remove {
		p.remove(&c.Remove[i])
	}
	for i := range c.Add {
		p.add(&c.Add[i], now)
	}
	if c.Allow != nil {
		p.allow = allowed(*c.Allow)
	}
	if len(p.kinds) > 1 {
		for _, list := range [][]entry{p.drop, p.put, p.leave} {
			slices.SortStableFunc(list, func(a, b entry) int { return a.kind.compare(*b.kind) })
		}
	}
	return p.plan, nil
}

// takes says why a block cannot be taken.
func (b *Backend) takes(one *backend.Block) error {
	if !b.config.takes(one.Prefix.Addr().Is6()) {
		return fmt.Errorf("%w: the address family is switched off", backend.ErrUnsupported)
	}
	if one.Action == backend.RateLimit {
		return backend.CheckLimit(name, one.Limit)
	}
	return nil
}

func (p *planner) intern(k kind) *kind {
	if p.last != nil && *p.last == k {
		return p.last
	}
	if p.last = p.kinds[k]; p.last == nil {
		if p.kinds == nil {
			p.kinds = make(map[kind]*kind, 1)
		}
		p.last = new(k)
		p.kinds[k] = p.last
	}
	return p.last
}

// add puts a block in; one that has ended only takes out what it replaces. A
// log is taken out of the sets of other prefixes in the same transaction: it
// stops nothing, so nobody waits.
func (p *planner) add(one *backend.Block, now time.Time) {
	own := p.intern(kindOf(one))
	if e, lives := put(own, one, now); lives {
		p.put = append(p.put, e)
	} else {
		p.drop = append(p.drop, entry{kind: own, addr: e.addr})
	}
	if one.Action != backend.Log {
		return
	}
	for k := range p.known.rules {
		if k != *own && k.holds(one.Slot()) {
			p.drop = append(p.drop, entry{kind: p.intern(k), addr: one.Prefix.Addr()})
		}
	}
}

// remove takes out a block that Add does not put in again anyway.
func (p *planner) remove(one *backend.Block) {
	if _, back := p.going[one.Slot()]; back {
		return
	}
	stays := slices.ContainsFunc(backend.Actions(), func(a backend.Action) bool {
		_, there := p.going[backend.Slot{Key: one.Key, Action: a}]
		return there
	})
	k := kindOf(one)
	kinds := []kind{k}
	if one.Action == backend.Log {
		for other := range p.known.rules {
			if other != k && other.holds(one.Slot()) {
				kinds = append(kinds, other)
			}
		}
	}
	for _, k := range kinds {
		e := entry{kind: p.intern(k), addr: one.Prefix.Addr()}
		if stays {
			p.leave = append(p.leave, e)
		} else {
			p.drop = append(p.drop, e)
		}
	}
}

// touches calls each with the kinds that the plan is about, with some more
// than once.
func (p plan) touches(each func(kind)) {
	for _, list := range [...][]entry{p.drop, p.put, p.leave} {
		for part := range runs(list) {
			each(*part[0].kind)
		}
	}
}

// puts reports whether something goes into the kind's set.
func (p plan) puts(k kind) bool {
	for part := range runs(p.put) {
		if *part[0].kind == k {
			return true
		}
	}
	return false
}

// runs are the pieces of a list with the same kind each.
func runs(list []entry) func(yield func([]entry) bool) {
	return func(yield func([]entry) bool) {
		for len(list) > 0 {
			n := 1
			for n < len(list) && list[n].kind == list[0].kind {
				n++
			}
			if !yield(list[:n]) {
				return
			}
			list = list[n:]
		}
	}
}

// without leaves out what would be removed from sets that do not exist.
func (p plan) without(exists func(kind) bool) plan {
	gone := func(e entry) bool { return !exists(*e.kind) }
	p.drop, p.leave = slices.DeleteFunc(p.drop, gone), slices.DeleteFunc(p.leave, gone)
	return p
}

// cut cuts the plan into pieces of at most n elements. What is taken out comes
// first, so that what goes in finds room; the first piece has the allow sets.
//
// What leaves one set for another is taken out in pieces of their own, which
// begin at leaving, after what puts it in, and after every packet has gone that
// was under way then (see grace). The kernel switches rules and sets to a new
// generation in one instant, but a packet that looks into one set before it and
// into the next one after it would find the address in neither: of a flood, 5
// packets passed in 600 such changes made as one transaction, and one in 30,000
// changes made as two without waiting in between (Linux 6.18).
func (p plan) cut(n int) (pieces []plan, leaving int) {
	pieces = []plan{{allow: p.allow, meets: p.meets}}
	room := n
	fill := func(list []entry, of func(*plan) *[]entry) {
		for len(list) > 0 {
			if room == 0 {
				pieces, room = append(pieces, plan{meets: p.meets}), n
			}
			m := min(room, len(list))
			*of(&pieces[len(pieces)-1]) = list[:m]
			list, room = list[m:], room-m
		}
	}
	fill(p.drop, func(p *plan) *[]entry { return &p.drop })
	fill(p.put, func(p *plan) *[]entry { return &p.put })
	leaving = len(pieces)
	for part := range slices.Chunk(p.leave, n) {
		pieces = append(pieces, plan{drop: part})
	}
	return pieces, leaving
}

// prefixes fails if logs with the plan's texts were too many.
func (b *Backend) prefixes(p plan) error {
	texts := make(map[string]struct{})
	for k := range b.known.rules {
		if k.action == backend.Log {
			texts[k.prefix] = struct{}{}
		}
	}
	before := len(texts)
	for part := range runs(p.put) {
		if k := part[0].kind; k.action == backend.Log {
			texts[k.prefix] = struct{}{}
		}
	}
	if len(texts) > max(before, maxPrefixes) {
		return fmt.Errorf("%w: more than %d different log prefixes", backend.ErrFull, maxPrefixes)
	}
	return nil
}
