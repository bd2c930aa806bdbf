package engine

import "time"

// An attacker who goes on while he is blocked crosses thresholds again and
// again, some hundred times a second. What his rules ask for then hardly
// changes anything (the block ends a few milliseconds later), but costs a
// thread's waking, a change of the kernel and an event each time. So what was
// asked for and answered a moment ago waits, and what is asked for meanwhile is
// the same request: at most one a repeatPeriod for each address and action. The
// block is in force all the time, and ends no sooner than was asked for.
const (
	repeatPeriod = time.Second
	// repeatLife is how long a block must still last for such a request to wait:
	// longer than the answer is remembered and the request waits.
	repeatLife = 5 * repeatPeriod
	// maxRepeats bounds the answers of a period that are remembered.
	maxRepeats = 4096
)

// repeats are the answers of this period and of the one before, and what has to
// wait for its end. The queue's mutex guards it.
type repeats[T any] struct {
	now, before map[jobKey]struct{}
	held        []T
	tick        *time.Timer // ends the period; nil before the first
	running     bool        // there is something to end
	ended       bool
}

// has reports whether key was answered a moment ago.
func (r *repeats[T]) has(key jobKey) bool {
	if len(r.now)+len(r.before) == 0 {
		return false
	}
	_, now := r.now[key]
	_, before := r.before[key]
	return now || before
}

// end has no period begin any more.
func (r *repeats[T]) end() {
	r.ended = true
	if r.tick != nil {
		r.tick.Stop()
	}
	r.now, r.before = nil, nil
}

// answered notes that what key asks for is in force, and will be for a while.
func (q *queue[T]) answered(key jobKey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := &q.repeats
	if r.ended || len(r.now) == maxRepeats {
		return
	}
	if r.now == nil {
		r.now, r.before = make(map[jobKey]struct{}), make(map[jobKey]struct{})
	}
	r.now[key] = struct{}{}
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
