package nft

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/netcap-guard/netcap-guard/backend"
)

// entry is one element of one kind's set.
type entry struct {
	kind kind
	elem nftables.SetElement
}

// unit is everything a Change does to one Key. It is cut apart in one way only,
// see cut, so that an address that changes its action is blocked throughout.
type unit struct {
	destroy, add []entry
}

// plan is a Change in terms of sets. Its units hold removals first, so that
// what is added finds room.
type plan struct {
	units []unit
	// allow holds the new elements of allow sets, by the set's name; nil
	// leaves them as they are.
	allow map[string][]nftables.SetElement
}

// plan translates a valid Change. It fails for what this backend cannot do.
// What is removed with an action it has no sets for is not there.
func (b *Backend) plan(c backend.Change, now time.Time) (plan, error) {
	adding := make(map[backend.Key]*unit, len(c.Add))
	order := make([]*unit, 0, len(c.Add))
	for _, one := range c.Add {
		k, err := kindOf(one.Slot())
		if err == nil && !b.config.takes(k.v6) {
			err = fmt.Errorf("%w: the address family is switched off", backend.ErrUnsupported)
		}
		if err != nil {
			return plan{}, fmt.Errorf("add %s: %w", one, err)
		}
		u := adding[one.Key]
		if u == nil {
			u = new(unit)
			adding[one.Key] = u
			order = append(order, u)
		}
		elem, lives := encode(one, now)
		u.destroy = append(u.destroy, entry{k, bare(elem)})
		if lives {
			u.add = append(u.add, entry{k, elem})
		}
	}
	var p plan
	for _, one := range c.Remove {
		k, err := kindOf(one.Slot())
		if err != nil {
			continue
		}
		e := entry{k, nftables.SetElement{Key: one.Prefix.Addr().AsSlice()}}
		if u := adding[one.Key]; u != nil {
			u.destroy = append(u.destroy, e)
		} else {
			p.units = append(p.units, unit{destroy: []entry{e}})
		}
	}
	for _, u := range order {
		p.units = append(p.units, *u)
	}
	if c.Allow != nil {
		p.allow = allowed(*c.Allow)
	}
	return p, nil
}

func bare(e nftables.SetElement) nftables.SetElement { return nftables.SetElement{Key: e.Key} }

// kinds are the kinds that the plan touches.
func (p plan) kinds() map[kind]struct{} {
	out := make(map[kind]struct{})
	for _, u := range p.units {
		for _, e := range u.destroy {
			out[e.kind] = struct{}{}
		}
	}
	return out
}

// without leaves out what would be removed from sets that do not exist.
func (p plan) without(exists func(kind) bool) plan {
	for i, u := range p.units {
		p.units[i].destroy = slices.DeleteFunc(u.destroy, func(e entry) bool { return !exists(e.kind) })
	}
	p.units = slices.DeleteFunc(p.units, func(u unit) bool { return len(u.destroy)+len(u.add) == 0 })
	return p
}

// cut cuts the plan into pieces of at most n elements, or one unit. The first
// piece has the allow sets.
//
// What leaves one set for another is taken out in pieces of their own, which
// begin at leaving, after what puts it in, and after every packet has gone that
// was under way then (see grace). The kernel switches rules and sets to a new
// generation in one instant, but a packet that looks into one set before it and
// into the next one after it would find the address in neither: of a flood, 5
// packets passed in 600 such changes made as one transaction, and one in 30,000
// changes made as two without waiting in between (Linux 6.18).
func (p plan) cut(n int) (pieces []plan, leaving int) {
	var stay, leave []unit
	for _, u := range p.units {
		first, then := u.part()
		stay = append(stay, first)
		if len(then.destroy) > 0 {
			leave = append(leave, then)
		}
	}
	pieces = cut(stay, n)
	if len(pieces) == 0 {
		pieces = []plan{{}}
	}
	pieces[0].allow = p.allow
	return append(pieces, cut(leave, n)...), len(pieces)
}

// part takes the removals from sets that nothing is added to apart, if
// anything is added at all.
func (u unit) part() (first, then unit) {
	first.add = u.add
	for _, e := range u.destroy {
		same := slices.ContainsFunc(u.add, func(a entry) bool { return a.kind == e.kind })
		if same || len(u.add) == 0 {
			first.destroy = append(first.destroy, e)
		} else {
			then.destroy = append(then.destroy, e)
		}
	}
	return first, then
}

func cut(units []unit, n int) []plan {
	var pieces []plan
	weight := 0
	for _, u := range units {
		w := len(u.destroy) + len(u.add)
		if len(pieces) == 0 || weight+w > n {
			pieces = append(pieces, plan{})
			weight = 0
		}
		last := &pieces[len(pieces)-1]
		last.units = append(last.units, u)
		weight += w
	}
	return pieces
}

// grouped returns the entries by kind, in an order that is the same each time.
func grouped(units []unit, pick func(unit) []entry) []group {
	by := make(map[kind][]nftables.SetElement)
	for _, u := range units {
		for _, e := range pick(u) {
			by[e.kind] = append(by[e.kind], e.elem)
		}
	}
	out := make([]group, 0, len(by))
	for k, elems := range by {
		out = append(out, group{k, elems})
	}
	slices.SortFunc(out, func(a, b group) int { return a.kind.compare(b.kind) })
	return out
}

type group struct {
	kind  kind
	elems []nftables.SetElement
}
