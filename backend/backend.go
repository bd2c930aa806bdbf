// Package backend is the vocabulary of blocking: what a block is, how a set of
// changes to the kernel is described, and the interface every firewall
// backend implements. It imports the standard library alone, so that policy
// (package firewall) and the doors to the kernel (backend/nft,
// backend/iptables) can share it without knowing each other.
package backend

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Backend puts blocks into a kernel and says what the kernel enforces.
//
// A Backend has one owner (the firewall Manager), which orders the calls:
// methods need not be safe for concurrent use. No method keeps a slice it was
// given, and every slice it returns belongs to the caller.
//
// Errors wrap one of this package's sentinels where a caller could branch on
// it; their text names the operation once.
type Backend interface {
	// Name is the backend's short name as users type it: "nft", "iptables"
	// or "memory".
	Name() string

	// Init makes what is missing of our own objects (table or chain, hooks or
	// jumps) and adopts what is there: blocks that an earlier process left
	// stay in force and are returned by List. It is idempotent. If it fails it
	// leaves nothing behind that was not there before.
	Init(ctx context.Context) error

	// Apply makes one Change as one transaction: all of it holds when Apply
	// returns nil, and none of it when it returns an error. (iptables cannot
	// do that across the two families; where the second family fails the
	// first is rolled back.) A block in Remove that is not there is no error.
	// A block in Add whose (Key, Action) exists replaces it, end and comment
	// included, without a moment in which the address is not blocked. A block
	// in Add whose end has come already is no error: it is left out, and the
	// one it would replace is taken out. What Change.Validate refuses is
	// refused with ErrInvalid, and before Init with ErrGone.
	Apply(ctx context.Context, c Change) error

	// List returns every block of ours that the kernel enforces, in no
	// particular order. Objects in our table or chain that we cannot read are
	// skipped and counted (see Skipper), never an error. It may be slow
	// (iptables runs a program, nft dumps sets): never call it per block.
	//
	// After Init it also looks at the structure around the blocks. Where that
	// is not as Init makes it (table, chain or jump gone or changed, jump no
	// longer first), the error wraps ErrDamaged, or ErrGone where nothing of
	// ours is left; the blocks returned beside it are what is still there,
	// enforced or not.
	List(ctx context.Context) ([]Block, error)

	Watcher // Lookup and Watch

	// Flush removes all blocks; table, chain, hooks, jumps and the allowed
	// prefixes stay.
	Flush(ctx context.Context) error

	// Close removes everything of ours, touches nothing else and releases the
	// connection to the kernel. It is idempotent; afterwards every other
	// method returns ErrClosed.
	Close(ctx context.Context) error
}

// Detacher is implemented by backends that can release the connection to the
// kernel and leave the blocks in force (KeepOnClose).
type Detacher interface {
	// Detach releases what the process holds; the kernel's objects stay.
	Detach() error
}

// Skipper is implemented by backends whose kernel can hold objects that are
// not ours.
type Skipper interface {
	// Skipped returns how many foreign or malformed objects the last List
	// passed over.
	Skipped() int
}

// Drops is what one action has stopped in one family.
type Drops struct {
	Action  Action
	Is6     bool
	Packets uint64
}

// Dropper is implemented by backends that count what they stop by action and
// family, whatever became of the blocks that did it.
type Dropper interface {
	// Dropped returns the counts, for the actions that stop packets (Drop,
	// Reject, RejectReset and RateLimit, of which those above the rate), one
	// for each family, in no particular order, zeros included. They never go
	// down while our table or chain lives; a table that somebody deleted and
	// that was put back starts again from zero. It is cheap (no block is
	// looked at), but asks the kernel.
	Dropped(ctx context.Context) ([]Drops, error)
}

// Change is what one transaction does. Within a Change the removals come
// first: a block that changes its Action is in Remove with the old Action and
// in Add with the new one.
type Change struct {
	Remove []Block
	Add    []Block
	// Allow, where it is not nil, replaces the whole list of prefixes that
	// the kernel lets through in front of every block: traffic from an
	// allowed source is never stopped by a source block, traffic to an
	// allowed destination never by a destination block. The prefixes may
	// nest, overlap and be of both families.
	Allow *[]netip.Prefix
	// Replaces is a hint: some of Add replaces a block of the same Slot. It
	// changes nothing in what Apply does, but a backend that would first try to
	// put in all as new need not fail (a transaction that nf_tables takes back
	// waits for every packet under way: 20 ms).
	Replaces bool
	// Rebuild puts the structure back in the same step, as Init makes it, and
	// takes every block out that is not in Add: what somebody damaged is as it
	// was when Apply returns. Remove is not looked at.
	Rebuild bool
}

// Empty reports whether the change does nothing.
func (c Change) Empty() bool {
	return len(c.Remove) == 0 && len(c.Add) == 0 && c.Allow == nil && !c.Rebuild
}

// String prints the change, one line each removal and addition: the dry-run
// log, the golden file of tests and the audit line share this one rendering.
func (c Change) String() string {
	var b strings.Builder
	if c.Rebuild {
		b.WriteString("rebuild\n")
	}
	if c.Allow != nil {
		b.WriteString("allow")
		for _, p := range *c.Allow {
			b.WriteString(" " + p.String())
		}
		b.WriteString("\n")
	}
	for _, r := range c.Remove {
		fmt.Fprintf(&b, "remove %s %s\n", r.Action, r.Key)
	}
	for _, a := range c.Add {
		fmt.Fprintf(&b, "add %s\n", a)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Remaining is the time from now to the block's end, zero for one whose end
// has come. Ask Permanent first.
func (b Block) Remaining(now time.Time) time.Duration {
	return max(b.ExpiresAt.Sub(now), 0)
}
