package backend

import (
	"context"
	"time"
)

// Status is what the kernel says of one block.
type Status struct {
	Key
	// Found: the kernel enforces a block of this Key; Action says which.
	Found  bool
	Action Action
	// Permanent blocks have no Remaining.
	Permanent bool
	Remaining time.Duration
	// Packets that the block stopped (RateLimit: those above the rate; Log:
	// copied) so far, where HasPackets.
	Packets    uint64
	HasPackets bool
}

// EventKind says what somebody else did.
type EventKind uint8

// The kinds of events.
const (
	// Removed: blocks were taken out one by one; Keys names them.
	Removed EventKind = iota
	// Emptied: the blocks named in Keys went together, in one transaction, from
	// what the kernel keeps as one set. Whether they were all of it only
	// somebody knows who knows what it held; a flush of a set with one block is
	// a Removed.
	Emptied
	// Damaged: the structure was changed or is gone.
	Damaged
	// Look: something may have changed; only a List can tell what. The
	// monitor lost messages, a foreign element was added, or it is time for a
	// backend that must ask.
	Look
)

// String is the event's kind in logs.
func (k EventKind) String() string {
	names := [...]string{"removed", "emptied", "damaged", "look"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Event tells that somebody else touched our objects, or may have. What this
// Backend does itself raises none.
type Event struct {
	Kind EventKind
	Keys []Key // Removed and Emptied
	// Reason is for people: "table deleted", "set drop_src4_32 emptied",
	// "netlink messages lost".
	Reason string
	// By names the program and process, where the kernel says: "nft (1234)".
	By string
}

// Watcher is the part of a Backend that looks instead of acting.
type Watcher interface {
	// Lookup says what the kernel enforces for single keys, in the order of
	// keys, without listing.
	Lookup(ctx context.Context, keys []Key) ([]Status, error)

	// Watch calls f for each event until ctx ends, and then returns nil. It
	// may run beside every other method (it has a connection of its own);
	// f is called from Watch's goroutine and may call the other methods.
	// ready, if not nil, is closed when nothing can be missed any more.
	// It is started after Init, at most once at a time, and ended before Close
	// or Detach.
	Watch(ctx context.Context, ready chan<- struct{}, f func(Event)) error
}
