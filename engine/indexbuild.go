package engine

import (
	"slices"
	"strconv"

	"github.com/netcap-guard/netcap-guard/record"
)

// builder collects what an index is made of.
type builder struct {
	index  *index
	gates  []*key
	tables map[string]*draft
	order  []string // of the tables
	// crowd counts the cases that ask for one value of a key.
	crowd map[string]int
}

// maxCrowd is how many rules may stand behind one number before literals are
// to tell them apart.
const maxCrowd = 4

// draft is a table while rules are put into it.
type draft struct {
	key, port *key
	portIs    int64
	numbers   map[int64][]ruleRef
	spans     []span
	texts     map[string][]ruleRef
	nets      *nets
	literals  [][]string // of rules[i]
	owners    []ruleRef
	rules     []ruleRef
}

// newIndex makes the index of the rules of one record type.
func newIndex(list []evaluator) *index {
	b := &builder{index: &index{words: (len(list) + 63) / 64}, gates: gatesOf(list), tables: map[string]*draft{}, crowd: map[string]int{}}
	for _, k := range b.gates {
		b.index.gates = append(b.index.gates, k.value.offset)
	}
	for i := range list {
		for _, c := range list[i].when.cases {
			if best := cheapest(c); best >= 0 {
				b.crowd[value1(c[best])]++
			}
		}
	}
	for i := range list {
		for _, c := range list[i].when.cases {
			b.add(int32(i), c, list[i].countsSources())
		}
	}
	for _, name := range b.order {
		b.finish(b.tables[name])
	}
	for i := range b.index.always {
		slices.Sort(b.index.always[i])
		b.index.always[i] = slices.Compact(b.index.always[i])
	}
	return b.index
}

// add makes one case of a rule's conditions findable.
func (b *builder) add(rule int32, c []atom, counts bool) {
	e := ruleRef{rule, classesOf(c, b.gates)}
	for class := range numClasses {
		if counts && e.classes>>class&1 != 0 && b.index.counting[class] == 0 {
			b.index.counting[class] = rule + 1
		}
	}
	best := cheapest(c)
	if best < 0 {
		b.unconditional(e)
		return
	}
	at, port := c[best], (*atom)(nil)
	if name := value1(at); name != "" && b.crowd[name] > maxCrowd {
		if i := slices.IndexFunc(c, func(a atom) bool { return a.Op == record.ContainsAny }); i >= 0 {
			at, port = c[i], &c[best]
		}
	}
	if !b.put(at, port, e) {
		b.unconditional(e)
	}
}

// cheapest is the atom of a case by which it is found, -1 if there is none.
func cheapest(c []atom) int {
	best := -1
	for i, a := range c {
		if usable(a) && (best < 0 || price(a) < price(c[best])) {
			best = i
		}
	}
	return best
}

// value1 names the one number that an atom on a field of the record asks for.
func value1(a atom) string {
	if a.Op != record.OneOf || len(a.Values) != 1 || !a.key.value.top {
		return ""
	}
	return a.key.name + "=" + strconv.FormatInt(a.Values[0], 10)
}

// unconditional makes a rule a candidate wherever its class fits.
func (b *builder) unconditional(e ruleRef) {
	for class := range numClasses {
		if e.classes>>class&1 != 0 {
			b.index.always[class] = append(b.index.always[class], e.rule)
		}
	}
}

// price estimates how often an atom holds, and what it costs to know.
func price(a atom) int {
	bulky := a.key.value.class == isBytes
	switch {
	case a.Op == record.Within:
		shortest := 128
		for _, p := range a.Prefixes {
			shortest = min(shortest, p.Bits()+128-p.Addr().BitLen())
		}
		return 2 + (128-shortest)/8 + len(a.Prefixes)/64
	case a.Op == record.OneOf && a.Texts != nil:
		return 3 + 8/max(1, weight(a.Texts)-2)
	case a.Op == record.OneOf && isPort(a.key):
		return 4 + len(a.Values)/8
	case a.Op == record.ContainsAny && !bulky:
		return 5 + 24/weight(a.Texts)
	case a.Op == record.OneOf:
		return 10 + len(a.Values)
	case a.Op == record.ContainsAny:
		return 20 + 24/weight(a.Texts)
	}
	return 12 + width(a.Values[0], a.Values[1])
}

func isPort(k *key) bool { return k.field == "DstPort" || k.field == "SrcPort" }

// width is the number of bits of a range's length.
func width(low, high int64) int {
	n := 0
	for d := uint64(high) - uint64(low); d > 0; d >>= 1 {
		n++
	}
	return n
}

// put enters a case under one of its atoms, or under that and a port.
func (b *builder) put(a atom, port *atom, e ruleRef) bool {
	name := a.key.name
	if port != nil {
		name += " at " + value1(*port)
	}
	d := b.tables[name]
	if d == nil {
		if len(b.tables) == maxTables {
			return false
		}
		d = &draft{key: a.key, numbers: map[int64][]ruleRef{}, texts: map[string][]ruleRef{}}
		if port != nil {
			d.port, d.portIs = port.key, port.Values[0]
		}
		b.tables[name] = d
		b.order = append(b.order, name)
	}
	switch a.Op {
	case record.OneOf:
		for _, v := range a.Values {
			d.numbers[v] = append(d.numbers[v], e)
		}
		for _, s := range a.Texts {
			d.texts[s] = append(d.texts[s], e)
		}
	case record.Between:
		d.spans = append(d.spans, span{a.Values[0], a.Values[1], e})
	case record.Within:
		if d.nets == nil {
			d.nets = newNets()
		}
		for _, p := range a.Prefixes {
			d.nets.add(p, e)
		}
	case record.ContainsAny:
		d.literals = append(d.literals, a.Texts)
		d.owners = append(d.owners, e)
	case record.NoneOf, record.NotBetween, record.NotWithin:
		return false
	}
	d.rules = append(d.rules, e)
	return true
}

// finish makes a table of a draft. What does not fit into one is always run.
func (b *builder) finish(d *draft) {
	t := table{key: d.key, port: d.port, portIs: d.portIs, rules: d.rules, nets: d.nets}
	if len(d.numbers) > 0 {
		t.numbers = newNumbers(d.numbers)
	}
	if len(d.spans) > 0 {
		if t.ranges = newRanges(d.spans); t.ranges == nil {
			for _, s := range d.spans {
				b.unconditional(s.rule)
			}
		}
	}
	if len(d.texts) > 0 {
		t.texts = d.texts
	}
	if len(d.literals) > 0 {
		t.owners = d.owners
		if t.needles = newAutomaton(d.literals); t.needles == nil {
			for _, e := range d.owners {
				b.unconditional(e)
			}
		}
	}
	if t.numbers == nil && t.ranges == nil && t.texts == nil && t.nets == nil && t.needles == nil {
		return
	}
	var in classes
	for _, e := range d.rules {
		in |= e.classes
	}
	bit := uint64(1) << len(b.index.all)
	b.index.all = append(b.index.all, t)
	for class := range numClasses {
		if in>>class&1 != 0 {
			b.index.tables[class] |= bit
		}
	}
}
