package engine

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/netcap-guard/netcap-guard/record"
)

// Limits of an index.
const (
	// maxGates booleans make the classes: 2^6 of them.
	maxGates   = 6
	numClasses = 1 << maxGates
	// maxTables look-ups of different keys; what is beyond is always run.
	maxTables = 64
	// maxSpread is how many entries a table of ranges may have for each range
	// put into it.
	maxSpread = 64
)

// classes is a set of flag classes, one bit each.
type classes uint64

const everyClass = ^classes(0)

// index picks the rules of one record type that can match a record. A record
// belongs to one of 64 classes by up to six of its booleans (of TCP: flags).
// The rules whose conditions say no more are listed by class; the others are
// found by what their conditions compare for equality, by ranges, prefixes or
// literals, in tables of which a class names the ones worth looking at. An
// index is immutable.
type index struct {
	gates  []uintptr // offsets of the booleans
	always [numClasses][]int32
	// tables of the class, as bits.
	tables [numClasses]uint64
	// counting is a rule of the class that counts source addresses, plus one;
	// 0 = there is none.
	counting [numClasses]int32
	all      []table
	// words is the length of a candidate set.
	words int
}

// ruleRef is a rule, and the classes in which it can match.
type ruleRef struct {
	rule    int32
	classes classes
}

// table finds rules by one key. Where the key has no value for a record
// (Questions[0] of an empty list), every rule of the table is a candidate: it
// has to fail on its own.
type table struct {
	key *key
	// port, where it is not nil, has to be portIs for the table to be looked
	// at: a hundred patterns on requests to one port are looked for only there.
	port    *key
	portIs  int64
	rules   []ruleRef
	numbers *numbers
	ranges  *ranges
	texts   map[string][]ruleRef
	nets    *nets
	// needles are the literals of owners.
	needles *automaton
	owners  []ruleRef
}

// candidates is a set of rules, in their order. It belongs to a worker.
type candidates struct {
	words   []uint64
	classes classes
}

func (c *candidates) add(e ruleRef) {
	if e.classes&c.classes != 0 {
		c.words[e.rule>>6] |= 1 << (e.rule & 63)
	}
}

func (c *candidates) addAll(list []ruleRef) {
	for i := range list {
		c.add(list[i])
	}
}

// next removes the first candidate from w on and returns it, -1 at the end.
func (c *candidates) next(w *int) int {
	for ; *w < len(c.words); *w++ {
		if word := c.words[*w]; word != 0 {
			c.words[*w] = word & (word - 1)
			return *w<<6 | bits.TrailingZeros64(word)
		}
	}
	return -1
}

// class is the class that a record belongs to.
func (x *index) class(rec ref) int {
	class := 0
	for i, off := range x.gates {
		if rec.at(off).bool() {
			class |= 1 << i
		}
	}
	return class
}

// collect puts the rules that can match the record into c, which must be
// empty. It reports whether there are any.
func (x *index) collect(e *env, c *candidates) bool {
	class := x.class(e.rec)
	always, tables := x.always[class], x.tables[class]
	if len(always) == 0 && tables == 0 {
		return false
	}
	c.classes = 1 << class
	for _, r := range always {
		c.words[r>>6] |= 1 << (r & 63)
	}
	for ; tables != 0; tables &= tables - 1 {
		x.all[bits.TrailingZeros64(tables)].look(e, c)
	}
	return true
}

// look adds the candidates of one table.
func (t *table) look(e *env, c *candidates) {
	if t.port != nil && int64(t.port.value.i(e)) != t.portIs {
		return
	}
	v := &t.key.value
	if t.nets != nil {
		t.nets.find(v.header(e).Unmap().WithZone(""), c)
	}
	switch {
	case t.numbers != nil || t.ranges != nil:
		n := int64(v.i(e))
		if t.numbers != nil {
			c.addAll(t.numbers.find(n))
		}
		if t.ranges != nil {
			c.addAll(t.ranges.find(n))
		}
	case t.needles != nil && v.class == isBytes:
		if b := v.y(e); len(b) >= t.needles.min {
			addFound(scan(t.needles, b), t.owners, c)
		}
	case t.needles != nil || t.texts != nil:
		s := v.s(e)
		if t.texts != nil {
			c.addAll(t.texts[s])
		}
		if t.needles != nil && len(s) >= t.needles.min {
			addFound(scan(t.needles, s), t.owners, c)
		}
	}
	if e.fault != noFault {
		e.fault = noFault
		c.addAll(t.rules)
	}
}

func addFound[T string | []byte](s scanner[T], rules []ruleRef, c *candidates) {
	for owners := s.following(); owners != nil; owners = s.following() {
		for _, o := range owners {
			c.add(rules[o])
		}
	}
}

// numbers finds rules by an integer: open addressing, at most half full.
type numbers struct {
	shift uint8
	slots []numberSlot
}

