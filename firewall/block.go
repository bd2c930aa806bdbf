package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// ManualRule is the rule name of blocks that a person asked for on the
// command line.
const ManualRule = "manual-block"

// BlockConfig says how BlockIP and BlockCIDR block. Nil means: the source,
// DROP, for the configured DefaultDuration.
type BlockConfig struct {
	Target   string        // source, src, destination, dst; empty = source
	Duration time.Duration // 0 = permanent; negative is an error
	Action   string        // DROP, REJECT ...; empty = DROP
	RuleName string
	Reason   string
}

// ParsePrefix reads an address or a CIDR into canonical form: host bits
// masked, IPv4-mapped IPv6 as IPv4. A zone is an error.
func ParsePrefix(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, addrErr := netip.ParseAddr(s)
		if addrErr != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%w: %q is neither an IP address nor a CIDR", backend.ErrInvalid, s)
		}
		p = backend.Host(a)
	}
	return backend.Canonical(p)
}

// BlockIP blocks a single address. An address that is blocked or whitelisted
// already is a success with nothing to do, as the page has it.
func (m *Manager) BlockIP(ip string, config *BlockConfig) error {
	a, err := netip.ParseAddr(strings.TrimSpace(ip))
	if err != nil || a.Zone() != "" {
		m.count(&m.stats.errors)
		return fmt.Errorf("block: %w: %q is not an IP address", backend.ErrInvalid, ip)
	}
	return m.blockPage(backend.Host(a), config)
}

// BlockCIDR blocks a prefix; host bits are masked. Addresses in it that are
// whitelisted or protected are let through by the kernel.
func (m *Manager) BlockCIDR(cidr string, config *BlockConfig) error {
	p, err := netip.ParsePrefix(strings.TrimSpace(cidr))
	if err != nil {
		m.count(&m.stats.errors)
		return fmt.Errorf("block: %w: %q is not a CIDR", backend.ErrInvalid, cidr)
	}
	return m.blockPage(p, config)
}

func (m *Manager) blockPage(p netip.Prefix, config *BlockConfig) error {
	if config == nil {
		config = &BlockConfig{Duration: m.cfg.DefaultDuration}
	}
	target, terr := backend.ParseTarget(config.Target)
	action, aerr := backend.ParseAction(config.Action)
	if err := errors.Join(terr, aerr); err != nil {
		m.count(&m.stats.errors)
		return fmt.Errorf("block %v: %w", p, err)
	}
	_, err := m.Block(context.Background(), Request{
		Prefix: p, Target: target, Action: action,
		Duration: config.Duration, Rule: config.RuleName, Reason: config.Reason,
	})
	return err
}

// Block makes one block. The error is nil for every outcome but Refused
// (wraps ErrRefused) and Failed; the kernel enforces what the Result says when
// Block returns.
func (m *Manager) Block(ctx context.Context, req Request) (Result, error) {
	m.kernel.Lock()
	res, events, err := m.block(ctx, req)
	m.kernel.Unlock()
	m.emit(events)
	if err != nil {
		m.count(&m.stats.errors)
		return res, fmt.Errorf("block %v: %w", req.Prefix, err)
	}
	return res, nil
}

// block runs with m.kernel held.
func (m *Manager) block(ctx context.Context, req Request) (Result, []Event, error) {
	if m.closed {
		return Result{Outcome: Failed}, nil, ErrClosed
	}
	now := m.tick(req.At)
	fresh, err := newEntry(req, now)
	if err != nil {
		return Result{Outcome: Failed}, nil, err
	}
	if err := m.familyEnabled(fresh.Prefix); err != nil {
		return Result{Outcome: Failed}, nil, err
	}
	events := m.expire(ctx, now)
	plan, res, err := m.plan(fresh, req, now)
	if err != nil || plan.Empty() {
		return res, events, err
	}
	more, err := m.apply(ctx, plan)
	events = append(events, more...)
	if err != nil {
		return Result{Outcome: Failed}, events, err
	}
	m.commit(fresh, res.Outcome, plan)
	m.rewake()
	return res, events, nil
}

func newEntry(req Request, now time.Time) (*entry, error) {
	p, err := backend.Canonical(req.Prefix)
	switch {
	case err != nil:
		return nil, err
	case p.Bits() == 0 && !req.Force:
		return nil, fmt.Errorf("%w: %v would block everybody", backend.ErrInvalid, p)
	case req.Duration < 0:
		return nil, fmt.Errorf("%w: duration %v is negative", backend.ErrInvalid, req.Duration)
	}
	b := backend.Block{
		Key:    backend.Key{Prefix: p, Target: req.Target, Log: req.Action == backend.Log},
		Action: req.Action, Limit: req.Limit, LogPrefix: req.LogPrefix,
		// As the kernel's comment gives them back, so that a listing is the
		// same before and after a crash (a long reason is cut there alone).
		Rule: backend.Clean(req.Rule), Reason: backend.Clean(req.Reason), CreatedAt: now,
	}
	if req.Duration > 0 {
		b.ExpiresAt = now.Add(req.Duration)
	}
	origin := OriginManual
	if req.ByRule {
		origin = OriginRule
	}
	return &entry{Block: b, origin: origin, forced: req.Force}, nil
}

func (m *Manager) familyEnabled(p netip.Prefix) error {
	if p.Addr().Is4() && !m.cfg.EnableIPv4 || !p.Addr().Is4() && !m.cfg.EnableIPv6 {
		return fmt.Errorf("%w: the address family of %v is switched off", backend.ErrInvalid, p)
	}
	return nil
}

