package nft

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// structure is what this process knows of the table.
type structure struct {
	// rules holds the handle of each set's rule; its keys are the sets.
	rules map[kind]uint64
	// gates holds the handles of the gates.
	gates map[place]uint64
	// answers: the chains that answer rejected packets are there.
	answers bool
}

func (s structure) kinds() []kind {
	out := make([]kind, 0, len(s.rules))
	for k := range s.rules {
		out = append(out, k)
	}
	return out
}

// absent are the lines that these kinds need, whose sets are new, and that are
// not there.
func (s structure) absent(kinds []kind) []place {
	return slices.DeleteFunc(places(kinds), func(l place) bool { _, there := s.gates[l]; return there })
}

// next is the handle of the rule that the line comes before; 0 means it is the
// last.
func (s structure) next(l place) uint64 {
	var best place
	var handle uint64
	nearer := func(o place, at uint64) {
		if o.target == l.target && l.compare(o) < 0 && (handle == 0 || o.compare(best) < 0) {
			best, handle = o, at
		}
	}
	for k, at := range s.rules {
		nearer(place{kind: k}, at)
	}
	for g, at := range s.gates {
		nearer(g, at)
	}
	return handle
}

// guess takes the kind's set for made, without knowing its rule.
func (s structure) guess(k kind) {
	s.rules[k] += 0
	if k.gated() {
		s.gates[k.gateOf()] += 0
	}
}

// live is what the kernel has.
type live struct {
	structure
	exists bool // the table
	right  bool // chains, rules and sets are as we make them
	wrong  string
	chains map[string]*nftables.Chain
	flags  nftables.TableFlags
	owner  uint32 // the netlink port that owns the table, where flags say so
	// drops are our counters of what was stopped, by name.
	drops map[string]element
	// allow are the allow sets that are as we make them, and what they hold.
	allow map[string][]element
	// replace are sets with a name of ours that are not as we make them.
	replace []definition
}

func isAllow(name string) bool {
	return slices.ContainsFunc(families(), func(f family) bool { return f.allow == name })
}

func (d definition) anonymous() bool { return d.flags&unix.NFT_SET_ANONYMOUS != 0 }

// fits reports whether the set is one that this backend makes for the kind,
// whatever its size.
func (d definition) fits(k kind) bool {
	f := k.family()
	key := f.keyType
	flags, expressions := uint32(unix.NFT_SET_TIMEOUT), ""
	if k.action == backend.RateLimit {
		flags, expressions = flags|nftSetExpr, "limit counter"
	} else if d.expressions == "counter" {
		expressions = d.expressions
	}
	return d.flags == flags && d.expressions == expressions && d.keyType == key.GetNFTMagic() && d.keyLen == f.length
}

func (d definition) fitsAllow(f family) bool {
	key := f.keyType
	return d.flags == unix.NFT_SET_INTERVAL && d.keyType == key.GetNFTMagic() && d.keyLen == f.length
}

// inspect reads the structure of the table and compares it with layout.
func (b *Backend) inspect() (live, error) {
	l := live{structure: structure{rules: map[kind]uint64{}, gates: map[place]uint64{}}, allow: map[string][]element{}, chains: map[string]*nftables.Chain{}}
	table, err := b.conn.ListTableOfFamily(b.config.Table, b.table.Family)
	if errors.Is(err, unix.ENOENT) {
		l.wrong = "no table"
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("read table: %w", err)
	}
	l.exists, l.flags, l.owner = true, table.Flags, table.Owner
	if err := b.inspectSets(&l); err != nil {
		return l, err
	}
	if l.drops, err = b.read.counters(b.config.Table); err != nil {
		return l, fmt.Errorf("read counters: %w", err)
	}
	chains, err := b.conn.ListChainsOfTableFamily(b.table.Family)
	if err != nil {
		return l, fmt.Errorf("read chains: %w", err)
	}
	for _, c := range chains {
		if c.Table != nil && c.Table.Name == b.config.Table {
			l.chains[c.Name] = c
		}
	}
	_, l.answers = l.chains[chainRefuse]
	if table.Flags&nftables.TableFlagDormant != 0 {
		l.wrong = "the table sleeps"
		return l, nil
	}
	b.compare(&l)
	return l, nil
}

func (b *Backend) inspectSets(l *live) error {
	defs, err := b.read.sets(b.config.Table)
	if err != nil {
		return fmt.Errorf("read sets: %w", err)
	}
	for _, d := range defs {
		k, ours := parseKind(d.name)
		allow := slices.IndexFunc(families(), func(f family) bool { return f.allow == d.name })
		switch {
		case ours && d.fits(k):
			l.rules[k] = 0
		case allow >= 0 && d.fitsAllow(families()[allow]):
			if l.allow[d.name], err = b.read.elements(b.config.Table, d.name); err != nil {
				return fmt.Errorf("read set %s: %w", d.name, err)
			}
		case ours || allow >= 0:
			l.replace = append(l.replace, d)
		}
	}
	return nil
}

// compare sets right, or wrong to what it found first, and the rules' handles.
func (b *Backend) compare(l *live) {
	if len(l.replace) > 0 {
		l.wrong = "set " + l.replace[0].name
		return
	}
	if b.protects() && !l.owned(b.port) {
		l.wrong = "the table is not protected"
		return
	}
	for _, counter := range dropCounters(b.table) {
		if _, ok := l.drops[counter.Name]; !ok {
			l.wrong = "counter " + counter.Name
			return
		}
	}
	for _, f := range families() {
		have, ok := l.allow[f.allow]
		if !ok || b.allowed != nil && !sameElements(have, b.allowed[f.allow]) {
			l.wrong = "set " + f.allow
			return
		}
	}
	for _, want := range layout(b.config, l.kinds(), l.answers) {
		have, ok := l.chains[want.name]
		if !ok || !want.same(have) {
			l.wrong = "chain " + want.name
			return
		}
		rules, err := b.conn.GetRules(b.table, have)
		if err != nil || !sameRules(rules, want.rules) {
			// An error is an expression the library cannot read: not ours.
			l.wrong = "rules of chain " + want.name
			return
		}
		for i, one := range want.places {
			if one.gate {
				l.gates[one] = rules[i].Handle
			} else {
				l.rules[one.kind] = rules[i].Handle
			}
		}
	}
	l.right = true
}

// same reports whether the kernel's chain is as we make it.
func (s chainSpec) same(c *nftables.Chain) bool {
	want := s.chain(c.Table)
	if want.Hooknum == nil || c.Hooknum == nil {
		return want.Hooknum == nil && c.Hooknum == nil
	}
	return c.Type == want.Type && *c.Hooknum == *want.Hooknum && c.Priority != nil && *c.Priority == *want.Priority &&
		c.Policy != nil && *c.Policy == *want.Policy
}

func sameRules(have []*nftables.Rule, want [][]expr.Any) bool {
	return slices.EqualFunc(have, want, func(h *nftables.Rule, w []expr.Any) bool {
		return slices.EqualFunc(h.Exprs, w, sameExpr)
	})
}

// sameExpr compares two expressions in their netlink form, without what the
// kernel counts and without numbers that hold inside one transaction only.
func sameExpr(a, b expr.Any) bool {
	x, errX := expr.Marshal(byte(nftables.TableFamilyINet), plain(a))
	y, errY := expr.Marshal(byte(nftables.TableFamilyINet), plain(b))
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func plain(e expr.Any) expr.Any {
	switch e := e.(type) {
	case *expr.Counter:
		return &expr.Counter{}
	case *expr.Lookup:
		c := *e
		c.SetID = 0
		return &c
	}
	return e
}
