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
	Target    string        // "source" or "destination"
	Action    string        // "DROP", "REJECT", "RATE_LIMIT", "LOG" ...
	Limit     backend.Limit // RATE_LIMIT only; its String is the page's text
	LogPrefix string        // LOG only
	RuleName  string
	Reason    string
	CreatedAt time.Time
	ExpiresAt time.Time // zero = permanent
	Origin    Origin
}

// entry is a block in the index. Its fields are guarded by Manager.mu. There
// are as many as there are blocks: mind its size.
type entry struct {
	backend.Block
	due    time.Duration // after index.base: when it leaves the kernel, its end or the next try
	pos    int32         // in the heap; -1 for a permanent block
	by     maker
	forced bool // put on a protected address on purpose
}

// maker is an Origin in one byte.
type maker uint8

const (
	byRule maker = iota
	byHand
	adopted
	inKernel
)

func (b maker) origin() Origin {
	return [...]Origin{OriginRule, OriginManual, OriginAdopted, OriginKernel}[b]
}

func (e *entry) info() BlockInfo {
	ip := ""
	if e.Prefix.IsSingleIP() {
		ip = e.Prefix.Addr().String()
	} else {
		ip = e.Prefix.String()
	}
	return BlockInfo{
		IP: ip, Prefix: e.Prefix, Target: e.Target.String(), Action: e.Action.String(), Limit: e.Limit, LogPrefix: e.LogPrefix,
		RuleName: e.Rule, Reason: e.Reason, CreatedAt: e.CreatedAt, ExpiresAt: e.ExpiresAt, Origin: e.by.origin(),
	}
}

// index holds every block the kernel enforces, by identity, by prefix and by
// end. It is not safe for concurrent use.
type index struct {
	base   time.Time // what due counts from
	blocks map[backend.Key]*entry
	// lengths is how many blocks (kernel log rules left out) of a target and a
	// family have a prefix length.
	lengths [2][2][129]int32
	logs    int // how many of blocks are kernel log rules
	ends    endHeap
}

func newIndex(base time.Time) *index {
	return &index{base: base, blocks: make(map[backend.Key]*entry)}
}

func (x *index) get(k backend.Key) *entry { return x.blocks[k] }

// put enters a block in place of the one of its key.
func (x *index) put(e *entry) {
	if old := x.blocks[e.Key]; old != nil {
		x.unlist(old)
	}
	x.add(e)
}

// add enters a block whose key is not there.
func (x *index) add(e *entry) {
	x.blocks[e.Key] = e
	x.count(e.Key, 1)
	e.pos = -1
	if !e.Permanent() {
		e.due = e.ExpiresAt.Sub(x.base)
		heap.Push(&x.ends, e)
	}
}

func (x *index) remove(k backend.Key) *entry {
	e := x.blocks[k]
	if e == nil {
		return nil
	}
	delete(x.blocks, k)
	x.unlist(e)
	return e
}

// unlist takes an entry out of everything but blocks.
func (x *index) unlist(e *entry) {
	x.count(e.Key, -1)
	if e.pos >= 0 {
		heap.Remove(&x.ends, int(e.pos))
	}
}

func (x *index) count(k backend.Key, n int32) {
	if k.Log {
		x.logs += int(n)
	} else {
		x.lengths[k.Target][familyOf(k.Prefix.Addr())][k.Prefix.Bits()] += n
	}
}

// due lists up to limit entries whose end has come at now, the first to end
// first; they stay in the index.
func (x *index) due(now time.Time, limit int) []*entry {
	if len(x.ends) == 0 || now.Sub(x.base) < x.ends[0].due {
		return nil
	}
	var out []*entry
	at := now.Sub(x.base)
	var walk func(i int)
	walk = func(i int) {
		if i >= len(x.ends) || at < x.ends[i].due || len(out) >= limit {
			return
		}
		out = append(out, x.ends[i])
		walk(2*i + 1)
		walk(2*i + 2)
	}
	walk(0)
	slices.SortFunc(out, func(a, b *entry) int { return cmp.Compare(a.due, b.due) })
	return out
}

// postpone moves the moment an entry leaves the kernel, after a failed try.
func (x *index) postpone(e *entry, due time.Time) {
	e.due = due.Sub(x.base)
	heap.Fix(&x.ends, int(e.pos))
}

// nextDue is when the next entry is due.
func (x *index) nextDue() (time.Time, bool) {
	if len(x.ends) == 0 {
		return time.Time{}, false
	}
	return x.base.Add(x.ends[0].due), true
}

// containing calls f for each entry of the target (kernel log rules left out)
// that contains all of p, from the longest to the shortest, until f returns
// false. It costs one map access for each prefix length in use.
func (x *index) containing(t backend.Target, p netip.Prefix, f func(*entry) bool) {
	counts := &x.lengths[t][familyOf(p.Addr())]
	for bits := p.Bits(); bits >= 0; bits-- {
		if counts[bits] == 0 {
			continue
		}
		outer := netip.PrefixFrom(p.Addr(), bits).Masked()
		if e := x.blocks[backend.Key{Prefix: outer, Target: t}]; e != nil && !f(e) {
			return
		}
	}
}

// stopping returns the longest unexpired block of the target that contains all
// of p and stops every packet.
func (x *index) stopping(t backend.Target, p netip.Prefix, now time.Time) *entry {
	var found *entry
	x.containing(t, p, func(e *entry) bool {
		if e.Action.Stops() && !e.Expired(now) {
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
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), a.Prefix.Compare(b.Prefix), cmp.Compare(a.Target, b.Target),
			cmp.Compare(a.Action, b.Action))
	})
	return out
}

// endHeap orders the timed blocks by when they are due, for container/heap.
type endHeap []*entry

func (h endHeap) Len() int           { return len(h) }
func (h endHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h endHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = int32(i), int32(j)
}

// Push is container/heap's: use heap.Push.
func (h *endHeap) Push(v any) {
	e, _ := v.(*entry)
	e.pos = int32(len(*h))
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
