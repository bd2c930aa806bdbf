package firewall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// listen starts what tells of changes of the kernel's objects by others, and
// returns when nothing can be missed any more, or when it has failed. Nothing is
// done about them before m.kernel is free.
func (m *Manager) listen(ctx context.Context) {
	ready, ended := make(chan struct{}), make(chan struct{})
	m.followers.Go(func() {
		defer close(ended)
		m.logError("watching the kernel", m.backend.Watch(ctx, ready, func(e backend.Event) { m.foreign(ctx, e) }))
	})
	select {
	case <-ready:
	case <-ended:
	}
}

// followHost takes over changes of the protected addresses until ctx ends.
func (m *Manager) followHost(ctx context.Context) {
	err := hostaddr.Follow(ctx, m.cfg.Protect, nil, func(e []hostaddr.Entry) {
		m.logError("following this host's addresses", m.setProtected(ctx, e))
	})
	m.logError("following this host's addresses", err)
}

func (m *Manager) logError(what string, err error) {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed) {
		return
	}
	m.count(&m.stats.errors)
	m.log.Error(what, "error", err)
}

// foreign deals with what somebody else did to our objects.
func (m *Manager) foreign(ctx context.Context, e backend.Event) {
	if e.Kind == backend.Look {
		select {
		case m.look <- struct{}{}:
		default: // a look is asked for already
		}
		return
	}
	reason := e.Reason
	if e.By != "" {
		reason += " by " + e.By
	}
	m.kernel.Lock()
	var events []Event
	var err error
	switch {
	case m.closed:
	case e.Kind == backend.Damaged && m.active() <= askFirst:
		// The damage may have been put right already, by a look at the kernel
		// that was faster than the event.
		events, err = m.checkBecause(ctx, reason)
	case e.Kind == backend.Damaged || m.emptied(e):
		events, err = m.restore(ctx, reason)
	default:
		events, err = m.missed(ctx, e.Keys)
	}
	m.kernel.Unlock()
	m.emit(events)
	m.logError("putting the kernel's state back", err)
}

// askFirst is how many blocks a look at the kernel may list before damage is
// put right: so many take some 30 ms. With more, blocks come before counts.
const askFirst = 10_000

// active is how many blocks there are.
func (m *Manager) active() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.idx.blocks)
}

// group names what the kernel empties in one command: a set of nft, or a
// family's chain of iptables.
type group struct {
	kind   backend.Slot // without the address
	family int
	bits   int
	log    string
}

func (m *Manager) groupOf(b *backend.Block) group {
	g := group{family: familyOf(b.Prefix.Addr())}
	if m.backend.Name() == BackendIPTables {
		return g
	}
	g.bits = b.Prefix.Bits()
	g.kind.Target, g.kind.Log, g.kind.Action = b.Target, b.Log, b.Action
	g.log = b.LogPrefix
	return g
}

