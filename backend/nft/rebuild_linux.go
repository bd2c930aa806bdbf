package nft

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
)

// rebuild makes the structure in one transaction: no packet passes between the
// old one and the new one. Blocks stay, but for those of l.drop.
func (b *Backend) rebuild(l live) error {
	carried, err := b.carry(l.replace)
	if err != nil {
		return err
	}
	kinds := slices.DeleteFunc(l.kinds(), func(k kind) bool { return slices.Contains(l.drop, k) })
	for k := range carried {
		kinds = append(kinds, k)
	}
	specs := layout(b.config, kinds, l.answers || needAnswers(kinds))
	b.conn.AddTable(b.table)
	b.clearChains(l, specs)
	for _, d := range l.replace {
		b.config.Logger.Warn("nftables: set is not as we make it, replacing it", "table", b.config.Table, "set", d.name)
		b.conn.DelSet(&nftables.Set{Table: b.table, Name: d.name})
	}
	for _, k := range l.drop {
		b.conn.DelSet(k.set(b.table, 0))
	}
	for _, f := range families() {
		if !l.allow[f.allow] {
			if err := b.conn.AddSet(f.allowSet(b.table), f.allowElements(b.allowed)); err != nil {
				return fmt.Errorf("encode set: %w", err)
			}
		}
	}
	for k, elements := range carried {
		set := k.set(b.table, b.config.SetSize)
		if err := b.conn.AddSet(set, elements); err != nil {
			return fmt.Errorf("encode set: %w", err)
		}
	}
	for _, spec := range specs {
		b.conn.AddChain(spec.chain(b.table))
	}
	for _, spec := range specs {
		b.addRules(spec)
	}
	return b.conn.Flush()
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
	for _, k := range kinds {
		if k.goesTo() != "" {
			return true
		}
	}
	return false
}

// carry reads what is readable in sets that have to be replaced. A new allow
// set gets what this process allowed last.
func (b *Backend) carry(replace []definition) (map[kind][]nftables.SetElement, error) {
	out := make(map[kind][]nftables.SetElement)
	for _, d := range replace {
		k, ours := parseKind(d.name)
		if !ours {
			continue
		}
		elements, err := b.read.elements(b.config.Table, d.name)
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", d.name, err)
		}
		out[k] = nil
		for _, e := range elements {
			one, ok := k.block(e)
			if !ok || e.end {
				continue
			}
			if enc, lives := encode(one, time.Now()); lives {
				out[k] = append(out[k], enc)
			}
		}
	}
	return out, nil
}
