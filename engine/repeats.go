package engine

import "time"

// An attacker who goes on while he is blocked crosses thresholds again and
// again, some hundred times a second. What his rules ask for then hardly
// changes anything (the block ends a few milliseconds later), but costs a
// thread's waking, a change of the kernel and an event each time. So what was
// asked for and answered a moment ago waits, and what is asked for meanwhile is
// the same request: at most one a repeatPeriod for each address and action. The
// block is in force all the time, and ends no sooner than was asked for. When
// something is lifted, or others may be blocked than before, that holds no more:
// nothing was answered then, and what waits is void: whoever was unblocked is
// not blocked again for what he did before. Who goes on is, at once.
const (
	repeatPeriod = time.Second
	// repeatLife is how long a block must still last for such a request to wait:
	// longer than the answer is remembered and the request waits.
	repeatLife = 5 * repeatPeriod
	// maxRepeats bounds the answers of a period that are remembered.
	maxRepeats = 4096
)

// revision is a state of the firewall: while it is the same, a block that was in
// force still is. A firewall that counts nothing (of is nil) lifts nothing.
type revision struct {
	of *reviser // another firewall's count is another revision
	n  uint64
}

// repeats are the answers of this period and of the one before, and what has to
// wait for its end. The queue's mutex guards it.
type repeats[T any] struct {
	now, before map[jobKey]revision // as it was when they were asked
	held        []T
	seen        revision    // the newest that was met
	voided      uint64      // requests that waited for nothing
	tick        *time.Timer // ends the period; nil before the first
	running     bool        // there is something to end
	ended       bool
}

// has reports whether key was answered a moment ago, and the answer is still
// good.
func (r *repeats[T]) has(key jobKey, good revision) bool {
	if len(r.now)+len(r.before) == 0 {
		return false
	}
	now, ok := r.now[key]
	if ok && now == good {
		return true
	}
	before, ok := r.before[key]
	return ok && before == good
}

// revised is the firewall's revision. Where it is not the one in which requests
// were held back, those are void. It runs with mu held.
func (q *queue[T]) revised() revision {
	if q.revision == nil {
		return revision{}
	}
	now := q.revision()
	if r := &q.repeats; now != r.seen {
		r.seen = now
		r.voided += uint64(len(r.held))
		for i := range r.held {
			if k, ok := any(r.held[i]).(keyed); ok {
				delete(q.pending, k.key())
			}
		}
		clear(r.held)
		r.held = r.held[:0]
	}
	return now
}

// end has no period begin any more.
func (r *repeats[T]) end() {
	r.ended = true
	if r.tick != nil {
		r.tick.Stop()
	}
	r.now, r.before = nil, nil
}

// answered notes that what key asks for is in force, and will be for a while,
// unless something is lifted. asked is the revision before it was asked for.
func (q *queue[T]) answered(key jobKey, asked revision) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := &q.repeats
	if r.ended {
		return
	}
	if _, again := r.now[key]; !again && len(r.now) == maxRepeats {
		return
	}
	if r.now == nil {
		r.now, r.before = make(map[jobKey]revision), make(map[jobKey]revision)
	}
	r.now[key] = asked
	q.begin()
}

// begin begins a period, if none runs. It runs with mu held.
func (q *queue[T]) begin() {
	r := &q.repeats
	switch {
	case r.running:
		return
	case r.tick == nil:
		r.tick = time.AfterFunc(repeatPeriod, q.turn)
	default:
		r.tick.Reset(repeatPeriod)
	}
	r.running = true
}

// turn ends a period: who waited goes on, and what was answered in the one
// before is forgotten.
func (q *queue[T]) turn() {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := &q.repeats
	r.running = false
	if r.ended {
		return
	}
	q.revised()
	q.release()
	r.now, r.before = r.before, r.now
	clear(r.now)
	if len(r.before) > 0 {
		q.begin()
	}
	if q.rouse() {
		q.waker.Wake() // with mu held: close waits, and the Waker is still there
	}
}

// release lets go what was held back; enter has kept room for it. It runs with
// mu held.
func (q *queue[T]) release() {
	for _, item := range q.repeats.held {
		q.add(item)
	}
	clear(q.repeats.held)
	q.repeats.held = q.repeats.held[:0]
}
