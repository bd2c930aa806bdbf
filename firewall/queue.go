package firewall

import (
	"context"
	"net/netip"
	"sync"
)

// gate is a mutex whose Lock can be given up.
type gate struct{ held chan struct{} }

func newGate() gate { return gate{make(chan struct{}, 1)} }

// Lock waits for the gate.
func (g gate) Lock() { g.held <- struct{}{} }

// Unlock opens the gate for the next one.
func (g gate) Unlock() { <-g.held }

// LockContext waits for the gate or until ctx ends; an error is ctx's, and the
// gate is not held then.
func (g gate) LockContext(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case g.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call is one request on its way through the Manager, and what came of it.
type call struct {
	req     *Request
	outcome Outcome
	err     error
	block   *BlockInfo // for the block in force; nil where nobody asks

	asked netip.Prefix // canonical; fresh may be for a wider one
	fresh *entry       // what the kernel is to enforce; nil where the request is settled
	old   *entry       // what the index has under the key of fresh

	// The queue's: turn says whether to lead (true) or that err and outcome
	// are there (false); leads and taken are guarded by queue.mu.
	turn  chan bool
	leads bool
	taken bool
}

// queue joins requests that come while the kernel is busy: whoever finds
// nobody at work leads, and makes all that wait by then in one change; the
// others wait for what comes of theirs. When a leader is done, the first that
// waits leads next, so nobody works longer for others than one change takes.
type queue struct {
	mu      sync.Mutex // guards what follows, never held for longer than a few steps
	waiting []*call
	led     bool
	// batches were made, in which so many requests joined another one's.
	batches, joined uint64
}

// join enters a call and reports whether it leads.
func (q *queue) join(c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, c)
	if !q.led {
		q.led, c.leads = true, true
		return true
	}
	c.turn = make(chan bool, 1)
	return false
}

// take hands the leader up to n calls, his own the first.
func (q *queue) take(n int) []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.waiting))
	q.batches++
	q.joined += uint64(max(n-1, 0))
	batch := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	for _, c := range batch {
		c.taken = true
	}
	return batch
}

// leave takes a call out whose caller gave up, and reports whether it was not
// taken yet. One that leads hands on.
func (q *queue) leave(c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.taken {
		return false
	}
	for i, o := range q.waiting {
		if o == c {
			q.waiting = append(q.waiting[:i:i], q.waiting[i+1:]...)
			break
		}
	}
	if c.leads {
		q.next()
	}
	return true
}

// pass ends a leader's turn.
func (q *queue) pass() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next()
}

// next lets the first that waits lead. Needs q.mu.
func (q *queue) next() {
	if len(q.waiting) == 0 {
		q.led, q.waiting = false, nil
		return
	}
	first := q.waiting[0]
	first.leads = true
	first.turn <- true
}

// maxBatch is how many requests one change of the kernel makes: IsBlocked and
// who else waits for the kernel get their turn in between.
const maxBatch = 10_000

// submit has a call made, together with others that wait.
func (m *Manager) submit(ctx context.Context, c *call) {
	if !m.queue.join(c) {
		select {
		case lead := <-c.turn:
			if !lead {
				return
			}
		case <-ctx.Done():
			if m.queue.leave(c) {
				c.outcome, c.err = Failed, ctx.Err()
				m.count(&m.stats.errors)
				return
			}
			<-c.turn // it is being made: what comes of it is the answer
			return
		}
	}
	if err := m.kernel.LockContext(ctx); err != nil {
		m.queue.leave(c)
		c.outcome, c.err = Failed, err
		m.count(&m.stats.errors)
		return
	}
	batch := m.queue.take(maxBatch)
	if len(batch) > 1 {
		ctx = context.WithoutCancel(ctx) // the others did not give up
	}
	events := m.carry(ctx, batch)
	m.kernel.Unlock()
	m.queue.pass()
	m.emit(events)
	for _, o := range batch {
		if o != c {
			o.turn <- false
		}
	}
}
