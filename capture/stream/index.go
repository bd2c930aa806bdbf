package stream

import "math/bits"

// bucketSlots is how many connections a bucket of the index has room for.
const bucketSlots = 12

// bucket is one line of the cache, so that a connection that is not known costs
// one line, and one that is known a second. Tags are eight bits of each
// connection's hash, 0 where the slot is free.
type bucket struct {
	tags uint64 // of slots 0 to 7
	more uint32 // of slots 8 to 11
	// over is how many connections found no room here and went to the buckets
	// behind it; at 0 a search ends.
	over    uint32
	numbers [bucketSlots]uint32
}

// index finds connections by their hash. Its length is a power of two.
type index []bucket

// newIndex has room for n connections, at most two thirds of its slots full: of
// a hundred connections two then lie in another bucket than their own.
func newIndex(n int) index {
	size := 1
	for size*bucketSlots*2 < n*3 {
		size *= 2
	}
	return make(index, size)
}

// at is the n-th bucket, counted around.
func (x index) at(n uint64) *bucket { return &x[n&uint64(len(x)-1)] }

// tagOf are bits of a hash that do not choose the bucket.
func tagOf(hash uint64) uint8 { return uint8(max(hash>>56, 1)) }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// match returns the slots with a tag: the lowest of them for sure, of the
// others each that has it and perhaps more. slot takes the lowest off.
func (b *bucket) match(tag uint8) uint64 {
	// A byte is zero where subtracting one borrows from its highest bit.
	lo, hi := b.tags^ones*uint64(tag), uint64(b.more)^ones>>32*uint64(tag)
	return (lo-ones)&^lo&highs>>7 | (hi-ones>>32)&^hi&(highs>>32)>>6
}

func slot(match *uint64) int {
	at := bits.TrailingZeros64(*match)
	*match &= *match - 1
	return at>>3 + at&1<<3
}

// mark writes the tag of a slot, whose tag is or becomes 0.
func (b *bucket) mark(slot int, tag uint8) {
	if slot < 8 {
		b.tags ^= uint64(tag) << (8 * slot)
	} else {
		b.more ^= uint32(tag) << (8 * (slot - 8))
	}
}

// add notes connection i, which is not there.
func (x index) add(hash uint64, i uint32) {
	for n := hash; ; n++ {
		b := x.at(n)
		if m := b.match(0); m != 0 {
			s := slot(&m)
			b.mark(s, tagOf(hash))
			b.numbers[s] = i
			return
		}
		b.over++
	}
}

// remove forgets connection i, which is there.
func (x index) remove(hash uint64, i uint32) {
	for n := hash; ; n++ {
		b := x.at(n)
		for m := b.match(tagOf(hash)); m != 0; {
			if s := slot(&m); b.numbers[s] == i {
				b.mark(s, tagOf(hash))
				b.numbers[s] = 0
				return
			}
		}
		b.over--
	}
}

// find returns the number of the connection with a hash, 0 if there is none.
func (t *Table) find(hash uint64) uint32 {
	tag := tagOf(hash)
	for n := range uint64(len(t.index)) {
		b := t.index.at(hash + n)
		for m := b.match(tag); m != 0; {
			if i := b.numbers[slot(&m)]; i != 0 && t.at(i).hash == hash {
				return i
			}
		}
		if b.over == 0 {
			break
		}
	}
	return 0
}
