package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/record"
)

// Defaults of Config.
const (
	defaultAlertQueue  = 4096
	defaultActionQueue = 16384
)

// Config configures an Engine; the zero value of each field has the meaning
// its comment gives.
type Config struct {
	// Alerts takes the alerts; nil = they are counted only.
	Alerts AlertWriter
	// OnAction and OnLog are told of every action, each from one goroutine at
	// a time; nil = nobody. OnAction must not wait: the next block is made
	// when it returns.
	OnAction func(ActionEvent)
	OnLog    func(LogEvent)
	// Logger takes warnings; nil = silent.
	Logger *slog.Logger
	// DefaultDuration is the life of a block whose action names none.
	// Zero = 30 minutes.
	DefaultDuration time.Duration
	// IPv6Prefix counts and blocks IPv6 prefixes of this length instead of
	// single addresses, where an action does not name another. 0 = addresses.
	IPv6Prefix int
	// Backend is what enforces the actions: what it cannot express is a
	// mistake in rules that Reload reads. Empty = not settled (see LoadFor).
	Backend string
	// Forgeable (live): anybody can send packets in anybody's name, so a record
	// of a TCP stream whose handshake was not seen in full counts for no rule
	// that blocks, rejects or limits, unless the rule says confirmed: false.
	Forgeable bool
	// Lossless (replay) delivers alerts and runs actions within Evaluate, in
	// order: nothing waits in a queue and nothing is dropped.
	Lossless bool
	// AlertQueue and ActionQueue bound what waits. Zero = 4,096 and 16,384.
	AlertQueue, ActionQueue int
	// Waker wakes the goroutine that runs the actions, but for those that log;
	// nil = a channel. Not used after Close has returned nil.
	Waker Waker
	// TrackerEntries is how many counters of (rule, address) are kept.
	// Zero = 262,144, 17 MB. TrackerStamps is how many time stamps they share
	// beyond the three that each counter holds itself; it is raised to 16 a
	// counter. Zero = 1,048,576, at most 35 MB with that, touched as needed.
	TrackerEntries, TrackerStamps int
	// Timing measures how long each rule takes, on one packet in 64.
	Timing bool
	// Evaluation is how records meet rules; the zero value is the fast way.
	// All ways give the same answers.
	Evaluation Evaluation
}

// Evaluation is a way from a record to the rules that match it.
type Evaluation uint8

// The ways: with the index over the conditions of the rules; every rule as
// native code; every rule in the expression VM. The latter two are what tests
// and benchmarks compare the first with.
const (
	EvaluateIndexed Evaluation = iota
	EvaluateNative
	EvaluateVM
)

// blocker is what the engine needs of a firewall.
type blocker interface {
	Block(ctx context.Context, req firewall.Request) (firewall.Result, error)
}

// exempter is a blocker that knows which addresses are never blocked, whatever
// is around them. It is asked for packets: it must not wait.
type exempter interface {
	Exempt(a netip.Addr) bool
}

// reviser is a blocker that counts what makes its earlier answers void (see
// firewall.Manager.Revision). It is asked for packets: it must not wait.
type reviser interface {
	Revision() uint64
}

// Engine evaluates records against rules. Its methods are safe for concurrent
// use; each goroutine that evaluates has a Worker of its own.
type Engine struct {
	cfg     Config
	tracker *tracker
	sources []Source
	report  atomic.Pointer[Report]
	active  atomic.Pointer[active]
	nextID  atomic.Uint32
	counts  counts

	// reload orders Reload calls; nothing else takes it.
	reload sync.Mutex

	manager atomic.Pointer[firewall.Manager]
	blocker atomic.Pointer[blocker]
	// exempter and reviser are the blocker, if it is one; nil otherwise.
	exempter atomic.Pointer[exempter]
	reviser  atomic.Pointer[reviser]

	alerts  *queue[*Alert]
	actions *queue[job]
	logs    *queue[job]
	// inline orders deliveries of several workers with Lossless.
	inline sync.Mutex
	// stop ends a Block call that outlives Close's deadline.
	stop   context.CancelFunc
	ctx    func() context.Context
	done   sync.WaitGroup
	closed atomic.Bool
}

// NewEngine loads the rules at path (a file or a directory) and starts an
// engine with default settings that gives its alerts to w. The error joins
// every Problem in the rules. Close it when done.
func NewEngine(path string, w AlertWriter) (*Engine, error) {
	src := Path(path)
	rs, report := Load(src)
	if err := report.Err(); err != nil {
		return nil, err
	}
	e := New(rs, Config{Alerts: w})
	e.sources = []Source{src}
	e.report.Store(&report)
	return e, nil
}

