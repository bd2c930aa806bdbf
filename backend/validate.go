package backend

import (
	"fmt"
	"hash/maphash"
	"net/netip"
)

// Validate checks what every backend refuses before it touches a kernel. An
// error wraps ErrInvalid and names the offending entry; nothing was done.
//
// Refused are: a prefix that is not in the form of Canonical, an unknown
// target or action, a Log flag that does not fit the action, a RateLimit
// whose limit is none (see CheckLimit; what one backend alone cannot express is
// that backend's to refuse, with ErrUnsupported), a log prefix that CheckLogPrefix
// refuses, a limit or a log prefix where the action has none, and the same
// (Key, Action) twice in Add, because the two would differ in end and comment.
// A prefix of length 0, every address of a
// family, is no error here, in a block nor in Allow: who may ask for it is
// policy. That a block in Add is already past its end is no error: see
// Backend.Apply. Remove is not looked at where Rebuild is set.
func (c Change) Validate() error {
	removals := c.Remove
	if c.Rebuild {
		removals = nil
	}
	for _, b := range removals {
		if err := b.validKey(); err != nil {
			return fmt.Errorf("remove %s %s: %w", b.Action, b.Key, err)
		}
	}
	for i := range c.Add {
		if err := c.Add[i].valid(); err != nil {
			return fmt.Errorf("add %s %s: %w", c.Add[i].Action, c.Add[i].Key, err)
		}
	}
	if i, twice := repeated(c.Add); twice {
		return fmt.Errorf("add %s %s: %w: twice in one change", c.Add[i].Action, c.Add[i].Key, ErrInvalid)
	}
	if c.Allow == nil {
		return nil
	}
	for _, p := range *c.Allow {
		if err := canonical(p); err != nil {
			return fmt.Errorf("allow %s: %w", p, err)
		}
	}
	return nil
}

// repeated finds a block whose slot one before it has. The table, open
// addressing at half load, takes 16 bytes a block and a third of the time of a
// map of slots; the seed keeps who chooses the addresses from making them
// collide.
func repeated(blocks []Block) (int, bool) {
	if len(blocks) < 2 {
		return 0, false
	}
	size := 2
	for size < 2*len(blocks) {
		size *= 2
	}
	const index = 1<<32 - 1
	table := make([]uint64, size) // upper half of the hash, index + 1; 0 is free
	seed := maphash.MakeSeed()
	for i := range blocks {
		hash := maphash.Comparable(seed, blocks[i].Slot())
		at := int(hash) & (size - 1)
		for ; table[at] != 0; at = (at + 1) & (size - 1) {
			if table[at]>>32 == hash>>32 && blocks[table[at]&index-1].Slot() == blocks[i].Slot() {
				return i, true
			}
		}
		table[at] = hash&^index | uint64(i+1)
	}
	return 0, false
}

// Slot is the place a block takes in a kernel: a kernel holds at most one
// block for each Slot. It is comparable.
type Slot struct {
	Key
	Action Action
}

// Slot returns the block's place in a kernel.
func (b Block) Slot() Slot { return Slot{Key: b.Key, Action: b.Action} }

func (b Block) validKey() error {
	switch {
	case b.Action >= numActions:
		return fmt.Errorf("%w: unknown action", ErrInvalid)
	case b.Target > Destination:
		return fmt.Errorf("%w: unknown target", ErrInvalid)
	case b.Log != (b.Action == Log):
		return fmt.Errorf("%w: the key's log flag does not fit the action", ErrInvalid)
	}
	return canonical(b.Prefix)
}

func (b *Block) valid() error {
	if err := b.validKey(); err != nil {
		return err
	}
	switch {
	case b.Action == RateLimit:
		if err := CheckLimit("", b.Limit); err != nil {
			return err
		}
	case b.Limit != Limit{}:
		return fmt.Errorf("%w: a limit on an action without one", ErrInvalid)
	}
	if b.Action == Log {
		return CheckLogPrefix(b.LogPrefix)
	}
	if b.LogPrefix != "" {
		return fmt.Errorf("%w: a log prefix on an action without one", ErrInvalid)
	}
	return nil
}

func canonical(p netip.Prefix) error {
	want, err := Canonical(p)
	if err != nil {
		return err
	}
	if p != want {
		return fmt.Errorf("%w: prefix %s is not canonical (%s)", ErrInvalid, p, want)
	}
	return nil
}
