package backend

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Memory is a Backend without a kernel: the dry run, and the backend of tests
// of policy. It behaves as a kernel would: a block past its end is neither
// listed nor enforced, a Change is all or nothing, comments come back as a
// kernel's comment field would return them, and what every kernel backend
// refuses (see Change.Validate) it refuses too, so that a dry run tells what a
// real one would. What only one of them refuses (see CheckLimit) it takes.
//
// Unlike a Backend in general it is safe for concurrent use.
type Memory struct {
	now func() time.Time

	mu       sync.Mutex // guards what follows
	capacity int
	ready    bool
	closed   bool
	in       holdings
	allow    []netip.Prefix
	broken   string // how somebody damaged the structure; see Tamper
	gone     bool   // somebody took everything away
	watch    *memoryWatch
}

var _ Backend = (*Memory)(nil)

// memoryComment is the longest comment Memory keeps, in bytes: what backend/nft
// has room for.
const memoryComment = 127

// NewMemory returns an empty Memory that takes the time from now; nil means
// time.Now. A replay passes its packet clock.
func NewMemory(now func() time.Time) *Memory {
	if now == nil {
		now = time.Now
	}
	return &Memory{now: now, in: newHoldings()}
}

// SetCapacity bounds the number of blocks in force; above it Apply fails with
// ErrFull, as a kernel set of that size would. 0 means no bound.
func (m *Memory) SetCapacity(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = n
}

// Name returns "memory".
func (*Memory) Name() string { return "memory" }

// Init makes the backend ready and puts right what Tamper broke. What was
// applied before stays.
func (m *Memory) Init(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx, "init"); err != nil {
		return err
	}
	m.ready, m.gone, m.broken = true, false, ""
	return nil
}

// Apply makes the change, all of it or nothing.
func (m *Memory) Apply(ctx context.Context, c Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx, "apply"); err != nil {
		return err
	}
	if !m.ready || m.gone && !c.Rebuild {
		return m.fail("apply", ErrGone)
	}
	if err := c.Validate(); err != nil {
		return m.fail("apply", err)
	}
	now := m.now()
	m.in.expire(now)
	if err := m.room(c, now); err != nil {
		return m.fail("apply", err)
	}
	if c.Rebuild {
		m.in.clear()
		m.gone, m.broken = false, ""
	}
	for i := range c.Remove {
		m.in.remove(c.Remove[i].Slot())
	}
	for i := range c.Add {
		if c.Add[i].Expired(now) {
			m.in.remove(c.Add[i].Slot())
			continue
		}
		m.in.put(kept(c.Add[i]))
	}
	if c.Allow != nil {
		m.allow = slices.Clone(*c.Allow)
	}
	return nil
}

// room checks that the change fits under the capacity.
func (m *Memory) room(c Change, now time.Time) error {
	if m.capacity == 0 {
		return nil
	}
	stay := 0
	if !c.Rebuild {
		leave := make(map[Slot]struct{}, len(c.Remove)+len(c.Add))
		for _, list := range [][]Block{c.Remove, c.Add} {
			for i := range list {
				if slot := list[i].Slot(); m.in.blocks[slot] != nil {
					leave[slot] = struct{}{}
				}
			}
		}
		stay = len(m.in.blocks) - len(leave)
	}
	for i := range c.Add {
		if !c.Add[i].Expired(now) {
			stay++
		}
	}
	if stay > m.capacity {
		return fmt.Errorf("%w: %d blocks, room for %d", ErrFull, stay, m.capacity)
	}
	return nil
}

// kept is the block as a kernel would give it back: rule and reason as Comment
// leaves them, the creation in milliseconds.
func kept(b Block) Block {
	text := Comment{Rule: b.Rule, Reason: b.Reason, Created: b.CreatedAt}.Encode(memoryComment)
	if c, ok := DecodeComment(text); ok {
		b.Rule, b.Reason, b.CreatedAt = c.Rule, c.Reason, c.Created
	}
	return b
}

// List returns the blocks in force, and beside them what Tamper did to the
// structure.
func (m *Memory) List(ctx context.Context) ([]Block, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx, "list"); err != nil {
		return nil, err
	}
	m.in.expire(m.now())
	out := make([]Block, 0, len(m.in.blocks))
	for _, b := range m.in.blocks {
		out = append(out, b.Block)
	}
	switch {
	case m.gone:
		return out, m.fail("list", ErrGone)
	case m.broken != "":
		return out, m.fail("list", fmt.Errorf("%w: %s", ErrDamaged, m.broken))
	}
	return out, nil
}

// Flush forgets all blocks; the allowed prefixes stay.
func (m *Memory) Flush(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx, "flush"); err != nil {
		return err
	}
	if m.gone {
		return m.fail("flush", ErrGone)
	}
	m.in.clear()
	return nil
}

// Close forgets everything. Every later call but Close and the queries returns
// ErrClosed.
func (m *Memory) Close(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.in.clear()
	m.allow = nil
	return nil
}

// Allowed returns the prefixes let through in front of every block, as the
// last Change with an Allow gave them.
func (m *Memory) Allowed() []netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.allow)
}

// Stops says whether a packet from src to dst would be stopped now, and by
// which block: the one with the longest prefix, source before destination. It
// is what a kernel with these blocks and allowed prefixes would do, so that a
// test of policy can trace packets. A rate limit and a log stop nothing here:
// they act on rates and copies, not on a packet. While the structure is damaged (see Tamper)
// nothing is stopped.
func (m *Memory) Stops(src, dst netip.Addr) (Block, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if m.broken != "" {
		return Block{}, false
	}
	for _, side := range []struct {
		target Target
		addr   netip.Addr
	}{{Source, src.Unmap()}, {Destination, dst.Unmap()}} {
		allowed := slices.ContainsFunc(m.allow, func(p netip.Prefix) bool { return p.Contains(side.addr) })
		if allowed {
			continue
		}
		var best Block
		found := false
		for _, b := range m.in.blocks {
			match := b.Action.Stops() && b.Target == side.target && b.Prefix.Contains(side.addr) && !b.Expired(now)
			if match && (!found || b.Prefix.Bits() > best.Prefix.Bits()) {
				best, found = b.Block, true
			}
		}
		if found {
			return best, true
		}
	}
	return Block{}, false
}

// Passes reports whether a packet from src to dst would pass now.
func (m *Memory) Passes(src, dst netip.Addr) bool {
	_, stopped := m.Stops(src, dst)
	return !stopped
}

func (m *Memory) usable(ctx context.Context, op string) error {
	if m.closed {
		return m.fail(op, ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return m.fail(op, err)
	}
	return nil
}

func (m *Memory) fail(op string, err error) error {
	return &OpError{Backend: m.Name(), Op: op, Err: err}
}