// New starts an engine on a rule set; nil is the empty one. Close it when
// done.
func New(rs *RuleSet, cfg Config) *Engine {
	cfg = cfg.withDefaults()
	e := &Engine{
		cfg:     cfg,
		tracker: newTracker(cfg.TrackerEntries, cfg.TrackerStamps),
		alerts:  newQueue[*Alert](cfg.AlertQueue, nil, linger),
		actions: newQueue[job](cfg.ActionQueue, cfg.Waker, 0),
		logs:    newQueue[job](cfg.AlertQueue, nil, linger),
	}
	e.actions.revision = e.revision
	ctx, stop := context.WithCancel(context.Background())
	e.stop, e.ctx = stop, func() context.Context { return ctx }
	if rs == nil {
		rs = &RuleSet{}
	}
	e.active.Store(e.activate(rs, nil))
	e.report.Store(&Report{})
	if !cfg.Lossless {
		e.done.Go(func() { e.alerts.drain(e.deliver) })
		e.done.Go(func() { e.actions.drain(e.run) })
		e.done.Go(func() { e.logs.drain(e.run) })
	}
	return e
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.DefaultDuration == 0 {
		c.DefaultDuration = firewall.DefaultDuration
	}
	c.AlertQueue = orElse(c.AlertQueue, defaultAlertQueue)
	c.ActionQueue = orElse(c.ActionQueue, defaultActionQueue)
	c.TrackerEntries = orElse(c.TrackerEntries, defaultEntries)
	c.TrackerStamps = orElse(c.TrackerStamps, defaultStamps)
	return c
}

// SetFirewallManager connects the engine to the firewall: from now on the
// actions of rules run. Nil disconnects it.
func (e *Engine) SetFirewallManager(m *firewall.Manager) {
	e.manager.Store(m)
	if m == nil {
		e.blocker.Store(nil)
		e.exempter.Store(nil)
		e.reviser.Store(nil)
		return
	}
	e.setBlocker(m)
}

func (e *Engine) setBlocker(b blocker) {
	e.blocker.Store(&b)
	e.exempter.Store(nil)
	if x, ok := b.(exempter); ok {
		e.exempter.Store(&x)
	}
	e.reviser.Store(nil)
	if r, ok := b.(reviser); ok {
		e.reviser.Store(&r)
	}
}

// revision is what answers of the firewall are good for at this moment.
func (e *Engine) revision() revision {
	r := e.reviser.Load()
	if r == nil {
		return revision{}
	}
	return revision{r, (*r).Revision()}
}

// GetFirewallManager returns the manager that was set, nil if none was.
func (e *Engine) GetFirewallManager() *firewall.Manager { return e.manager.Load() }

// Reload replaces the rules in one step. Without sources it reads what
// NewEngine read. Where the new rules hold an error the running ones stay,
// and the error joins the problems. Rules that did not change keep their
// counters, thresholds included.
func (e *Engine) Reload(sources ...Source) (Report, error) {
	e.reload.Lock()
	defer e.reload.Unlock()
	if len(sources) == 0 {
		sources = e.sources
	}
	rs, report := LoadFor(e.cfg.Backend, sources...)
	if err := report.Err(); err != nil {
		return report, fmt.Errorf("rules not reloaded: %w", err)
	}
	e.active.Store(e.activate(rs, e.active.Load()))
	e.report.Store(&report)
	return report, nil
}

// Rules is the rule set in force.
func (e *Engine) Rules() *RuleSet { return e.active.Load().set }

// Report is what loading the rule set in force had to say, for an engine made
// by NewEngine or reloaded since.
func (e *Engine) Report() Report { return *e.report.Load() }

// Want is what the decoders must fill for the rules in force. After a Reload
// it may ask for more.
func (e *Engine) Want() record.Want {
	return e.Rules().want(e.cfg.Evaluation == EvaluateVM)
}

// Close delivers the alerts and runs the actions that wait, ends the engine's
// goroutines and joins them. When ctx ends first, what still waits is counted
// as dropped and the error says how much. No Worker may be in use any more.
// Close is idempotent.
func (e *Engine) Close(ctx context.Context) error {
	if e.closed.Swap(true) {
		return nil
	}
	e.alerts.close()
	e.actions.close()
	e.logs.close()
	joined := make(chan struct{})
	go func() {
		e.done.Wait()
		close(joined)
	}()
	defer e.stop()
	select {
	case <-joined:
		return nil
	case <-ctx.Done():
	}
	alerts, actions := e.alerts.abandon(), e.actions.abandon()+e.logs.abandon()
	e.counts.droppedAlerts.Add(uint64(alerts))
	e.counts.droppedActions.Add(uint64(actions))
	e.stop()
	if alerts+actions == 0 {
		<-joined
		return nil
	}
	return errors.Join(ctx.Err(), fmt.Errorf("engine closed with %d alerts and %d actions not delivered", alerts, actions))
}
