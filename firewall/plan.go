package firewall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// carry makes the calls' blocks, in as few changes as it can, and leaves what
// came of each in it. Requests for one key keep their order. It runs with
// m.kernel held.
func (m *Manager) carry(ctx context.Context, calls []*call) []Event {
	now := m.now()
	if m.cfg.PacketTime {
		for _, c := range calls {
			now = m.tick(c.req.At)
		}
	}
	ready := calls
	if len(calls) > 1 {
		ready = make([]*call, 0, len(calls))
	}
	for _, c := range calls {
		err := ErrClosed
		if !m.closed {
			err = m.prepare(c, now)
		}
		switch {
		case err != nil:
			m.fail(c, err)
		case len(calls) > 1:
			ready = append(ready, c)
		}
	}
	if m.closed || len(calls) == 1 && calls[0].err != nil {
		return nil
	}
	events := m.makeRoom(ctx, len(ready), now)
	for len(ready) > 0 {
		batch, later := ready, []*call(nil)
		if len(ready) > 1 {
			batch, later = together(ready)
		}
		events = append(events, m.makeBatch(ctx, batch, now)...)
		ready = later
	}
	return events
}

func (m *Manager) fail(c *call, err error) {
	c.fresh = nil
	c.err = err
	c.outcome = Failed
	if errors.Is(err, ErrRefused) {
		c.outcome = Refused
	}
	m.count(&m.stats.errors)
}

// makeRoom ends blocks that are due: some, and all where they would count
// against the cap.
func (m *Manager) makeRoom(ctx context.Context, wanted int, now time.Time) []Event {
	events, more := m.expire(ctx, now)
	for more && m.crowded(wanted) {
		var e []Event
		e, more = m.expire(ctx, now)
		events = append(events, e...)
	}
	return events
}

// together splits calls into those that can go in one change and the rest: no
// key twice, and a block by force, which changes what is let through, alone.
func together(calls []*call) (batch, later []*call) {
	if calls[0].req.Force {
		return calls[:1], calls[1:]
	}
	seen := make(map[backend.Key]struct{}, len(calls))
	for i, c := range calls {
		if c.req.Force {
			return batch, append(later, calls[i:]...)
		}
		if _, twice := seen[c.fresh.Key]; twice {
			later = append(later, c)
			continue
		}
		seen[c.fresh.Key] = struct{}{}
		batch = append(batch, c)
	}
	return batch, later
}

// prepare checks a request and makes the entry that it asks for, its end left
// out.
func (m *Manager) prepare(c *call, now time.Time) error {
	req := c.req
	p, err := backend.Canonical(req.Prefix)
	switch {
	case err != nil:
		return err
	case p.Bits() == 0 && !req.Force:
		return fmt.Errorf("%w: %v would block everybody", backend.ErrInvalid, p)
	case req.Duration < 0:
		return fmt.Errorf("%w: duration %v is negative", backend.ErrInvalid, req.Duration)
	case req.IPv6Prefix < 0 || req.IPv6Prefix > 128:
		return fmt.Errorf("%w: IPv6 prefix length %d (use 1 to 128)", backend.ErrInvalid, req.IPv6Prefix)
	case p.Addr().Is4() && !m.cfg.EnableIPv4 || !p.Addr().Is4() && !m.cfg.EnableIPv6:
		return fmt.Errorf("%w: the address family of %v is switched off", backend.ErrInvalid, p)
	}
	b := backend.Block{
		Action: req.Action,
		// As the kernel's comment gives them back, so that a listing is the
		// same before and after a crash (a long reason is cut there alone).
		Rule: backend.Clean(req.Rule), Reason: backend.Clean(req.Reason), CreatedAt: now,
	}
	switch req.Action {
	case backend.RateLimit:
		b.Limit = req.Limit
		err = backend.CheckLimit(m.Backend(), req.Limit)
	case backend.Log:
		b.LogPrefix = req.LogPrefix
		err = backend.CheckLogPrefix(req.LogPrefix)
	case backend.Drop, backend.Reject, backend.RejectReset:
	}
	if err == nil {
		err = validEscalation(req)
	}
	c.asked = p
	b.Key = backend.Key{Prefix: m.widened(p, req), Target: req.Target, Log: req.Action == backend.Log}
	c.fresh = &entry{Block: b, by: byHand, forced: req.Force && !b.Log}
	if req.ByRule {
		c.fresh.by = byRule
	}
	return err
}

