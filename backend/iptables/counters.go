package iptables

import (
	"slices"

	"github.com/netcap-guard/netcap-guard/backend"
)

// dropped is how many packets were stopped, by family and action. Kernel log
// rules stop none.
type dropped [numFamilies][backend.RateLimit + 1]uint64

// add counts packets of one rule of a block.
func (d *dropped) add(r rule, a backend.Action, packets uint64) {
	if a <= backend.RateLimit {
		d[familyOf(r.prefix.Addr())][a] += packets
	}
}

// lines counts what the rules of a block with this action have matched.
func (d *dropped) lines(a backend.Action, ls []line) {
	for _, l := range ls {
		d.add(l.rule, a, l.tally.packets)
	}
}

// orphans counts what rules of no whole block have matched, each for the action
// that its role tells.
func (d *dropped) orphans(ls []line) {
	for _, l := range ls {
		d.add(l.rule, actionOf(l.rule.role), l.tally.packets)
	}
}

// stopped is what all rules have stopped since this state began, those that
// are gone included, as far as it was read.
func (s *state) stopped() dropped {
	sum := s.gone
	for _, e := range s.entries {
		sum.lines(e.block.Action, e.lines)
	}
	sum.orphans(s.orphans)
	return sum
}

// keepUp makes up for what the sums have lost against before: blocks that came
// back as something else, rules that went with the chain.
func (s *state) keepUp(before dropped) {
	now := s.stopped()
	for i := range now {
		for a := range now[i] {
			if now[i][a] < before[i][a] {
				s.gone[i][a] += before[i][a] - now[i][a]
			}
		}
	}
}

// places says where in read each text stands.
func places(read []line) map[string][]int {
	at := make(map[string][]int, len(read))
	for i, l := range read {
		at[l.text] = append(at[l.text], i)
	}
	return at
}

// missing is the lines that stand nowhere.
func missing(ls []line, at map[string][]int) []line {
	return slices.DeleteFunc(slices.Clone(ls), func(l line) bool { return len(at[l.text]) > 0 })
}

// count takes over the counters of lines that were read. Where a counter went
// back (somebody set it to zero) what it had counted stays counted, for the
// action.
func (s *state) count(a backend.Action, ls []line, at map[string][]int, read []line) {
	for i := range ls {
		l := &ls[i]
		where := at[l.text]
		if len(where) == 0 {
			continue
		}
		n := read[where[0]].tally.plus(l.base)
		if n.packets < l.tally.packets {
			s.gone.add(l.rule, a, l.tally.packets-l.base.packets)
		}
		l.tally = n
	}
}

// recount takes over the counters of everything that was read.
func (s *state) recount(read []line) {
	at := places(read)
	for _, e := range s.entries {
		s.count(e.block.Action, e.lines, at, read)
	}
	for i := range s.orphans {
		s.count(actionOf(s.orphans[i].rule.role), s.orphans[i:i+1], at, read)
	}
}

// carry hands the counters of blocks that are written anew to their new rules:
// role by role, and what no new rule has the role of to the first. The plan's
// edits point to the same lines.
func (s *state) carry(p *plan, can [numFamilies]features) {
	for k, e := range p.next {
		old := s.entries[k]
		if old == nil || e == nil || len(e.lines) == 0 || len(old.lines) == 0 || &e.lines[0] == &old.lines[0] {
			continue
		}
		for i := range e.lines {
			e.lines[i].tally, e.lines[i].base = tally{}, tally{}
		}
		for _, l := range old.lines {
			to := slices.IndexFunc(e.lines, func(n line) bool { return n.rule.role == l.rule.role })
			to = max(to, 0)
			e.lines[to].tally = e.lines[to].tally.plus(l.tally)
		}
		if can[e.family()].noCounters {
			for i := range e.lines {
				e.lines[i].base = e.lines[i].tally
			}
		}
	}
}

// base is what the entry's blocks had counted before its rules did.
func (e *entry) base() uint64 {
	var n uint64
	for _, l := range e.lines {
		n += l.base.packets
	}
	return n
}
