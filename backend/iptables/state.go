package iptables

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// state is what we know to be in the chains.
type state struct {
	entries map[backend.Slot]*entry
	orphans []line // of ours, but of no whole block
	// allow is the allow list; allowKnown is false until a Change brought
	// one, and until then blocks that were read back keep their holes.
	allow      []netip.Prefix
	allowKnown bool
	// seq is the last place along the chain that is taken, first the first:
	// kernel log rules go in at the front.
	seq, first int64
	// gone is what rules stopped that are no longer there.
	gone dropped
}

// edit is what one transaction does to one family's chain: first the commands
// that mend the structure around the blocks, then the blocks' rules.
type edit struct {
	mend     []string
	del, add []*line
}

func (e edit) empty() bool { return len(e.mend)+len(e.del)+len(e.add) == 0 }

// pointers points to each line of ls.
func pointers(ls []line) []*line {
	out := make([]*line, len(ls))
	for i := range ls {
		out[i] = &ls[i]
	}
	return out
}

// plan is a change worked out: the edits, and what the state is after them.
type plan struct {
	next  map[backend.Slot]*entry // nil: removed
	order []backend.Slot          // the keys of next, in the order in which they came
	edits [numFamilies]edit

	allow      []netip.Prefix
	allowKnown bool
	orphans    []line
}

func (s *state) newPlan() *plan {
	return &plan{next: map[backend.Slot]*entry{}, allow: s.allow, allowKnown: s.allowKnown, orphans: s.orphans}
}

func (p *plan) set(k backend.Slot, e *entry) {
	if _, ok := p.next[k]; !ok {
		p.order = append(p.order, k)
	}
	p.next[k] = e
}

// plan works a valid Change out. can is indexed by family. The state stays as
// it is. A block whose end has come by now is left out.
func (s *state) plan(c backend.Change, now time.Time, can [numFamilies]features) (*plan, error) {
	p := s.newPlan()
	if c.Allow != nil {
		p.allow, p.allowKnown = slices.Clone(*c.Allow), true
	}
	for _, b := range c.Remove {
		k := b.Slot()
		if s.entries[k] != nil {
			p.set(k, nil)
		}
	}
	for _, b := range c.Add {
		if b.Expired(now) {
			p.set(b.Slot(), nil)
			continue
		}
		e := newEntry(b)
		if err := e.render(p.allow, can[e.family()]); err != nil {
			return nil, err
		}
		p.set(e.slot(), e)
	}
	if c.Allow != nil {
		if err := s.planHoles(p, can); err != nil {
			return nil, err
		}
	}
	s.edit(p)
	return p, nil
}

// planRebuild works out what makes the blocks exactly those of c.Add.
func (s *state) planRebuild(c backend.Change, now time.Time, can [numFamilies]features) (*plan, error) {
	c.Remove = nil
	for _, e := range s.sorted() {
		c.Remove = append(c.Remove, e.block)
	}
	p, err := s.plan(c, now, can)
	if err != nil {
		return nil, err
	}
	p.dropOrphans()
	return p, nil
}

// planHoles renders every block anew that the change does not name and that
// the new allow list alters.
func (s *state) planHoles(p *plan, can [numFamilies]features) error {
	for _, old := range s.sorted() {
		if _, named := p.next[old.slot()]; named {
			continue
		}
		e := &entry{block: old.block, comment: old.comment}
		if err := e.render(p.allow, can[e.family()]); err != nil {
			return err
		}
		if !sameLines(e.lines, old.lines) {
			p.set(e.slot(), e)
		}
	}
	return nil
}

// planTidy works out what Init clears up: blocks that have ended, rules that
// belong to no block, blocks that another configuration wrote or that somebody
// took apart.
func (s *state) planTidy(now time.Time, can [numFamilies]features) (*plan, error) {
	p := s.newPlan()
	for _, old := range s.sorted() {
		if old.block.Expired(now) {
			p.set(old.slot(), nil)
			continue
		}
		e := &entry{block: old.block, comment: old.comment}
		var err error
		if s.allowKnown {
			err = e.render(s.allow, can[e.family()])
		} else if len(old.lines) > 0 {
			err = e.renderHoles(old.holesRead(), can[e.family()])
		}
		if errors.Is(err, backend.ErrUnsupported) {
			continue // it blocks as it is, and this process cannot rewrite it
		}
		if err != nil {
			return nil, err
		}
		if !sameLines(e.lines, old.lines) {
			p.set(e.slot(), e)
		}
	}
	p.dropOrphans()
	s.edit(p)
	return p, nil
}

// planFlush removes all blocks.
func (s *state) planFlush() *plan {
	p := s.newPlan()
	for _, e := range s.sorted() {
		p.set(e.slot(), nil)
	}
	p.dropOrphans()
	s.edit(p)
	return p
}

func (p *plan) dropOrphans() {
	for _, l := range pointers(p.orphans) {
		e := &p.edits[familyOf(l.rule.prefix.Addr())]
		e.del = append(e.del, l)
	}
	p.orphans = nil
}

