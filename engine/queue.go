package engine

import (
	"sync"
	"time"
)

// queue is a bounded queue with one consumer. Nobody waits to put: what does
// not fit is refused.
type queue[T any] struct {
	// linger is how long the consumer, after it had something to do, waits for
	// more before it sleeps until it is woken: to wake it costs more than most
	// items.
	linger time.Duration
	waker  Waker
	// revision says what answers are good for; nil where there are none. It does
	// not wait, and is set before the first put.
	revision func() revision

	// mu guards everything below; it is never held while an item is consumed.
	mu      sync.Mutex
	items   []T // a ring
	head, n int
	// pending holds the merge keys of the items that wait.
	pending map[jobKey]struct{}
	repeats repeats[T]
	closed  bool
	busy    bool // the consumer holds an item
	asleep  bool // the consumer has to be woken
}

// linger is how long alerts and log events may wait for others. The first after a
// rest waits for nothing.
const linger = 8 * time.Millisecond

// Waker lets the goroutine that runs the actions sleep while there are none.
type Waker interface {
	// Wake ends a Wait, the next one if none is under way. Any goroutine may
	// call it, and it does not wait.
	Wake()
	// Wait returns when Wake was called since it returned last. One goroutine
	// calls it.
	Wait()
}

// channel is the Waker of who has no better one.
type channel chan struct{}

// Wake implements Waker.
func (c channel) Wake() {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Wait implements Waker.
func (c channel) Wait() { <-c }

// verdict is what became of a put.
type verdict uint8

const (
	queued verdict = iota
	merged
	refused
)

// newQueue makes a queue; w may be nil.
func newQueue[T any](size int, w Waker, linger time.Duration) *queue[T] {
	if w == nil {
		w = make(channel, 1)
	}
	return &queue[T]{items: make([]T, size), pending: make(map[jobKey]struct{}), waker: w, linger: linger}
}

// put appends an item. Where key is not zero and an item with the same key
// waits already, the two are one.
func (q *queue[T]) put(item T, key jobKey) verdict {
	q.mu.Lock()
	v := q.enter(item, key)
	wake := q.rouse() // also where enter has let go others
	q.mu.Unlock()
	if wake {
		q.waker.Wake()
	}
	return v
}

// enter is put, but for the waking. It runs with mu held.
func (q *queue[T]) enter(item T, key jobKey) verdict {
	var now revision
	if key != (jobKey{}) {
		now = q.revised()
		if _, ok := q.pending[key]; ok {
			return merged
		}
	}
	if q.closed || q.n+len(q.repeats.held) == len(q.items) {
		return refused
	}
	if key != (jobKey{}) {
		q.pending[key] = struct{}{}
		if q.repeats.has(key, now) {
			q.repeats.held = append(q.repeats.held, item)
			return queued
		}
	}
	q.add(item)
	return queued
}

// add puts an item into the ring, which has room. It runs with mu held.
func (q *queue[T]) add(item T) {
	q.items[(q.head+q.n)%len(q.items)] = item
	q.n++
}

// rouse reports whether the consumer has to be woken, because it sleeps and
// there is something to do. It runs with mu held.
func (q *queue[T]) rouse() bool {
	if !q.asleep || q.n == 0 && !q.closed {
		return false
	}
	q.asleep = false
	return true
}

// keyed is implemented by items that can be merged.
type keyed interface{ key() jobKey }

// take removes the first item; more is false when the queue is closed and
// empty. Where there is none, and the consumer is going to sleep, it will be
// woken.
func (q *queue[T]) take(sleep bool) (item T, ok, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = false
	if q.n == 0 {
		q.asleep = sleep && !q.closed
		return item, false, !q.closed
	}
	var zero T
	item, q.items[q.head] = q.items[q.head], zero
	q.head = (q.head + 1) % len(q.items)
	q.n--
	q.busy = true
	if k, ok := any(item).(keyed); ok {
		delete(q.pending, k.key())
	}
	return item, true, true
}

// drain consumes items until the queue is closed and empty.
func (q *queue[T]) drain(consume func(T)) {
	rested := true
	for {
		item, ok, more := q.take(rested)
		switch {
		case ok:
			consume(item)
			rested = q.linger == 0
		case !more:
			return
		case !rested:
			time.Sleep(q.linger)
			rested = true
		default:
			q.waker.Wait()
		}
	}
}

// close lets drain end once the queue is empty; later puts are refused. What
// was held back is held no longer.
func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.revised()
	q.release()
	q.repeats.end()
	if q.rouse() {
		q.waker.Wake()
	}
}

// abandon throws away what waits and returns how much that was, the item in
// the consumer's hands included.
func (q *queue[T]) abandon() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.n
	if q.busy {
		n++
	}
	clear(q.items)
	clear(q.pending)
	q.n = 0
	return n
}

// voided is how many items were held back and then void.
func (q *queue[T]) voided() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.repeats.voided
}

// waiting is how many items wait.
func (q *queue[T]) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n + len(q.repeats.held)
}
