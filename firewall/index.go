package firewall

import (
	"cmp"
	"container/heap"
	"net/netip"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Origin says where a block came from.
type Origin string

// The origins of a block.
const (
	OriginRule    Origin = "rule"    // a detection rule
	OriginManual  Origin = "manual"  // a person or a program through the API
	OriginAdopted Origin = "adopted" // found in the kernel at start
	OriginKernel  Origin = "kernel"  // read from the kernel, no guard asked
)

// BlockInfo is one active block as the page shows it. It is a copy.
type BlockInfo struct {
	// IP is the bare address of a single host, and the CIDR of a prefix.
	IP        string
	Prefix    netip.Prefix
	Target    string // "source" or "destination"
	Action    string // "DROP", "REJECT", ...
	RuleName  string
	Reason    string
	CreatedAt time.Time
	ExpiresAt time.Time // zero = permanent
	Origin    Origin
}

// entry is a block in the index. Its fields are guarded by Manager.mu.
type entry struct {
	backend.Block
	origin Origin
	forced bool      // put on a protected address on purpose
	due    time.Time // when it leaves the kernel: its end, or the next try
	pos    int       // in the heap; -1 for a permanent block
}

func (e *entry) info() BlockInfo {
	ip := e.Prefix.String()
	if e.Prefix.IsSingleIP() {
		ip = e.Prefix.Addr().String()
	}
	return BlockInfo{
		IP: ip, Prefix: e.Prefix, Target: e.Target.String(), Action: e.Action.String(),
		RuleName: e.Rule, Reason: e.Reason, CreatedAt: e.CreatedAt, ExpiresAt: e.ExpiresAt, Origin: e.origin,
	}
}

// index holds every block the kernel enforces, by identity, by prefix and by
// end. It is not safe for concurrent use.
type index struct {
	blocks map[backend.Key]*entry
	// prefixes of the blocks (kernel log rules left out), by target.
	prefixes [2]prefixSet[*entry]
	ends     endHeap
}

func newIndex() *index { return &index{blocks: make(map[backend.Key]*entry)} }

func (x *index) get(k backend.Key) *entry { return x.blocks[k] }

func (x *index) put(e *entry) {
	x.remove(e.Key)
	x.blocks[e.Key] = e
	if !e.Log {
		x.prefixes[e.Target].set(e.Prefix, e)
	}
	e.pos = -1
	if !e.Permanent() {
		e.due = e.ExpiresAt
		heap.Push(&x.ends, e)
	}
}

func (x *index) remove(k backend.Key) *entry {
	e := x.blocks[k]
	if e == nil {
		return nil
	}
	delete(x.blocks, k)
	if !k.Log {
		x.prefixes[k.Target].remove(k.Prefix)
	}
	if e.pos >= 0 {
		heap.Remove(&x.ends, e.pos)
	}
	return e
}

// due lists the entries whose end has come at now; they stay in the index.
func (x *index) due(now time.Time) []*entry {
	var out []*entry
	var walk func(i int)
	walk = func(i int) {
		if i >= len(x.ends) || now.Before(x.ends[i].due) {
			return
		}
		out = append(out, x.ends[i])
		walk(2*i + 1)
		walk(2*i + 2)
	}
	walk(0)
	slices.SortFunc(out, func(a, b *entry) int { return a.due.Compare(b.due) })
	return out
}

// postpone moves the moment an entry leaves the kernel, after a failed try.
func (x *index) postpone(e *entry, due time.Time) {
	e.due = due
	heap.Fix(&x.ends, e.pos)
}

// nextDue is when the next entry is due.
func (x *index) nextDue() (time.Time, bool) {
	if len(x.ends) == 0 {
		return time.Time{}, false
	}
	return x.ends[0].due, true
}

// covering returns the longest unexpired block of the target that contains
// all of p.
func (x *index) covering(t backend.Target, p netip.Prefix, now time.Time) *entry {
	var found *entry
	x.prefixes[t].containing(p, func(_ netip.Prefix, e *entry) bool {
		if !e.Expired(now) {
			found = e
		}
		return found == nil
	})
	return found
}

// list returns all entries, sorted by creation.
func (x *index) list() []*entry {
	out := make([]*entry, 0, len(x.blocks))
	for _, e := range x.blocks {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *entry) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), a.Prefix.Compare(b.Prefix), cmp.Compare(a.Target, b.Target))
	})
	return out
}

// endHeap orders the timed blocks by when they are due, for container/heap.
type endHeap []*entry

func (h endHeap) Len() int           { return len(h) }
func (h endHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h endHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

// Push is container/heap's: use heap.Push.
func (h *endHeap) Push(v any) {
	e, _ := v.(*entry)
	e.pos = len(*h)
	*h = append(*h, e)
}

// Pop is container/heap's: use heap.Remove.
func (h *endHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.pos = -1
	return e
}
