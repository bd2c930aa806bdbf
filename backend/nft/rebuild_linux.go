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
	fill  map[kind][]nftables.SetElement   // sets that hold exactly this
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
		fill = make(map[kind][]nftables.SetElement)
	}
	maps.Copy(fill, carried)
	return b.rebuild(l, goal{fill: fill, allow: g.allow}, l.exists)
}

// rebuild sends the transaction; anew, it deletes the table first.
func (b *Backend) rebuild(l live, g goal, anew bool) error {
	if anew {
		b.conn.DelTable(b.table)
		l = live{}
	}
	specs := layout(b.config, g.kinds(), l.answers || needAnswers(g.kinds()))
	table := *b.table
	table.Flags = b.flags(l)
	b.conn.AddTable(&table)
	b.clearChains(l, specs)
	err := b.putSets(l, g)
	if err != nil {
		b.discard()
		return fmt.Errorf("encode set: %w", err)
	}
	for _, spec := range specs {
		b.conn.AddChain(spec.chain(b.table))
	}
	for _, spec := range specs {
		b.addRules(spec)
	}
	return b.conn.Flush()
}

// putSets makes the sets hold what goal says. Our chains are empty by then.
func (b *Backend) putSets(l live, g goal) error {
	for _, d := range l.replace {
		b.config.Logger.Warn("nftables: set is not as we make it, replacing it", "table", b.config.Table, "set", d.name)
		b.conn.DelSet(&nftables.Set{Table: b.table, Name: d.name})
	}
	for _, k := range slices.SortedFunc(slices.Values(l.kinds()), kind.compare) {
		_, fills := g.fill[k]
		switch {
		case fills:
			b.conn.FlushSet(k.set(b.table, b.config))
		case !slices.Contains(g.stay, k):
			b.conn.DelSet(k.set(b.table, b.config))
		}
	}
	for _, f := range families() {
		elems := g.allow[f.allow]
		have, exists := l.allow[f.allow]
		switch {
		case exists && sameElements(have, elems):
			continue
		case exists:
			b.conn.FlushSet(f.allowSet(b.table))
		default:
			if err := b.conn.AddSet(f.allowSet(b.table), nil); err != nil {
				return err
			}
		}
		if err := b.add(f.allowSet(b.table), elems); err != nil {
			return err
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(g.fill), kind.compare) {
		set := k.set(b.table, b.config)
		if _, exists := l.rules[k]; !exists {
			if err := b.conn.AddSet(set, nil); err != nil {
				return err
			}
		}
		if err := b.add(set, g.fill[k]); err != nil {
			return err
		}
	}
	return nil
}

// clearChains empties our chains and deletes those that are not as we make
// them, or that we do not want.
func (b *Backend) clearChains(l live, specs []chainSpec) {
	for _, spec := range specs {
		if have, ok := l.chains[spec.name]; ok {
			b.conn.FlushChain(have)
		}
	}
	for _, spec := range specs {
		if have, ok := l.chains[spec.name]; ok && !spec.same(have) {
			b.conn.DelChain(have)
		}
	}
}

func (b *Backend) addRules(spec chainSpec) {
	for _, exprs := range spec.rules {
		b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: spec.chain(b.table), Exprs: exprs})
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
		out = append(out, nftables.SetElement{Key: e.key, IntervalEnd: e.end})
	}
	slices.SortStableFunc(out, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	if n := len(out); n > 0 && !out[n-1].IntervalEnd {
		out[n-1].IntervalOpen = true
	}
	return out
}

// carry reads what is readable in the sets of these kinds.
func (b *Backend) carry(kinds []kind) (map[kind][]nftables.SetElement, error) {
	out := make(map[kind][]nftables.SetElement)
	for _, k := range kinds {
		elements, err := b.read.elements(b.config.Table, k.String())
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", k, err)
		}
		out[k] = nil
		for _, e := range elements {
			one, ok := k.block(e)
			if !ok || e.end {
				continue
			}
			if enc, lives := encode(one, time.Now()); lives {
				enc.Counter = e.counter()
				out[k] = append(out[k], enc)
			}
		}
	}
	return out, nil
}
