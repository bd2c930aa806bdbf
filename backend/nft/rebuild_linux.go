package nft

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// goal is what a rebuilt table holds.
type goal struct {
	stay  []kind                           // sets that stay as they are
	fill  map[kind][]entry                 // sets that hold exactly this
	allow map[string][]nftables.SetElement // what the allow sets hold, by name
}

func (g goal) kinds() []kind {
	return slices.AppendSeq(slices.Clone(g.stay), maps.Keys(g.fill))
}

// restore makes the table as goal says, in one transaction: no packet passes
// between the old structure and the new one. Where what somebody added stands
// in the way (a chain of his that jumps to ours, a rule that looks into our
// sets), the table is replaced as a whole, his part of it too.
func (b *Backend) restore(l live, g goal) error {
	anew := b.protects() && l.exists && l.flags&(nftables.TableFlagPersist|nftables.TableFlagOwner) == 0
	if !anew {
		err := b.rebuild(l, g, false)
		if err == nil || !l.exists || tooLong(err) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENFILE) {
			return err
		}
		b.config.Logger.Warn("nftables: table cannot be put right in its place, replacing all of it", "table", b.config.Table, "error", err)
		if l, err = b.inspect(); err != nil {
			return err
		}
	}
	there := slices.DeleteFunc(slices.Clone(g.stay), func(k kind) bool { _, ok := l.rules[k]; return !ok })
	carried, err := b.carry(there)
	if err != nil {
		return err
	}
	fill := maps.Clone(g.fill)
	if fill == nil {
		fill = make(map[kind][]entry)
	}
	maps.Copy(fill, carried)
	return b.rebuild(l, goal{fill: fill, allow: g.allow}, l.exists)
}

// rebuild sends the transaction; anew, it deletes the table first.
func (b *Backend) rebuild(l live, g goal, anew bool) error {
	if anew {
		l = live{drops: l.drops}
	}
	specs := layout(b.config, g.kinds(), l.answers || needAnswers(g.kinds()))
	table := *b.table
	table.Flags = b.flags(l)
	b.wire.begin()
	defer b.wire.release()
	err := b.wire.structure(func(c *nftables.Conn) error {
		if anew {
			c.DelTable(b.table)
		}
		c.AddTable(&table)
		clearChains(c, l, specs)
		for _, counter := range dropCounters(b.table) {
			counter.Packets, counter.Bytes = l.drops[counter.Name].packets, l.drops[counter.Name].bytes
			c.AddObj(counter)
		}
		return b.putSets(c, l, g)
	})
	if err != nil {
		return err
	}
	b.limitSets(missing(l, g))
	for _, k := range slices.SortedFunc(maps.Keys(g.fill), kind.compare) {
		b.wire.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, b.config.Table, g.fill[k], false)
	}
	err = b.wire.structure(func(c *nftables.Conn) error {
		for _, spec := range specs {
			c.AddChain(spec.chain(b.table))
		}
		for _, spec := range specs {
			b.addRules(c, spec)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return b.wire.commit()
}

// putSets makes the sets that goal asks for, and empties those that are to hold
// something else. Our chains are empty by then.
func (b *Backend) putSets(c *nftables.Conn, l live, g goal) error {
	for _, d := range l.replace {
		b.config.Logger.Warn("nftables: set is not as we make it, replacing it", "table", b.config.Table, "set", d.name)
		c.DelSet(&nftables.Set{Table: b.table, Name: d.name})
	}
	for _, k := range slices.SortedFunc(slices.Values(l.kinds()), kind.compare) {
		_, fills := g.fill[k]
		switch {
		case fills:
			c.FlushSet(k.set(b.table, b.config))
		case !slices.Contains(g.stay, k):
			c.DelSet(k.set(b.table, b.config))
		}
	}
	for _, f := range families() {
		elems := g.allow[f.allow]
		have, exists := l.allow[f.allow]
		switch {
		case exists && sameElements(have, elems):
			continue
		case exists:
			c.FlushSet(f.allowSet(b.table))
		default:
			if err := c.AddSet(f.allowSet(b.table), nil); err != nil {
				return err
			}
		}
		if err := addAllowed(c, f.allowSet(b.table), elems); err != nil {
			return err
		}
	}
	for _, k := range missing(l, g) {
		if err := b.addSet(c, k); err != nil {
			return err
		}
	}
	return nil
}

// missing are the kinds whose sets have to be made.
func missing(l live, g goal) []kind {
	var out []kind
	for _, k := range slices.SortedFunc(maps.Keys(g.fill), kind.compare) {
		if _, exists := l.rules[k]; !exists {
			out = append(out, k)
		}
	}
	return out
}

// clearChains empties our chains and deletes those that are not as we make
// them, or that we do not want.
func clearChains(c *nftables.Conn, l live, specs []chainSpec) {
	for _, spec := range specs {
		if have, ok := l.chains[spec.name]; ok {
			c.FlushChain(have)
		}
	}
	for _, spec := range specs {
		if have, ok := l.chains[spec.name]; ok && !spec.same(have) {
			c.DelChain(have)
		}
	}
}

func (b *Backend) addRules(c *nftables.Conn, spec chainSpec) {
	for _, exprs := range spec.rules {
		c.AddRule(&nftables.Rule{Table: b.table, Chain: spec.chain(b.table), Exprs: exprs})
	}
}

func needAnswers(kinds []kind) bool {
	return slices.ContainsFunc(kinds, func(k kind) bool { return k.goesTo() != "" })
}

// mend puts the structure right and keeps every block that can be read.
func (b *Backend) mend(l live) error {
	var broken []kind
	for _, d := range l.replace {
		if k, ours := parseKind(d.name); ours {
			broken = append(broken, k)
		}
	}
	carried, err := b.carry(broken)
	if err != nil {
		return err
	}
	return b.restore(l, goal{stay: l.kinds(), fill: carried, allow: b.allows(l)})
}

// allows is what the allow sets are to hold: before Init what is there.
func (b *Backend) allows(l live) map[string][]nftables.SetElement {
	if b.allowed != nil {
		return maps.Clone(b.allowed)
	}
	out := make(map[string][]nftables.SetElement)
	for _, f := range families() {
		out[f.allow] = intervals(l.allow[f.allow])
	}
	return out
}

// intervals makes what was read of an interval set into what can be written.
func intervals(have []element) []nftables.SetElement {
	var out []nftables.SetElement
	for _, e := range have {
		if !e.endsNothing() {
			out = append(out, nftables.SetElement{Key: e.key, IntervalEnd: e.end})
		}
	}
	slices.SortStableFunc(out, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	if n := len(out); n > 0 && !out[n-1].IntervalEnd {
		out[n-1].IntervalOpen = true
	}
	return out
}

// carry reads what is readable in the sets of these kinds.
func (b *Backend) carry(kinds []kind) (map[kind][]entry, error) {
	out := make(map[kind][]entry)
	for _, k := range kinds {
		elements, err := b.read.elements(b.config.Table, k.String())
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", k, err)
		}
		out[k] = nil
		for i := range elements {
			if _, ok := k.block(elements[i]); !ok || elements[i].end {
				continue
			}
			if e, lives := again(&k, &elements[i], time.Now()); lives {
				out[k] = append(out[k], e)
			}
		}
	}
	return out, nil
}