type numberSlot struct {
	value   int64
	entries []ruleRef // nil = free
}

func newNumbers(lists map[int64][]ruleRef) *numbers {
	n := &numbers{shift: 64 - uint8(bits.Len(uint(2*len(lists))))}
	n.slots = make([]numberSlot, 1<<(64-n.shift))
	for v, list := range lists {
		i := n.hash(v)
		for n.slots[i].entries != nil {
			i = (i + 1) & (len(n.slots) - 1)
		}
		n.slots[i] = numberSlot{v, list}
	}
	return n
}

func (n *numbers) hash(v int64) int { return int(uint64(v) * 0x9e3779b97f4a7c15 >> n.shift) }

func (n *numbers) find(v int64) []ruleRef {
	for i := n.hash(v); ; i = (i + 1) & (len(n.slots) - 1) {
		if s := &n.slots[i]; s.entries == nil || s.value == v {
			return s.entries
		}
	}
}

// ranges finds rules by the ranges that hold an integer: the ends of all
// ranges cut the numbers into pieces, each with its list.
type ranges struct {
	from []int64 // where the i-th piece begins, in order
	list [][]ruleRef
}

type span struct {
	low, high int64
	rule      ruleRef
}

// newRanges returns nil where the ranges overlap too much.
func newRanges(spans []span) *ranges {
	r := &ranges{}
	for _, s := range spans {
		r.from = append(r.from, s.low)
		if s.high+1 > s.high {
			r.from = append(r.from, s.high+1)
		}
	}
	slices.Sort(r.from)
	r.from = slices.Compact(r.from)
	r.list = make([][]ruleRef, len(r.from))
	total := 0
	for _, s := range spans {
		i, _ := slices.BinarySearch(r.from, s.low)
		for ; i < len(r.from) && r.from[i] <= s.high; i++ {
			r.list[i] = append(r.list[i], s.rule)
			if total++; total > maxSpread*len(spans) {
				return nil
			}
		}
	}
	return r
}

func (r *ranges) find(v int64) []ruleRef {
	low, high := 0, len(r.from)
	for low < high {
		if m := (low + high) / 2; r.from[m] <= v {
			low = m + 1
		} else {
			high = m
		}
	}
	if low == 0 {
		return nil
	}
	return r.list[low-1]
}

// nets finds rules by the prefixes that hold an address: one look-up for each
// length of prefix that occurs.
type nets struct {
	lengths [2][]int // IPv4, IPv6
	list    map[netip.Prefix][]ruleRef
}

func newNets() *nets { return &nets{list: map[netip.Prefix][]ruleRef{}} }

func (n *nets) add(p netip.Prefix, e ruleRef) {
	family := 0
	if p.Addr().Is6() {
		family = 1
	}
	if !slices.Contains(n.lengths[family], p.Bits()) {
		n.lengths[family] = append(n.lengths[family], p.Bits())
	}
	n.list[p] = append(n.list[p], e)
}

func (n *nets) find(a netip.Addr, c *candidates) {
	if !a.IsValid() {
		return
	}
	family := 0
	if a.Is6() {
		family = 1
	}
	for _, bits := range n.lengths[family] {
		if p, err := a.Prefix(bits); err == nil {
			c.addAll(n.list[p])
		}
	}
}

// gatesOf picks the booleans of the record that most conditions ask for.
func gatesOf(list []evaluator) []*key {
	uses, keys := map[string]int{}, map[string]*key{}
	for i := range list {
		for _, c := range list[i].when.cases {
			for _, a := range c {
				if a.key.value.class == isBool && a.key.value.top {
					uses[a.key.name]++
					keys[a.key.name] = a.key
				}
			}
		}
	}
	names := make([]string, 0, len(uses))
	for name := range uses {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(uses[b], uses[a]), cmp.Compare(a, b)) })
	var gates []*key
	for _, name := range names[:min(len(names), maxGates)] {
		gates = append(gates, keys[name])
	}
	return gates
}

// classesOf is the set of classes in which a case can hold.
func classesOf(c []atom, gates []*key) classes {
	set := everyClass
	for _, a := range c {
		i := slices.IndexFunc(gates, func(k *key) bool { return k.name == a.key.name })
		if i < 0 || a.key.value.class != isBool {
			continue
		}
		for class := range numClasses {
			if int64(class>>i&1) != a.Values[0] {
				set &^= 1 << class
			}
		}
	}
	return set
}

// usable reports whether a case can be found by an atom.
func usable(a atom) bool {
	switch a.Op {
	case record.OneOf:
		return a.key.value.class == isInt || a.key.value.class == isText
	case record.Between:
		return true
	case record.Within:
		return len(a.Prefixes) <= 256
	case record.ContainsAny:
		return true
	case record.NoneOf, record.NotBetween, record.NotWithin:
	}
	return false
}
