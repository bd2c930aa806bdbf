package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Manager decides what is blocked and keeps the kernel and its own listing in
// step. All methods are safe for concurrent use. Those that only read
// (IsBlocked, GetActiveBlocks, GetStats) never wait for the kernel.
type Manager struct {
	cfg     ManagerConfig // immutable after NewManager
	log     *slog.Logger
	backend backend.Backend
	lock    *chainLock // nil in a dry run and when attached

	// kernel orders all changes: whoever holds it may call the backend and
	// knows that the index will not change under his feet.
	kernel gate
	// adding is changeOf's; guarded by kernel.
	adding []backend.Block
	// started and offset (of the wall clock against elapsed time) tell a step
	// of the clock; guarded by kernel.
	started    time.Time
	offset     time.Duration
	wallOffset func(started, now time.Time) time.Duration

	// mu guards everything below and is never held across a backend call.
	mu        sync.RWMutex
	idx       *index
	white     whitelist
	protected prefixSet[string] // why it is protected
	stats     counters
	// breaker is on new blocks, logBreaker on new kernel log rules.
	breaker, logBreaker breaker
	newest              time.Time // PacketTime: the newest Request.At
	warned              map[string]bool
	closed              bool

	wake chan struct{} // a block became due earlier than the timer knows
	look chan struct{} // the kernel is to be compared with the listing
	stop context.CancelFunc
	done chan struct{} // closed when the background goroutine has ended
	// followers are the goroutines that follow host and kernel and write what is
	// remembered; the background goroutine joins them.
	followers sync.WaitGroup

	exempted  atomic.Pointer[exempted]
	revision  atomic.Uint64 // see Revision
	queue     queue         // requests that wait for the kernel
	escalated *escalations  // who was blocked how often
	keeper    *keeper       // writes that down; nil = nobody does
	killing   *killing      // ends connections; nil = nobody does
}

// NewManager opens the kernel, adopts the blocks that an earlier process left
// and starts the background goroutine that Close joins. A nil configuration
// is DefaultManagerConfig.
//
// Errors wrap backend.ErrInvalid (configuration), backend.ErrUnavailable,
// backend.ErrPermission, ErrInUse or ErrNotLinux. If it fails, nothing of ours
// is left in the kernel that was not there before.
func NewManager(config *ManagerConfig) (*Manager, error) {
	return newManager(config, (*Manager).open)
}

// newManager is NewManager on the backend that open makes.
func newManager(config *ManagerConfig, open func(*Manager, context.Context) error) (*Manager, error) {
	cfg, err := config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("firewall configuration: %w", err)
	}
	m := &Manager{
		cfg: cfg, log: cfg.Logger, kernel: newGate(), idx: newIndex(cfg.Now()),
		escalated: newEscalations(cfg.MaxEscalations, cfg.EscalationMemory),
		warned:    make(map[string]bool), started: cfg.Now(), wallOffset: wallOffset,
		wake: make(chan struct{}, 1), look: make(chan struct{}, 1), done: make(chan struct{}),
	}
	for _, w := range cfg.Whitelist {
		p, err := ParsePrefix(w)
		if err != nil {
			return nil, fmt.Errorf("whitelist: %w", err)
		}
		m.white.add(OriginConfig, p)
	}
	m.readProtected()
	m.publish()
	if err := open(m, context.Background()); err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	if err := m.begin(ctx); err != nil {
		m.stop()
		m.followers.Wait()
		return nil, errors.Join(err, m.abandon())
	}
	if !cfg.DryRun && !cfg.PacketTime {
		m.killing = startKilling(cfg.Killer, cfg.Logger)
	}
	if cfg.Attach || cfg.PacketTime {
		close(m.done)
		return m, nil
	}
	if cfg.StateDir != "" && !cfg.DryRun {
		m.keeper = newKeeper(m.escalated, filepath.Join(cfg.StateDir, "escalation-"+cfg.ChainName), cfg.Now, cfg.Logger)
	}
	go m.run(ctx)
	return m, nil
}

// open makes the backend: in memory for a dry run, else the kernel's.
func (m *Manager) open(ctx context.Context) error {
	if m.cfg.DryRun {
		m.backend = backend.NewMemory(m.now)
		setDefault(&m.cfg.MaxActiveBlocks, maxBlocksNFT)
		return m.backend.Init(ctx)
	}
	if !m.cfg.Attach {
		lock, err := lockChain(m.cfg.ChainName, m.log)
		if err != nil {
			return err
		}
		m.lock = lock
	}
	b, err := openBackend(ctx, m.cfg)
	if err != nil {
		return errors.Join(err, m.lock.release())
	}
	m.backend = b
	limit := maxBlocksNFT
	if b.Name() == BackendIPTables {
		limit = maxBlocksIPTables
	}
	setDefault(&m.cfg.MaxActiveBlocks, limit)
	return nil
}

// abandon gives up a Manager that failed to start: the blocks that were found
// stay as they were found.
func (m *Manager) abandon() error { return errors.Join(detach(m.backend), m.lock.release()) }

