package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/filter"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/allowlist"
	"github.com/netcap-guard/netcap-guard/internal/evidence"
)

// drainLimit bounds how long alerts and actions that wait may take at the
// end.
const drainLimit = 5 * time.Second

// Environment is what a run gets from its surroundings.
type Environment struct {
	Streams
	Log     *slog.Logger
	Version string
	Netns   string // the namespace the process was told to work in
	// Evaluation is how rules are evaluated; tests compare the ways.
	Evaluation engine.Evaluation
}

// runner is one run of the guard, live or replay.
type runner struct {
	cfg     Config
	env     Environment
	log     *slog.Logger
	events  *events
	rules   []engine.Source
	engine  *engine.Engine
	manager *firewall.Manager
	shared  *shared
	sources []capture.Source
	mu      sync.Mutex // guards workers, which the control socket reads
	workers []*worker
	names   *allowlist.Resolver
	control *control
	// evidence is nil where none is kept.
	evidence *evidence.Keeper
	kernel   *kernelLog  // nil in a replay and in a dry run
	killer   *connKiller // nil without kill_connections
	dropped  dropCounts
	hangups  chan os.Signal
	waker    *waker          // of the engine; nil where it has none
	filter   *filter.Program // of the rules that the guard started with
	// reloading orders reloads: rules and the kernel's filter change together.
	reloading sync.Mutex
	end       context.CancelFunc // ends the run in order
}