// plan decides what a request leads to: the change for the kernel (empty
// where there is nothing to do) and the result if that change succeeds. It may
// complete fresh from the block it replaces.
func (m *Manager) plan(fresh *entry, req Request, now time.Time) (backend.Change, Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.exempt(fresh.Key, req.Force) {
		m.stats.whitelistSkip++
		return backend.Change{}, Result{Outcome: Whitelisted}, nil
	}
	change := backend.Change{Add: []backend.Block{fresh.Block}}
	old := m.idx.get(fresh.Key)
	switch {
	case old == nil || old.Expired(now):
		if err := m.admit(req, now); err != nil {
			return backend.Change{}, Result{Outcome: Refused}, err
		}
	case fresh.Action.Stronger(old.Action):
		fresh.ExpiresAt = laterEnd(old.Block, fresh.Block)
	case old.Action.Stronger(fresh.Action) || laterEnd(old.Block, fresh.Block).Equal(old.ExpiresAt):
		// What is weaker never lengthens what is stronger: who is rate-limited
		// for an hour was not to be kept out for an hour.
		m.stats.duplicatesSkip++
		return backend.Change{}, Result{Outcome: Duplicate, Block: old.info()}, nil
	default:
		fresh.Action, fresh.Limit, fresh.LogPrefix = old.Action, old.Limit, old.LogPrefix
		fresh.CreatedAt, fresh.origin = old.CreatedAt, old.origin
		fresh.forced = fresh.forced || old.forced
		change.Add[0] = fresh.Block
		return m.withHoles(change, fresh), Result{Outcome: Extended, Block: fresh.info()}, nil
	}
	if old != nil && old.Action != fresh.Action {
		change.Remove = []backend.Block{old.Block}
	}
	change.Add[0] = fresh.Block
	return m.withHoles(change, fresh), Result{Outcome: Created, Block: fresh.info()}, nil
}

// withHoles adds the allow list to a change that needs another one: a forced
// block of a protected address takes that address off the list.
func (m *Manager) withHoles(change backend.Change, fresh *entry) backend.Change {
	if fresh.forced {
		change.Allow = m.allowed(fresh, nil)
	}
	return change
}

// closing is the change that takes blocks out: where one of them was forced,
// the protection it had pierced comes back in the same step. Needs m.mu.
func (m *Manager) closing(gone []*entry) backend.Change {
	var change backend.Change
	forced := false
	for _, e := range gone {
		change.Remove = append(change.Remove, e.Block)
		forced = forced || e.forced
	}
	if forced {
		change.Allow = m.allowed(nil, change.Remove)
	}
	return change
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

// commit enters what the kernel has accepted into the index.
func (m *Manager) commit(fresh *entry, outcome Outcome, done backend.Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.idx.get(fresh.Key)
	m.idx.put(fresh)
	if outcome == Extended {
		m.stats.duplicatesSkip++
		return
	}
	m.stats.created++
	switch {
	case old == nil:
	case old.Expired(fresh.CreatedAt):
		m.stats.expired++
	default:
		m.stats.removed++
	}
	if m.cfg.DryRun {
		m.log.Info("dry run", "change", done.String())
	}
}

// UnblockIP lifts the block of exactly this address, in both directions. An
// address that is not blocked is no error.
func (m *Manager) UnblockIP(ip string) error { return m.unblock(ip) }

// UnblockCIDR lifts the block of exactly this prefix, in both directions. A
// prefix that is not blocked is no error.
func (m *Manager) UnblockCIDR(cidr string) error { return m.unblock(cidr) }

func (m *Manager) unblock(s string) error {
	p, err := ParsePrefix(s)
	if err == nil {
		_, err = m.Unblock(context.Background(), p)
	} else {
		m.count(&m.stats.errors)
	}
	if err != nil {
		return fmt.Errorf("unblock: %w", err)
	}
	return nil
}

// Unblock lifts what exactly this prefix has: blocks, rate limits and kernel
// log rules, in both directions; p is made canonical. It returns what was
// lifted, nothing if there was nothing.
func (m *Manager) Unblock(ctx context.Context, p netip.Prefix) ([]BlockInfo, error) {
	p, err := backend.Canonical(p)
	if err != nil {
		m.count(&m.stats.errors)
		return nil, err
	}
	m.kernel.Lock()
	events, err := m.lift(ctx, p)
	m.kernel.Unlock()
	m.emit(events)
	var lifted []BlockInfo
	for _, e := range events {
		if e.Kind == Unblocked {
			lifted = append(lifted, e.Block)
		}
	}
	return lifted, err
}

// lift runs with m.kernel held.
func (m *Manager) lift(ctx context.Context, p netip.Prefix) ([]Event, error) {
	if m.closed {
		return nil, ErrClosed
	}
	events := m.expire(ctx, m.now())
	var gone []*entry
	m.mu.RLock()
	for _, k := range []backend.Key{
		{Prefix: p}, {Prefix: p, Target: backend.Destination},
		{Prefix: p, Log: true}, {Prefix: p, Target: backend.Destination, Log: true},
	} {
		if e := m.idx.get(k); e != nil {
			gone = append(gone, e)
		}
	}
	change := m.closing(gone)
	m.mu.RUnlock()
	more, err := m.remove(ctx, change, ByManual)
	return append(events, more...), err
}

// remove takes blocks out of the kernel and the index. It runs with m.kernel
// held.
func (m *Manager) remove(ctx context.Context, change backend.Change, by string) ([]Event, error) {
	if change.Empty() {
		return nil, nil
	}
	events, err := m.apply(ctx, change)
	if err != nil {
		m.count(&m.stats.errors)
		return events, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range change.Remove {
		if e := m.idx.remove(b.Key); e != nil {
			m.stats.removed++
			events = append(events, Event{Kind: Unblocked, Block: e.info(), By: by, At: m.clockLocked()})
		}
	}
	return events, nil
}