// emptied reports whether an Emptied event is damage: it took all of two or
// more blocks out of one set. Fewer are an administrator's unblocking.
func (m *Manager) emptied(e backend.Event) bool {
	if e.Kind != backend.Emptied {
		return false
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var gone []*entry
	for _, k := range e.Keys {
		if b := m.idx.get(k); b != nil {
			gone = append(gone, b)
		}
	}
	return m.wholeGroup(gone, m.clockLocked())
}

// wholeGroup reports whether the entries that are gone are all of some group
// of two or more. Needs m.mu.
func (m *Manager) wholeGroup(gone []*entry, now time.Time) bool {
	lost := make(map[group]int)
	for _, e := range gone {
		lost[m.groupOf(&e.Block)]++
	}
	had := make(map[group]int)
	for _, e := range m.idx.blocks {
		if !e.Expired(now) {
			had[m.groupOf(&e.Block)]++
		}
	}
	for g, n := range lost {
		if had[g] >= 2 && n >= had[g] {
			return true
		}
	}
	return false
}

// missed takes single blocks that somebody lifted in the kernel out of the
// index, after asking the kernel whether they are really gone. It runs with
// m.kernel held.
func (m *Manager) missed(ctx context.Context, keys []backend.Key) ([]Event, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	found, err := m.backend.Lookup(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("look for removed blocks: %w", err)
	}
	m.mu.Lock()
	var events []Event
	forced := false
	for _, s := range found {
		e := m.idx.get(s.Key)
		// A block of another action under the same key is not ours to count.
		if e == nil || s.Found && s.Action == e.Action || e.Expired(m.clockLocked()) {
			continue
		}
		m.revise()
		m.idx.remove(e.Key)
		m.stats.removed++
		forced = forced || e.forced
		events = append(events, Event{Kind: Unblocked, Block: e.info(), By: ByForeign, At: m.clockLocked()})
	}
	m.mu.Unlock()
	return events, m.protectAgain(ctx, forced)
}

// restore puts structure, blocks and whitelist back in one step. It runs with
// m.kernel held.
func (m *Manager) restore(ctx context.Context, reason string) ([]Event, error) {
	m.revise() // until it is put back, nobody may be blocked who was
	m.mu.RLock()
	now := m.clockLocked()
	change := backend.Change{Rebuild: true, Allow: m.allowed(nil, nil)}
	for _, e := range m.idx.blocks {
		if !e.Expired(now) {
			change.Add = append(change.Add, e.Block)
		}
	}
	m.mu.RUnlock()
	if err := m.backend.Apply(ctx, change); err != nil {
		m.askLook() // try again
		return nil, fmt.Errorf("put back what somebody damaged (%s): %w", reason, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.resyncs++
	m.warnOnceLocked("resync", "somebody else damaged our table or chain; it was put back (netcap-guard flush lifts all blocks on purpose)",
		"what", reason, "restored", len(change.Add))
	return []Event{{Kind: Resynced, Reason: reason, Restored: len(change.Add), At: now}}, nil
}

func (m *Manager) askLook() {
	select {
	case m.look <- struct{}{}:
	default:
	}
}

// apply makes a change; where somebody took our table or chain away just
// before, it is put back first. It runs with m.kernel held.
func (m *Manager) apply(ctx context.Context, change backend.Change) ([]Event, error) {
	err := m.backend.Apply(ctx, change)
	if !errors.Is(err, backend.ErrGone) && !errors.Is(err, backend.ErrDamaged) {
		return nil, err
	}
	events, rerr := m.restore(ctx, err.Error())
	if rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	return events, m.backend.Apply(ctx, change)
}

// Check compares the kernel with the listing and brings them in step: damage
// is put back, what an administrator lifted is lifted, what he added is
// adopted. The Manager does so by itself when the kernel tells of a change,
// and on iptables every CheckInterval.
func (m *Manager) Check(ctx context.Context) error {
	m.kernel.Lock()
	events, err := m.check(ctx)
	m.kernel.Unlock()
	m.emit(events)
	return err
}

func (m *Manager) check(ctx context.Context) ([]Event, error) { return m.checkBecause(ctx, "") }

// checkBecause is check with what the kernel told of damage, if it did.
func (m *Manager) checkBecause(ctx context.Context, told string) ([]Event, error) {
	if m.closed {
		return nil, ErrClosed
	}
	events := m.expireAll(ctx, m.now())
	blocks, err := m.backend.List(ctx)
	if errors.Is(err, backend.ErrDamaged) || errors.Is(err, backend.ErrGone) {
		more, err := m.restore(ctx, cmp.Or(told, err.Error()))
		return append(events, more...), err
	}
	if err != nil {
		return events, fmt.Errorf("check the kernel: %w", err)
	}
	diff := m.compare(blocks)
	var more []Event
	if diff.flushed || told != "" && len(diff.missing) > 0 {
		// Who deletes a set with all that leads to it has damaged the table, also
		// where what is left looks as if its one block had never been.
		more, err = m.restore(ctx, cmp.Or(told, "all blocks removed at once"))
		return append(events, more...), err
	}
	more, err = m.missed(ctx, diff.missing)
	events = append(events, more...)
	if err == nil && len(diff.surplus) > 0 {
		more, err = m.apply(ctx, backend.Change{Remove: diff.surplus})
		events = append(events, more...)
	}
	return events, err
}

// difference is what a look at the kernel found to do.
type difference struct {
	missing []backend.Key   // the kernel lacks them
	flushed bool            // they are all of some set
	surplus []backend.Block // second blocks of an address, of another action
}

// compare takes over blocks that the kernel has and the index has not, or has
// with another end, action or comment.
func (m *Manager) compare(blocks []backend.Block) (d difference) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clockLocked()
	live := make(map[backend.Slot]bool, len(blocks))
	for _, b := range blocks {
		live[b.Slot()] = true
	}
	for _, b := range blocks {
		e := m.idx.get(b.Key)
		switch {
		case e == nil:
			m.idx.put(&entry{Block: lasting(b, now), by: adopted})
			m.stats.adopted++
			continue
		case e.Action == b.Action:
			if sameEnd(e.Block, b) && sameComment(e.Block, b) && e.Limit == b.Limit && e.LogPrefix == b.LogPrefix {
				continue
			}
		case live[e.Slot()] && !b.Action.Stronger(e.Action):
			d.surplus = append(d.surplus, b) // of equal strength the first stays
			continue
		case live[e.Slot()]:
			d.surplus = append(d.surplus, e.Block)
		}
		m.revise() // it may end sooner, or stop less
		m.idx.put(&entry{Block: lasting(b, now), by: e.by, forced: e.forced})
	}
	var gone []*entry
	for _, e := range m.idx.blocks {
		if !live[e.Slot()] && !e.Expired(now.Add(endTolerance)) {
			gone = append(gone, e)
			d.missing = append(d.missing, e.Key)
		}
	}
	slices.SortFunc(d.missing, func(a, b backend.Key) int { return a.Prefix.Compare(b.Prefix) })
	d.flushed = m.wholeGroup(gone, now)
	return d
}

// endTolerance is how far a block's end in the kernel may be from ours without
// meaning anything: iptables has full seconds, nft counts the rest of a life.
const endTolerance = 2 * time.Second

func sameEnd(a, b backend.Block) bool {
	if a.Permanent() || b.Permanent() {
		return a.Permanent() == b.Permanent()
	}
	return a.ExpiresAt.Sub(b.ExpiresAt).Abs() <= endTolerance
}

// sameComment reports whether the kernel's comment says of a block what we
// know of it.
func sameComment(ours, kernels backend.Block) bool {
	return ours.CreatedAt.UnixMilli() == kernels.CreatedAt.UnixMilli() &&
		sameText(ours.Rule, kernels.Rule) && sameText(ours.Reason, kernels.Reason)
}

// sameText reports whether the kernel's text is ours, or ours as a comment cuts
// it.
func sameText(ours, kernels string) bool {
	begin, cut := strings.CutSuffix(kernels, "…")
	return ours == kernels || cut && strings.HasPrefix(ours, begin)
}