// Run guards interfaces until ctx ends, or replays captures to their end. It
// returns nil after an orderly end; ExitCode says what other errors ask for.
//
// Everything that can be wrong without the kernel (usage, rules, captures) is
// found before the kernel is touched.
func Run(ctx context.Context, cfg Config, env Environment) (err error) {
	if err := usageOf(&cfg); err != nil {
		return err
	}
	replay := len(cfg.Read) > 0
	if replay && !cfg.Enforce {
		cfg.DryRun = true
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	r := &runner{cfg: cfg, env: env, log: env.Log, end: end}
	rs, err := r.loadRules()
	if err != nil {
		return err
	}
	if _, _, err := cfg.whitelistFiles(); err != nil {
		return err
	}
	if r.events, err = openEvents(cfg, env.Out); err != nil {
		return err
	}
	r.events.logger = r.log
	defer func() { err = errors.Join(err, r.closeEvents(replay)) }()
	if err := r.openEvidence(replay); err != nil {
		return err
	}
	defer r.endEvidence()
	r.filter = filter.Compile(needs(rs, cfg.Decap))
	if err := r.openSources(ctx, replay); err != nil {
		if ctx.Err() != nil {
			return nil // told to end before a pipe gave anything
		}
		return err
	}
	defer r.closeSources()
	if err := r.openFirewall(ctx, rs, replay); err != nil {
		r.killer.close()
		return err
	}
	r.openEngine(rs, replay)
	r.shared = newShared(r.engine)
	r.shared.decap = replay || cfg.Decap
	r.shared.between = !replay && !cfg.Decap && !cfg.Promiscuous
	r.shared.streams, r.shared.proxies, r.shared.evidence = cfg.streams(), cfg.proxies(), r.evidence
	if replay {
		r.ready(rs, replay)
		err = r.replay(ctx)
	} else {
		err = r.guard(ctx, rs)
	}
	return errors.Join(err, r.shutdown(replay))
}

// openEngine starts the engine on the rules, connected to the firewall.
func (r *runner) openEngine(rs *engine.RuleSet, replay bool) {
	if !replay {
		r.waker = newWaker()
	}
	r.engine = engine.New(rs, engine.Config{
		Alerts: r.events, OnAction: r.acted, OnLog: r.events.log, Logger: r.log,
		DefaultDuration: r.manager.DefaultDuration(), Lossless: replay, Forgeable: !replay,
		IPv6Prefix: r.cfg.IPv6Prefix, Backend: r.manager.Backend(),
		Timing: replay, Evaluation: r.env.Evaluation, Waker: r.waker.engineWaker(),
	})
	r.engine.SetFirewallManager(r.manager)
}

// guard opens the control socket and captures until ctx ends.
func (r *runner) guard(ctx context.Context, rs *engine.RuleSet) error {
	r.events.start()
	if !r.manager.DryRun() {
		// Before the control socket, which reads it.
		r.kernel = &kernelLog{log: r.log, group: r.cfg.logGroup(), manager: r.manager, emit: r.events.kernelLog, open: openLog}
	}
	if err := r.startControl(); err != nil {
		if len(r.manager.GetActiveBlocks()) > 0 {
			// What an earlier guard left is not lifted by a start that failed.
			err = errors.Join(err, r.manager.Detach())
		}
		return err
	}
	// From before the guard says that it is ready: until then a hangup ends
	// it, as it ends any program.
	r.hangups = make(chan os.Signal, 1)
	signal.Notify(r.hangups, syscall.SIGHUP)
	defer signal.Stop(r.hangups)
	if r.kernel != nil {
		r.kernel.look(time.Now(), rs)
	}
	r.ready(rs, false)
	return r.live(ctx)
}

// closeEvents ends the event stream. A replay that could not write all of it
// has failed; a guard has done its work, and says what was lost.
func (r *runner) closeEvents(replay bool) error {
	err := r.events.close()
	if n, why := r.events.losses(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d events could not be written: %w", n, why))
	}
	if replay || err == nil {
		return err
	}
	r.log.Error("events", "error", err)
	return nil
}

// usageOf checks that the run has one kind of source.
func usageOf(cfg *Config) error {
	cfg.Interfaces = distinct(cfg.Interfaces)
	live, replay := len(cfg.Interfaces) > 0, len(cfg.Read) > 0
	switch {
	case replay:
		cfg.Interfaces = nil // those of the configuration file are for guarding
		return nil
	case live && cfg.Enforce:
		return Exit(ExitUsage, "--enforce goes with -r: live guarding blocks unless --dry-run")
	case live:
		return nil
	}
	return Exit(ExitUsage, "nothing to watch: use -i INTERFACE or -r FILE (interfaces here: %s)", interfaces())
}

// distinct drops repetitions and keeps the order.
func distinct(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func interfaces() string {
	list, err := net.Interfaces()
	if err != nil || len(list) == 0 {
		return "none found"
	}
	names := make([]string, len(list))
	for i, l := range list {
		names[i] = l.Name
	}
	return strings.Join(names, ", ")
}

// openFirewall makes the Manager; a replay that is no enforcement lives on
// packet time.
func (r *runner) openFirewall(ctx context.Context, rs *engine.RuleSet, replay bool) error {
	mcfg := r.cfg.Manager(r.log)
	if !replay {
		mcfg.StateDir = r.cfg.statePath(r.env.Netns)
	}
	mcfg.PacketTime = replay && r.cfg.DryRun
	mcfg.OnEvent = r.events.block
	if replay {
		// The blocks of a capture that was replayed for real are to last.
		mcfg.KeepOnClose = true
	}
	if mcfg.PacketTime {
		// A capture says the same wherever it is replayed: the addresses of
		// this machine mean nothing in it.
		p := &mcfg.Protect
		p.NoOwn, p.NoGateways, p.NoResolvers, p.NoSSHPeer = true, true, true, true
	}
	if r.cfg.KillConnections && !r.cfg.DryRun {
		if r.killer = newConnKiller(ctx, r.log); r.killer != nil {
			mcfg.Killer = r.killer
		}
	}
	m, err := firewall.NewManager(mcfg)
	if err != nil {
		return err
	}
	if err := rs.CheckBackend(m.Backend()); err != nil {
		// The backend was chosen only now (auto).
		return errors.Join(&ExitError{ExitConfig, err}, m.Detach())
	}
	r.manager = m
	r.events.backend, r.events.dryRun = m.Backend(), m.DryRun()
	r.names = allowlist.New(allowlist.Config{Logger: r.log})
	if err := r.applyWhitelist(); err != nil {
		return errors.Join(err, m.Detach())
	}
	return nil
}

// ready says that packets are being read: on standard error, as an event and
// to systemd.
func (r *runner) ready(rs *engine.RuleSet, replay bool) {
	n := running(rs)
	if n == 0 {
		r.log.Warn("no rule runs: nothing will be blocked")
	}
	verb, what := "guarding", r.cfg.Interfaces
	if replay {
		verb, what = "replaying", r.cfg.Read
	}
	_ = r.events.emit(&event{
		Timestamp: stamp(time.Now()), EventType: "start",
		Start: &startBody{
			Version: r.env.Version, Backend: r.manager.Backend(), Interfaces: nonNil(r.cfg.Interfaces),
			Rules: n, DryRun: r.manager.DryRun(),
		},
	}) // counted by emit
	if !r.cfg.Quiet {
		suffix := ""
		if r.manager.DryRun() {
			suffix = " (dry run)"
		}
		if n := int(min(r.manager.Adopted(), math.MaxInt32)); n > 0 {
			fmt.Fprintf(r.env.Err, "adopted %s\n", plural(n, "block"))
		}
		fmt.Fprintf(r.env.Err, "%s %s with %d rules, backend %s%s\n", verb, strings.Join(what, ", "), n, r.manager.Backend(), suffix)
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		r.log.Warn("telling systemd that the guard is ready", "error", err)
	}
}

// shutdown ends the run in order: sources and workers have ended, what they
// asked for is carried out, the firewall is closed, the statistics are told.
func (r *runner) shutdown(replay bool) error {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyStopping); err != nil {
		r.log.Warn("telling systemd that the guard stops", "error", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	err := r.engine.Close(ctx)
	if err == nil {
		r.waker.close()
	}
	err = errors.Join(err, r.closeEvidence(ctx))
	body := r.stats()
	kept := len(r.manager.GetActiveBlocks())
	closing := r.manager.Close()
	if closing == nil {
		r.tellKept(kept, replay)
	}
	err = errors.Join(err, closing, r.kernel.close())
	r.killer.close()
	if !replay {
		// After guarding nothing is active any more; after a replay the
		// question is what would be.
		body.Firewall = r.manager.GetStats()
	}
	// Last, because whoever told us to end waits for the socket to go.
	err = errors.Join(err, r.control.close(ctx))
	_ = r.events.emit(&event{Timestamp: stamp(r.clock()), EventType: "stats", Stats: body}) // counted by emit
	if replay && !r.cfg.Quiet {
		err = errors.Join(err, writeWhy(r.env.Err, r.engine))
	}
	return err
}

// clock is packet time in a replay, else the wall clock.
func (r *runner) clock() time.Time {
	if r.manager.DryRun() && len(r.cfg.Read) > 0 && len(r.workers) > 0 {
		if t := r.workers[0].set.Time; t != 0 {
			return time.Unix(0, t)
		}
	}
	return time.Now()
}

func (r *runner) closeSources() {
	for _, s := range r.sources {
		if err := s.Close(); err != nil {
			r.log.Warn("closing a capture", "error", err)
		}
	}
}
