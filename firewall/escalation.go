package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// whom is the subject of an escalation: a prefix on one side of a packet.
type whom struct {
	Prefix netip.Prefix
	Target backend.Target
}

// record is what is remembered of one subject: when it was blocked, in Unix
// seconds, the latest times only, in their order. Records form a ring in the
// order of their last block.
type record struct {
	whom
	times      []int64
	prev, next *record
}

func (r *record) last() int64 { return r.times[len(r.times)-1] }

// since is how many of the blocks were made after t.
func (r *record) since(t int64) int {
	n := 0
	for _, at := range r.times {
		if at > t {
			n++
		}
	}
	return n
}

// escalations remembers who was blocked how often: a bounded table. It is safe
// for concurrent use; nothing in it waits for a disk.
type escalations struct {
	mu      sync.Mutex
	records map[whom]*record
	ring    record // the sentinel: next was blocked last, prev is the oldest
	limit   int
	memory  time.Duration // the longest that anybody asked for
	evicted uint64
	changed bool // since the last copy
}

func newEscalations(limit int, memory time.Duration) *escalations {
	t := &escalations{records: make(map[whom]*record), limit: limit, memory: memory}
	t.ring.next, t.ring.prev = &t.ring, &t.ring
	return t
}

// count is how often w was blocked within the memory before now, at most
// MaxEscalation.
func (t *escalations) count(w whom, now time.Time, memory time.Duration) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.memory = max(t.memory, memory)
	r := t.records[w]
	if r == nil {
		return 0
	}
	return r.since(now.Add(-memory).Unix())
}

// note remembers a block made at now.
func (t *escalations) note(w whom, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.records[w]
	if r == nil {
		if len(t.records) >= t.limit {
			t.forget(t.ring.prev)
			t.evicted++
		}
		r = &record{whom: w}
		t.records[w] = r
	} else {
		r.unlink()
	}
	if len(r.times) == MaxEscalation {
		r.times = append(r.times[:0], r.times[1:]...)
	}
	r.times = append(r.times, now.Unix())
	r.link(&t.ring)
	t.changed = true
}

func (t *escalations) forget(r *record) {
	r.unlink()
	delete(t.records, r.whom)
}

func (r *record) link(after *record) {
	r.prev, r.next = after, after.next
	r.prev.next, r.next.prev = r, r
}

func (r *record) unlink() { r.prev.next, r.next.prev = r.next, r.prev }

// remembered is what is written of one subject.
type remembered struct {
	whom
	Times []int64
}

// copy forgets what is older than the memory and returns the rest, the oldest
// first. It reports false where nothing has changed since the last copy. The
// caller owns the result.
func (t *escalations) copy(now time.Time) ([]remembered, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.changed {
		return nil, false
	}
	t.changed = false
	horizon := now.Add(-t.memory).Unix()
	for r := t.ring.prev; r != &t.ring; {
		older := r
		r = r.prev
		if older.last() <= horizon {
			t.forget(older)
		}
	}
	out := make([]remembered, 0, len(t.records))
	for r := t.ring.prev; r != &t.ring; r = r.prev {
		out = append(out, remembered{r.whom, slices.Clone(r.times)})
	}
	return out, true
}

// touch has the next copy succeed: the last one was not written.
func (t *escalations) touch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed = true
}

// load takes over what an earlier run remembered, as far as there is room, as
// older than what the table has. Times that lie ahead of now, from a clock that
// was wrong, become now.
func (t *escalations) load(list []remembered, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortStableFunc(list, func(a, b remembered) int {
		return int(min(max(a.Times[len(a.Times)-1]-b.Times[len(b.Times)-1], -1), 1))
	})
	for _, one := range slices.Backward(list) {
		for i := range one.Times {
			one.Times[i] = min(one.Times[i], now.Unix())
		}
		if r := t.records[one.whom]; r != nil {
			times := slices.Sorted(slices.Values(slices.Concat(one.Times, r.times)))
			r.times = times[max(len(times)-MaxEscalation, 0):]
			continue
		}
		if len(t.records) < t.limit {
			r := &record{whom: one.whom, times: one.Times}
			t.records[r.whom] = r
			r.link(t.ring.prev)
		}
	}
}

func (t *escalations) stats() (n int, evicted uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.records), t.evicted
}

// EscalationStats say what the escalation remembers.
type EscalationStats struct {
	Remembered int    // addresses
	Evicted    uint64 // that had to make room for others
	Failed     uint64 // writes of the file
}

// Escalations says what the escalation remembers.
func (m *Manager) Escalations() EscalationStats {
	var s EscalationStats
	s.Remembered, s.Evicted = m.escalated.stats()
	if m.keeper != nil {
		s.Failed = m.keeper.failed.Load()
	}
	return s
}

// validEscalation reports what is wrong with the escalation of a request.
func validEscalation(req *Request) error {
	switch {
	case len(req.Escalation) > MaxEscalation:
		return fmt.Errorf("%w: an escalation of %d steps (at most %d)", backend.ErrInvalid, len(req.Escalation), MaxEscalation)
	case req.EscalationMemory < 0:
		return fmt.Errorf("%w: escalation memory %v is negative", backend.ErrInvalid, req.EscalationMemory)
	}
	for _, d := range req.Escalation {
		if d < 0 {
			return fmt.Errorf("%w: duration %v of an escalation is negative", backend.ErrInvalid, d)
		}
	}
	return nil
}

// escalates reports whether the request goes by its Escalation.
func (r *Request) escalates() bool { return len(r.Escalation) > 0 && r.Action != backend.Log }

// duration is how long the request's block lasts: a new one goes a step
// further than the one before, one that is there already keeps its step.
func (m *Manager) duration(req *Request, k backend.Key, anew bool, now time.Time) time.Duration {
	if !req.escalates() {
		return req.Duration
	}
	memory := req.EscalationMemory
	setDefault(&memory, m.cfg.EscalationMemory)
	step := m.escalated.count(whom{k.Prefix, k.Target}, now, memory)
	if !anew {
		step = max(step-1, 0)
	}
	return req.Escalation[min(step, len(req.Escalation)-1)]
}
