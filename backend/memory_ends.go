package backend

import (
	"container/heap"
	"time"
)

// held is a block that a Memory holds.
type held struct {
	Block
	pos int // in the heap of ends; -1 for a permanent block
}

// holdings are the blocks of a Memory, by identity and by end, so that a change
// costs what it changes, however many blocks there are. They are not safe for
// concurrent use.
type holdings struct {
	blocks map[Slot]*held
	ends   ends
}

func newHoldings() holdings { return holdings{blocks: make(map[Slot]*held)} }

// put enters a block in place of the one of its slot.
func (h *holdings) put(b Block) {
	slot := b.Slot()
	h.remove(slot)
	one := &held{Block: b, pos: -1}
	h.blocks[slot] = one
	if !b.Permanent() {
		heap.Push(&h.ends, one)
	}
}

func (h *holdings) remove(s Slot) {
	one, ok := h.blocks[s]
	if !ok {
		return
	}
	delete(h.blocks, s)
	if one.pos >= 0 {
		heap.Remove(&h.ends, one.pos)
	}
}

func (h *holdings) clear() {
	clear(h.blocks)
	clear(h.ends)
	h.ends = h.ends[:0]
}

// expire takes out what has ended.
func (h *holdings) expire(now time.Time) {
	for len(h.ends) > 0 && h.ends[0].Expired(now) {
		h.remove(h.ends[0].Slot())
	}
}

// ends orders the timed blocks by their ends, for container/heap.
type ends []*held

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].ExpiresAt.Before(e[j].ExpiresAt) }
func (e ends) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].pos, e[j].pos = i, j
}

// Push is container/heap's: use heap.Push.
func (e *ends) Push(v any) {
	one, _ := v.(*held)
	one.pos = len(*e)
	*e = append(*e, one)
}

// Pop is container/heap's: use heap.Remove.
func (e *ends) Pop() any {
	last := len(*e) - 1
	one := (*e)[last]
	(*e)[last] = nil
	*e = (*e)[:last]
	one.pos = -1
	return one
}