// widened is the prefix that is blocked where p is asked for.
func (m *Manager) widened(p netip.Prefix, req *Request) netip.Prefix {
	bits := req.IPv6Prefix
	setDefault(&bits, m.cfg.IPv6Prefix)
	if p.Bits() != 128 || bits == 128 || req.Force {
		return p
	}
	return netip.PrefixFrom(p.Addr(), bits).Masked()
}

// makeBatch plans the calls, which do not touch one another, and makes what
// is to be made.
func (m *Manager) makeBatch(ctx context.Context, batch []*call, now time.Time) []Event {
	todo := batch
	if len(batch) > 1 {
		todo = make([]*call, 0, len(batch))
	}
	var blocks, logs int // that are new
	for _, c := range batch {
		ahead := &blocks
		if c.fresh.Log {
			ahead = &logs
		}
		if err := m.plan(c, *ahead, now); err != nil {
			m.fail(c, err)
		}
		if c.fresh != nil && c.old == nil {
			*ahead++
		}
		if len(batch) > 1 && c.fresh != nil {
			todo = append(todo, c)
		}
	}
	if len(todo) == 0 || todo[0].fresh == nil {
		return nil
	}
	return m.halve(ctx, todo, nil)
}

// plan decides what a request leads to. It completes c.fresh from the block it
// replaces, or takes it away where there is nothing to do. ahead is how many
// more blocks, or kernel log rules if it asks for one, there will be than there
// are, by what is planned already.
func (m *Manager) plan(c *call, ahead int, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fresh, req := c.fresh, c.req
	// Who asks for an address that must not be blocked does not get its
	// neighbours blocked instead.
	asked := backend.Key{Prefix: c.asked, Target: fresh.Target, Log: fresh.Log}
	if m.exempt(asked, req.Force) || fresh.Prefix != c.asked && m.exempt(fresh.Key, req.Force) {
		m.stats.whitelistSkip++
		c.settle(Whitelisted, nil)
		return nil
	}
	old := m.idx.get(fresh.Key)
	c.old = old
	anew := old == nil || old.Expired(now) || fresh.Action.Stronger(old.Action)
	if d := m.duration(req, fresh.Key, anew, now); d > 0 {
		fresh.ExpiresAt = now.Add(d)
	}
	switch {
	case old == nil || old.Expired(now):
		if err := m.admit(req, ahead, now); err != nil {
			return err
		}
	case anew:
		fresh.ExpiresAt = laterEnd(old.Block, fresh.Block)
	case old.Action.Stronger(fresh.Action) || laterEnd(old.Block, fresh.Block).Equal(old.ExpiresAt):
		// What is weaker never lengthens what is stronger: who is rate-limited
		// for an hour was not to be kept out for an hour.
		m.stats.duplicatesSkip++
		c.settle(Duplicate, old)
		return nil
	default:
		fresh.Action, fresh.Limit, fresh.LogPrefix = old.Action, old.Limit, old.LogPrefix
		fresh.CreatedAt, fresh.by = old.CreatedAt, old.by
		fresh.Reason = cmp.Or(fresh.Reason, old.Reason)
		fresh.forced = fresh.forced || old.forced
		c.outcome = Extended
		return nil
	}
	c.outcome = Created
	return nil
}

// settle ends a call with nothing to do; in force is the block that is there.
func (c *call) settle(o Outcome, inForce *entry) {
	c.fresh, c.outcome = nil, o
	if inForce != nil && c.block != nil {
		*c.block = inForce.info()
	}
}

// halve makes the calls in one change. Where one of them keeps the others out,
// it makes the halves, down to the one: what fits is in force, the rest is
// named. full are the sets that had no room for one more. It runs with
// m.kernel held.
func (m *Manager) halve(ctx context.Context, calls []*call, full map[group]error) []Event {
	if len(full) > 0 {
		calls = m.withRoom(calls, full)
	}
	if len(calls) == 0 {
		return nil
	}
	events, err := m.apply(ctx, m.changeOf(calls))
	switch {
	case err == nil:
		events = append(events, m.commit(calls)...)
	case len(calls) > 1 && divisible(err):
		if full == nil {
			full = make(map[group]error)
		}
		half := len(calls) / 2
		events = append(events, m.halve(ctx, calls[:half], full)...)
		events = append(events, m.halve(ctx, calls[half:], full)...)
	default:
		if full != nil && errors.Is(err, backend.ErrFull) && calls[0].outcome == Created {
			full[m.groupOf(&calls[0].fresh.Block)] = err
		}
		for _, c := range calls {
			m.fail(c, err)
		}
	}
	return events
}

