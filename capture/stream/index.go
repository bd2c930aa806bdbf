package stream

import (
	"encoding/binary"
	"math/bits"
)

// groupSlots is how many connections a group of the index has room for.
const groupSlots = 15

// group is a part of the index: eight bits of each connection's hash, 0 where
// the slot is free. Whose they are stands elsewhere: that a connection is not
// known, which is so of every packet of a scan or a flood, is told by a table
// small enough for the caches.
//
// The last byte is how many connections found no room here and went to the
// groups behind it: at 0 a search ends. What has come to 255 stays there.
type group [groupSlots + 1]uint8

func (g *group) over() *uint8 { return &g[groupSlots] }

// index finds connections by their hash. The number of groups is a power of
// two.
type index struct {
	groups  []group
	numbers [][16]uint32 // of the connections, by group and slot; the last is not used
}

// groupLoad is the mean number of connections in a group of a full table: one
// of a thousand then lies in another group than its own.
const groupLoad = 8

// newIndex has room for n connections.
func newIndex(n int) index {
	size := 1
	for size*groupLoad < n {
		size *= 2
	}
	return index{make([]group, size), make([][16]uint32, size)}
}

// at is the number of the n-th group, counted around.
func (x *index) at(n uint64) uint64 { return n & uint64(len(x.groups)-1) }

// tagOf are bits of a hash that do not choose the group.
func tagOf(hash uint64) uint8 { return uint8(max(hash>>56, 1)) }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// match returns the slots with a tag: the lowest of them for sure, of the
// others each that has it and perhaps more. slot takes the lowest off.
func (g *group) match(tag uint8) uint64 {
	// A byte is zero where subtracting one borrows from its highest bit.
	lo := binary.LittleEndian.Uint64(g[:8]) ^ ones*uint64(tag)
	hi := binary.LittleEndian.Uint64(g[8:]) ^ ones*uint64(tag)
	return (lo-ones)&^lo&highs>>7 | (hi-ones)&^hi&(highs>>8)>>6
}

func slot(match *uint64) int {
	at := bits.TrailingZeros64(*match)
	*match &= *match - 1
	return at>>3 + at&1<<3
}

// add notes connection i, which is not there.
func (x *index) add(hash uint64, i uint32) {
	for n := hash; ; n++ {
		at := x.at(n)
		g := &x.groups[at]
		if m := g.match(0); m != 0 {
			s := slot(&m)
			g[s] = tagOf(hash)
			x.numbers[at][s] = i
			return
		}
		if over := g.over(); *over < 255 {
			*over++
		}
	}
}

// remove forgets connection i, which is there.
func (x *index) remove(hash uint64, i uint32) {
	tag := tagOf(hash)
	for n := hash; ; n++ {
		at := x.at(n)
		g := &x.groups[at]
		for m := g.match(tag); m != 0; {
			s := slot(&m)
			if g[s] != tag {
				continue
			}
			// The only one that it can be needs no look at its number.
			if m == 0 && *g.over() == 0 || x.numbers[at][s] == i {
				g[s] = 0
				return
			}
		}
		if over := g.over(); *over < 255 {
			*over--
		}
	}
}

// find returns the number of the connection with a hash, 0 if there is none.
func (t *Table) find(hash uint64) uint32 {
	x, tag := &t.index, tagOf(hash)
	for n := range uint64(len(x.groups)) {
		at := x.at(hash + n)
		g := &x.groups[at]
		for m := g.match(tag); m != 0; {
			if i := x.numbers[at][slot(&m)]; i != 0 && t.at(i).hash == hash {
				return i
			}
		}
		if *g.over() == 0 {
			break
		}
	}
	return 0
}