// edit derives the edits from what changes. Deletions go along the chain,
// front to end: deleting by text, the program compares from the front (10,000
// deletions from the end take iptables-nft 36 s, from the front 0.3 s).
func (s *state) edit(p *plan) {
	var gone []*entry
	for _, k := range p.order {
		old, e := s.entries[k], p.next[k]
		if old != nil && e != nil && sameLines(old.lines, e.lines) {
			e.lines, e.seq = old.lines, old.seq
			continue
		}
		if old != nil {
			gone = append(gone, old)
		}
		if e != nil {
			ed := &p.edits[e.family()]
			ed.add = append(ed.add, pointers(e.lines)...)
			e.seq = s.place(e.block.Action)
		}
	}
	sortAlong(gone)
	for _, old := range gone {
		ed := &p.edits[old.family()]
		ed.del = append(ed.del, pointers(old.lines)...)
	}
}

// place is the next place in the chain for a block with this action.
func (s *state) place(a backend.Action) int64 {
	if a == backend.Log {
		s.first--
		return s.first
	}
	s.seq++
	return s.seq
}

// accept makes the plan the state, once the kernel has taken its edits.
func (s *state) accept(p *plan) {
	before := s.stopped()
	if p.orphans == nil {
		s.gone.orphans(s.orphans)
	}
	for k, e := range p.next {
		if old := s.entries[k]; old != nil && (e == nil || len(e.lines) == 0) {
			s.gone.lines(old.block.Action, old.lines)
		}
		if e == nil {
			delete(s.entries, k)
		} else {
			s.entries[k] = e
		}
	}
	s.allow, s.allowKnown, s.orphans = p.allow, p.allowKnown, p.orphans
	s.keepUp(before)
}

// sorted is every entry, along the chain.
func (s *state) sorted() []*entry {
	out := make([]*entry, 0, len(s.entries))
	for _, e := range s.entries {
		out = append(out, e)
	}
	sortAlong(out)
	return out
}

// blocks is every block whose end has not come, along the chain.
func (s *state) blocks(now time.Time) []backend.Block {
	out := make([]backend.Block, 0, len(s.entries))
	for _, e := range s.sorted() {
		if !e.block.Expired(now) {
			out = append(out, e.block)
		}
	}
	return out
}

func sortAlong(es []*entry) {
	slices.SortFunc(es, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
}

// known is the rules that one family's chain was seen to have, along the chain.
func (s *state) known(family int) []line {
	var out []line
	for _, e := range s.sorted() {
		if e.family() == family {
			out = append(out, e.lines...)
		}
	}
	return out
}

// forget drops what is known of one family's chain.
func (s *state) forget(family int) {
	before := s.stopped()
	maps.DeleteFunc(s.entries, func(_ backend.Slot, e *entry) bool { return e.family() == family })
	s.orphans = slices.DeleteFunc(s.orphans, func(l line) bool { return familyOf(l.rule.prefix.Addr()) == family })
	s.keepUp(before)
}

// rules counts the lines of each family.
func (s *state) rules() [numFamilies]int {
	var n [numFamilies]int
	for _, e := range s.entries {
		n[e.family()] += len(e.lines)
	}
	return n
}

// reload makes the state what was read from the chains, given in their order.
// A block whose lines are all there is kept as it is known (its exact end is
// not in the kernel), so is one that the allow list covers; any other is made
// of what was read. It reports whether anything differs from what was known.
func (s *state) reload(read []line) (changed bool) {
	before := s.stopped()
	at := places(read)
	used := make([]bool, len(read))
	kept := make(map[backend.Slot]*entry, len(s.entries))
	for _, e := range s.sorted() {
		if !e.claim(at, used, s.seq) {
			s.gone.lines(e.block.Action, missing(e.lines, at))
			changed = true
			continue
		}
		s.count(e.block.Action, e.lines, at, read)
		kept[e.slot()] = e
	}
	var rest []line
	place := map[string]int64{}
	for i, l := range read {
		if !used[i] {
			rest = append(rest, l)
			place[l.text] = s.seq + int64(i) + 1
		}
	}
	found, orphans := group(rest)
	for _, e := range found {
		e.seq = place[e.lines[0].text]
		known := kept[e.slot()]
		switch {
		case known == nil || endsBefore(known.block, e.block):
			if known != nil {
				orphans = append(orphans, known.lines...)
			}
			kept[e.slot()], changed = e, true
		default:
			orphans = append(orphans, e.lines...)
		}
	}
	changed = changed || len(orphans) != len(s.orphans)
	s.entries, s.orphans = kept, orphans
	s.first = s.seq + 1
	s.seq += int64(len(read)) + 1
	s.keepUp(before)
	return changed
}

// claim marks the entry's lines as found, and reports whether all are there.
func (e *entry) claim(at map[string][]int, used []bool, base int64) bool {
	places := make([]int, 0, len(e.lines))
	for _, l := range e.lines {
		free := slices.IndexFunc(at[l.text], func(i int) bool { return !used[i] && !slices.Contains(places, i) })
		if free < 0 {
			return false
		}
		places = append(places, at[l.text][free])
	}
	for _, i := range places {
		used[i] = true
	}
	if len(places) > 0 {
		e.seq = base + int64(places[0]) + 1
	}
	return true
}

// endsBefore reports whether a ends before b.
func endsBefore(a, b backend.Block) bool {
	switch {
	case a.Permanent():
		return false
	case b.Permanent():
		return true
	}
	return a.ExpiresAt.Before(b.ExpiresAt)
}