// now is the Manager's clock: the wall, or in replay the newest packet.
func (m *Manager) now() time.Time {
	if !m.cfg.PacketTime {
		return m.cfg.Now()
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.newest
}

// tick moves a clock that runs on packet time, and returns the clock.
func (m *Manager) tick(at time.Time) time.Time {
	if !m.cfg.PacketTime {
		return m.cfg.Now()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at.After(m.newest) {
		m.newest = at
	}
	return m.newest
}

// Advance moves a Manager that runs on packet time to t and ends the blocks
// that are due by then; on the wall clock it does nothing.
func (m *Manager) Advance(t time.Time) {
	if !m.cfg.PacketTime {
		return
	}
	m.kernel.Lock()
	events := m.expireAll(context.Background(), m.tick(t))
	m.kernel.Unlock()
	m.emit(events)
}

// Backend is the name of what enforces the blocks: nft or iptables; in a dry
// run the name that was asked for, memory for auto.
func (m *Manager) Backend() string {
	if m.cfg.DryRun && m.cfg.Backend != BackendAuto {
		return m.cfg.Backend
	}
	return m.backend.Name()
}

// DefaultDuration is the life of a block that does not say how long.
func (m *Manager) DefaultDuration() time.Duration { return m.cfg.DefaultDuration }

// DryRun reports whether the kernel is left alone.
func (m *Manager) DryRun() bool { return m.cfg.DryRun }

// IsBlocked reports whether an active block, of an address or of a prefix
// around it, keeps packets from or to the address out. Rate limits do not
// count, nor does a block in which the address is let through; an address
// that cannot be parsed is not blocked.
func (m *Manager) IsBlocked(ip string) bool {
	p, err := ParsePrefix(ip)
	if err != nil || !p.IsSingleIP() {
		return false
	}
	now := m.now()
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, t := range []backend.Target{backend.Source, backend.Destination} {
		if m.idx.stopping(t, p, now) != nil {
			return !m.letThrough(p, now)
		}
	}
	return false
}

// GetActiveBlocks returns a copy of every block that has not ended, sorted by
// creation. Rate limits and kernel log rules are among them.
func (m *Manager) GetActiveBlocks() []BlockInfo {
	now := m.now()
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []BlockInfo
	for _, e := range m.idx.list() {
		if !e.Expired(now) {
			out = append(out, e.info())
		}
	}
	return out
}

// Covering returns the blocks and rate limits that contain all of the prefix,
// the longest first; Equal prefixes come for each target. Kernel log rules are
// not among them.
func (m *Manager) Covering(p netip.Prefix) []BlockInfo {
	now := m.now()
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []BlockInfo
	for t := range m.idx.lengths {
		m.idx.containing(backend.Target(t), p, func(e *entry) bool {
			if !e.Expired(now) {
				out = append(out, e.info())
			}
			return true
		})
	}
	slices.SortStableFunc(out, func(a, b BlockInfo) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	return out
}

// Flush lifts every block; chain or table stay.
func (m *Manager) Flush() error {
	m.kernel.Lock()
	events, err := m.flush(context.Background())
	m.kernel.Unlock()
	m.emit(events)
	return err
}

func (m *Manager) flush(ctx context.Context) ([]Event, error) {
	if m.closed {
		return nil, ErrClosed
	}
	events := m.expireAll(ctx, m.now())
	m.revise()
	err := m.backend.Flush(ctx)
	if errors.Is(err, backend.ErrGone) || errors.Is(err, backend.ErrDamaged) {
		var more []Event
		if more, err = m.restore(ctx, err.Error()); err == nil {
			err = m.backend.Flush(ctx)
		}
		events = append(events, more...)
	}
	if err != nil {
		m.count(&m.stats.errors)
		return events, fmt.Errorf("flush: %w", err)
	}
	forced := false
	m.mu.Lock()
	for _, e := range m.idx.list() {
		m.idx.remove(e.Key)
		m.stats.removed++
		forced = forced || e.forced
		events = append(events, Event{Kind: Unblocked, Block: e.info(), By: ByFlush, At: m.clockLocked()})
	}
	m.mu.Unlock()
	if err = m.protectAgain(ctx, forced); err != nil {
		m.count(&m.stats.errors)
	}
	return events, err
}

// Close stops the background goroutine and takes everything of ours out of
// the kernel, or with KeepOnClose leaves the blocks there. It is idempotent;
// afterwards every change returns ErrClosed.
func (m *Manager) Close() error { return m.end(m.cfg.KeepOnClose || m.cfg.Attach) }

// Detach is Close with the blocks left in force, whatever KeepOnClose says.
func (m *Manager) Detach() error { return m.end(true) }

func (m *Manager) end(keep bool) error {
	m.stop()
	<-m.done
	m.kernel.Lock()
	defer m.kernel.Unlock()
	if m.closed {
		return nil
	}
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.killing.end()
	return errors.Join(m.closeBackend(context.Background(), keep), m.lock.release())
}

func (m *Manager) closeBackend(ctx context.Context, keep bool) error {
	if keep && !m.cfg.DryRun {
		return detach(m.backend)
	}
	if err := m.backend.Close(ctx); err != nil {
		m.count(&m.stats.errors)
		return fmt.Errorf("close firewall: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.removed += uint64(len(m.idx.blocks))
	m.idx = newIndex(m.idx.base)
	return nil
}