// divisible reports whether one block of a change can be what the error is
// about, and the others may be made without it.
func divisible(err error) bool {
	return errors.Is(err, backend.ErrFull) || errors.Is(err, backend.ErrInvalid) || errors.Is(err, backend.ErrUnsupported)
}

// withRoom fails the new blocks of sets that are full and returns the rest.
func (m *Manager) withRoom(calls []*call, full map[group]error) []*call {
	rest := make([]*call, 0, len(calls))
	for _, c := range calls {
		if err := full[m.groupOf(&c.fresh.Block)]; err != nil && c.outcome == Created {
			m.fail(c, err)
			continue
		}
		rest = append(rest, c)
	}
	return rest
}

// changeOf is what the calls ask of the kernel. It runs with m.kernel held, and
// what it returns is good until it runs again.
func (m *Manager) changeOf(calls []*call) backend.Change {
	clear(m.adding)
	change := backend.Change{Add: slices.Grow(m.adding[:0], len(calls))}
	for _, c := range calls {
		change.Add = append(change.Add, c.fresh.Block)
		change.Replaces = change.Replaces || c.old != nil && c.old.Action == c.fresh.Action
		if c.old != nil && c.old.Action != c.fresh.Action {
			change.Remove = append(change.Remove, c.old.Block)
		}
		if c.req.Force && c.fresh.forced { // the only one: see together
			m.mu.RLock()
			change.Allow = m.allowed(c.fresh, nil)
			m.mu.RUnlock()
		}
	}
	m.adding = change.Add
	return change
}

// commit enters what the kernel has accepted into the index. It runs with
// m.kernel held.
func (m *Manager) commit(calls []*call) (events []Event) {
	sooner, noted := false, false
	for _, c := range calls {
		if m.cfg.DryRun {
			m.log.Info("dry run", "change", m.changeOf([]*call{c}).String())
		}
		m.mu.Lock()
		if ended := m.enter(c); ended != nil {
			events = append(events, Event{Kind: Expired, Block: ended.info(), At: ended.ExpiresAt})
		}
		sooner = sooner || c.fresh.pos == 0
		m.mu.Unlock()
		if c.outcome == Extended {
			continue
		}
		m.kill(c.fresh)
		if c.req.escalates() {
			noted = true
			m.escalated.note(whom{c.fresh.Prefix, c.fresh.Target}, c.fresh.CreatedAt)
		}
	}
	if sooner {
		m.rewake()
	}
	if noted && m.keeper != nil {
		m.keeper.changed()
	}
	if n := m.active(); n > slowRules && m.backend.Name() == BackendIPTables {
		m.warnOnce("rules", "each packet walks through every rule of iptables: with so many blocks use --backend nft", "blocks", n)
	}
	return events
}

// slowRules is how many rules of iptables cost every packet more than a
// microsecond or two each thousand.
const slowRules = 1000

// enter puts a new or extended block into the index, and returns the ended one
// whose place it took. Needs m.mu.
func (m *Manager) enter(c *call) (ended *entry) {
	old := c.old // the index has not changed since the plan
	if old != nil {
		m.idx.put(c.fresh)
	} else {
		m.idx.add(c.fresh)
	}
	if c.block != nil {
		*c.block = c.fresh.info()
	}
	if c.outcome == Extended {
		m.stats.duplicatesSkip++
		return nil
	}
	m.stats.created++
	switch {
	case old == nil:
	case old.Expired(c.fresh.CreatedAt):
		m.stats.expired++
		return old
	default:
		m.stats.removed++
	}
	return nil
}

// laterEnd is the later end of two blocks; the zero time, permanent, is later
// than any.
func laterEnd(a, b backend.Block) time.Time {
	if a.Permanent() || b.Permanent() {
		return time.Time{}
	}
	if b.ExpiresAt.After(a.ExpiresAt) {
		return b.ExpiresAt
	}
	return a.ExpiresAt
}
