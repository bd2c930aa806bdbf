package engine

import "sync"

// queue is a bounded queue with one consumer. Nobody waits to put: what does
// not fit is refused.
type queue[T any] struct {
	// mu guards everything below; it is never held while an item is consumed.
	mu      sync.Mutex
	items   []T // a ring
	head, n int
	// pending holds the merge keys of the items that wait.
	pending map[jobKey]struct{}
	closed  bool
	busy    bool // the consumer holds an item
	waker   Waker
}

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

func newQueue[T any](size int, w Waker) *queue[T] {
	if w == nil {
		w = make(channel, 1)
	}
	return &queue[T]{items: make([]T, size), pending: make(map[jobKey]struct{}), waker: w}
}

// put appends an item. Where key is not zero and an item with the same key
// waits already, the two are one.
func (q *queue[T]) put(item T, key jobKey) verdict {
	q.mu.Lock()
	defer q.mu.Unlock()
	if key != (jobKey{}) {
		if _, ok := q.pending[key]; ok {
			return merged
		}
	}
	if q.closed || q.n == len(q.items) {
		return refused
	}
	q.items[(q.head+q.n)%len(q.items)] = item
	q.n++
	if key != (jobKey{}) {
		q.pending[key] = struct{}{}
	}
	q.waker.Wake()
	return queued
}

// keyed is implemented by items that can be merged.
type keyed interface{ key() jobKey }

// take removes the first item; more is false when the queue is closed and
// empty.
func (q *queue[T]) take() (item T, ok, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = false
	if q.n == 0 {
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
	for {
		item, ok, more := q.take()
		switch {
		case ok:
			consume(item)
		case !more:
			return
		default:
			q.waker.Wait()
		}
	}
}

// close lets drain end once the queue is empty; later puts are refused.
func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.waker.Wake()
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

// waiting is how many items wait.
func (q *queue[T]) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}
