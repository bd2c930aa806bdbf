package backend

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

var _ Watcher = (*Memory)(nil)

// Tampering is what somebody else does to a Memory in one transaction, so that
// a test can see what a Manager makes of it.
type Tampering struct {
	// Remove takes the blocks of these keys out, whatever their action.
	Remove []Key
	// Add puts blocks in that nobody of ours asked for.
	Add []Block
	// Damage, where it is not empty, breaks the structure and says how: no
	// packet is stopped any more, List says ErrDamaged.
	Damage string
	// Gone takes everything away, blocks included: List and Apply say ErrGone.
	Gone bool
	// Lost: the monitor misses all this and says Look instead.
	Lost bool
	// Quiet raises no event at all: only a List can find out.
	Quiet bool
	// By is who did it.
	By string
}

// memoryWatch is a running Watch: what was raised and not yet delivered.
type memoryWatch struct {
	queue []Event
	wake  chan struct{} // holds one token while queue is not empty
}

// Tamper does what t says and raises the events that a kernel's monitor would.
// It does not wait until they are delivered.
func (m *Memory) Tamper(t Tampering) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.in.expire(m.now())
	events := m.take(t)
	switch {
	case t.Gone:
		m.in.clear()
		m.gone = true
		events = []Event{{Kind: Damaged, Reason: "table deleted"}}
	case t.Damage != "":
		m.broken = t.Damage
		events = []Event{{Kind: Damaged, Reason: t.Damage}}
	case len(t.Add) > 0:
		events = []Event{{Kind: Look, Reason: "block added"}}
	}
	if t.Lost {
		events = []Event{{Kind: Look, Reason: "messages lost"}}
	}
	if m.watch == nil || t.Quiet || len(events) == 0 {
		return
	}
	for _, e := range events {
		e.By = t.By
		m.watch.queue = append(m.watch.queue, e)
	}
	select {
	case m.watch.wake <- struct{}{}:
	default:
	}
}

// take makes t's changes to the blocks and returns the events of the removals:
// one for all that went alone, one for each group that a kernel would keep in
// one set and that lost several.
func (m *Memory) take(t Tampering) []Event {
	type set struct {
		action Action
		target Target
		v6     bool
		bits   int
	}
	gone := make(map[set][]Key)
	for slot := range m.in.blocks {
		if slices.Contains(t.Remove, slot.Key) {
			m.in.remove(slot)
			s := set{slot.Action, slot.Target, slot.Prefix.Addr().Is6(), slot.Prefix.Bits()}
			gone[s] = append(gone[s], slot.Key)
		}
	}
	for _, b := range t.Add {
		m.in.put(b)
	}
	var alone []Key
	var events []Event
	for _, keys := range gone {
		if len(keys) == 1 {
			alone = append(alone, keys[0])
			continue
		}
		slices.SortFunc(keys, compareKeys)
		events = append(events, Event{Kind: Emptied, Keys: keys, Reason: "blocks removed together"})
	}
	slices.SortFunc(events, func(a, b Event) int { return compareKeys(a.Keys[0], b.Keys[0]) })
	if len(alone) > 0 {
		slices.SortFunc(alone, compareKeys)
		events = append([]Event{{Kind: Removed, Keys: alone, Reason: "block removed"}}, events...)
	}
	return events
}

func compareKeys(a, b Key) int {
	return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Target, b.Target))
}

// Lookup says what is in force for the keys. Memory counts no packets.
func (m *Memory) Lookup(ctx context.Context, keys []Key) ([]Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx, "lookup"); err != nil {
		return nil, err
	}
	now := m.now()
	out := make([]Status, len(keys))
	for i, k := range keys {
		out[i].Key = k
		for _, a := range Actions() {
			b, ok := m.in.blocks[Slot{Key: k, Action: a}]
			if !ok || b.Expired(now) {
				continue
			}
			out[i].Found, out[i].Action, out[i].Permanent = true, a, b.Permanent()
			if !b.Permanent() {
				out[i].Remaining = b.Remaining(now)
			}
			break
		}
	}
	return out, nil
}

// Watch delivers what Tamper raises.
func (m *Memory) Watch(ctx context.Context, ready chan<- struct{}, f func(Event)) error {
	w, err := m.startWatch()
	if err != nil {
		return err
	}
	if ready != nil {
		close(ready)
	}
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.watch = nil
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		m.mu.Lock()
		queue := w.queue
		w.queue = nil
		m.mu.Unlock()
		for _, e := range queue {
			if ctx.Err() != nil {
				return nil
			}
			f(e)
		}
	}
}

func (m *Memory) startWatch() (*memoryWatch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, m.fail("watch", ErrClosed)
	case !m.ready:
		return nil, m.fail("watch", ErrGone)
	case m.watch != nil:
		return nil, m.fail("watch", fmt.Errorf("%w: there is a watch already", ErrInvalid))
	}
	m.watch = &memoryWatch{wake: make(chan struct{}, 1)}
	return m.watch, nil
}
