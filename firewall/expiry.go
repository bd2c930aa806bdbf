package firewall

import (
	"context"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// EventKind says what happened without a caller waiting for it.
type EventKind uint8

// The kinds of events.
const (
	Expired   EventKind = iota // a block's end came
	Unblocked                  // a block was lifted before its end
	Resynced                   // somebody else damaged the kernel's state; it was put back
)

// Who lifted a block (Event.By).
const (
	ByManual    = "manual"
	ByWhitelist = "whitelist"
	ByFlush     = "flush"
	ByForeign   = "foreign" // somebody else, in the kernel
)

// Event tells of a block that is over, or of damage that was put right.
type Event struct {
	Kind  EventKind
	Block BlockInfo // Expired and Unblocked
	By    string    // Unblocked only
	At    time.Time
	// Reason and Restored (how many blocks were put back) of a Resynced.
	Reason   string
	Restored int
}

// emit hands events to the owner, without a lock held.
func (m *Manager) emit(events []Event) {
	if m.cfg.OnEvent == nil {
		return
	}
	for _, e := range events {
		m.cfg.OnEvent(e)
	}
}

// run ends blocks when they are due, looks after the kernel and the clock, and
// joins the goroutines that follow host and kernel, until ctx ends.
func (m *Manager) run(ctx context.Context) {
	defer close(m.done)
	defer m.followers.Wait()
	if p := m.cfg.Protect; !p.NoOwn || !p.NoGateways || !p.NoResolvers {
		m.followers.Go(func() { m.followHost(ctx) })
	}
	if m.keeper != nil {
		m.followers.Go(func() { m.keeper.run(ctx) })
	}
	clean := time.NewTicker(m.cfg.CleanupInterval)
	defer clean.Stop()
	for {
		next := time.NewTimer(m.untilNext())
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-m.wake:
		case <-m.look:
			m.logError("checking the kernel", m.Check(ctx))
			m.pause(ctx)
		case <-next.C:
			m.sweep(ctx)
		case <-clean.C:
			m.followClock(ctx)
			m.sweep(ctx)
		}
		next.Stop()
	}
}

// lookPause is the least time between two looks at the whole kernel, so that
// somebody who changes our table without end cannot keep us busy.
const lookPause = 200 * time.Millisecond

func (m *Manager) pause(ctx context.Context) {
	t := time.NewTimer(lookPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// untilNext is the time to the next end, at most a cleanup interval.
func (m *Manager) untilNext() time.Duration {
	now := m.now()
	m.mu.RLock()
	defer m.mu.RUnlock()
	due, ok := m.idx.nextDue()
	if !ok {
		return m.cfg.CleanupInterval
	}
	return min(max(due.Sub(now), 0), m.cfg.CleanupInterval)
}

// rewake lets the background goroutine look at the next end again.
func (m *Manager) rewake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *Manager) sweep(ctx context.Context) {
	for more := true; more; {
		m.kernel.Lock()
		var events []Event
		events, more = m.expire(ctx, m.now())
		m.kernel.Unlock()
		m.emit(events)
	}
}

// maxExpire is how many ended blocks leave the kernel in one step: a block that
// is asked for meanwhile waits for no more.
const maxExpire = 2000

// expireAll ends all blocks that are due. It runs with m.kernel held.
func (m *Manager) expireAll(ctx context.Context, now time.Time) []Event {
	events, more := m.expire(ctx, now)
	for more {
		var e []Event
		e, more = m.expire(ctx, now)
		events = append(events, e...)
	}
	return events
}

// expire takes blocks whose end has come at now out of the kernel (nft has
// dropped them itself, iptables holds dead rules) and out of the index, and
// reports whether there are more. A failure is counted and tried again after a
// cleanup interval; queries treat the block as gone all the same. It runs with
// m.kernel held.
func (m *Manager) expire(ctx context.Context, now time.Time) (events []Event, more bool) {
	m.mu.RLock()
	due := m.idx.due(now, maxExpire)
	var change backend.Change
	if len(due) > 0 {
		change = m.closing(due)
	}
	m.mu.RUnlock()
	if len(due) == 0 || m.closed || ctx.Err() != nil {
		return nil, false
	}
	err := m.backend.Apply(ctx, change)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.stats.errors++
		m.log.Error("removing ended blocks", "error", err)
		for _, e := range due {
			m.idx.postpone(e, now.Add(m.cfg.CleanupInterval))
		}
		return nil, len(due) == maxExpire
	}
	events = make([]Event, len(due))
	for i, e := range due {
		m.idx.remove(e.Key)
		m.stats.expired++
		events[i] = Event{Kind: Expired, Block: e.info(), At: e.ExpiresAt}
	}
	return events, len(due) == maxExpire
}
