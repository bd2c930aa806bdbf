package allowlist

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Defaults of Config.
const (
	DefaultInterval   = time.Minute
	DefaultTimeout    = 5 * time.Second
	DefaultParallel   = 8
	DefaultMaxAddress = 64
)

// How a Resolver paces itself.
const (
	// gather is how long answers that change something are waited for before
	// they are told together.
	gather = 100 * time.Millisecond
	// retry is the first wait after a failure; it doubles up to the interval.
	// At boot the network may come up after the guard.
	retry = time.Second
	// jitter is the part of a wait by which it varies, either way, so that
	// names do not come due together for ever.
	jitter = 0.1
)

// Lookuper is what is asked for addresses; *net.Resolver is one. LookupNetIP
// must be safe for concurrent use and end with its context.
type Lookuper interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config configures a Resolver. The zero value of each field has the meaning
// its comment gives.
type Config struct {
	// Names are the DNS names, as Parse returns them.
	Names []string
	// Resolver is asked; nil = the system's resolvers.
	Resolver Lookuper
	// Interval is how often each name is looked up. Zero = 1 minute. (The
	// standard resolver does not tell how long an answer is good for.)
	Interval time.Duration
	// Timeout bounds each lookup. Zero = 5 s.
	Timeout time.Duration
	// Parallel is how many names are looked up at once. Zero = 8.
	Parallel int
	// MaxAddresses is how many addresses of each family a name may stand for;
	// of more the lowest count. Zero = 64.
	MaxAddresses int
	// Logger takes warnings; nil = silent.
	Logger *slog.Logger
}

// Stats counts what a Resolver did since New.
type Stats struct {
	Names    uint64 // names followed now
	Failing  uint64 // of them those whose last lookup failed
	Lookups  uint64 // lookups of a name, both families
	Failures uint64 // of them those that failed, in one family or both
	Ignored  uint64 // addresses left out because they name no remote host
	Cut      uint64 // addresses left out because the name has too many
}

// Status is what a name stands for.
type Status struct {
	Name     string
	Prefixes []netip.Prefix // of the last good answer, sorted
	At       time.Time      // of the last good answer; zero: never any
	Failing  bool           // the last lookup failed, in one family or both
}

// Resolver follows the addresses of DNS names. Its methods may be called by
// anyone at any time.
type Resolver struct {
	cfg  Config
	wake chan struct{} // the names were changed

	mu    sync.Mutex // guards what follows; never held during a lookup
	names map[string]*name
	stats Stats
	dirty bool // what the names stand for may have changed
}

// name is a DNS name and what is known of it.
type name struct {
	text    string
	due     time.Time
	running bool
	last    [len(families)][]netip.Addr
	at      time.Time
	failed  int // times in a row
	// What has been warned of already.
	saidFailure, saidIgnored, saidCut bool
}

// New makes a Resolver. It looks nothing up before Run.
func New(cfg Config) *Resolver {
	setDefault(&cfg.Interval, DefaultInterval)
	setDefault(&cfg.Timeout, DefaultTimeout)
	setDefault(&cfg.Parallel, DefaultParallel)
	setDefault(&cfg.MaxAddresses, DefaultMaxAddress)
	if cfg.Resolver == nil {
		cfg.Resolver = &net.Resolver{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Resolver{cfg: cfg, wake: make(chan struct{}, 1)}
	r.SetNames(cfg.Names)
	return r
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// SetNames replaces the names. The ones that stay keep their addresses; new
// ones are looked up at once where Run runs.
func (r *Resolver) SetNames(texts []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make(map[string]*name, len(texts))
	for _, text := range texts {
		if n, ok := r.names[text]; ok {
			names[text] = n
		} else {
			names[text] = &name{text: text}
		}
	}
	r.names, r.dirty = names, true
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Stats returns the counters.
func (r *Resolver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Names = uint64(len(r.names))
	for _, n := range r.names {
		if n.failed > 0 {
			s.Failing++
		}
	}
	return s
}

// Status says what each name stands for, sorted by name. The caller owns the
// result.
func (r *Resolver) Status() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Status
	for _, n := range r.names {
		out = append(out, Status{n.text, prefixes(slices.Concat(n.last[:]...)), n.at, n.failed > 0})
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// prefixes makes sorted host prefixes, each once.
func prefixes(addrs []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, host(a))
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// Run looks the names up, again and again, until ctx ends, and then returns
// nil with every lookup ended. changed is called with the host prefixes of all
// names (sorted, each once) whenever they differ from the last call's, first
// from none; it owns the slice. It runs in Run's goroutine; while it runs
// answers wait. A lookup that fails leaves the last good answer in force,
// without end. Run may run once at a time.
func (r *Resolver) Run(ctx context.Context, changed func([]netip.Prefix)) error {
	var lookups sync.WaitGroup
	defer lookups.Wait()
	done := make(chan struct{}, r.cfg.Parallel)
	free := r.cfg.Parallel
	var told []netip.Prefix
	var tell <-chan time.Time
	for {
		batch, next := r.due(free)
		free -= len(batch)
		for _, n := range batch {
			lookups.Go(func() {
				reply := resolve(ctx, r.cfg.Resolver, n.text, r.cfg.Timeout, r.cfg.MaxAddresses)
				r.finish(n, &reply, ctx.Err() != nil)
				done <- struct{}{} // has room for all
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-done:
			free++
		case <-r.wake:
		case <-next: // nil while nothing is to come due
			continue
		case <-tell:
			tell = nil
			if now := r.prefixes(); !slices.Equal(now, told) {
				told = now
				changed(slices.Clone(now))
			}
			continue
		}
		if r.changed() && tell == nil {
			tell = time.After(gather)
		}
	}
}

// changed asks, and forgets, whether something may have changed.
func (r *Resolver) changed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.dirty
	r.dirty = false
	return was
}

// prefixes is what all names stand for now.
func (r *Resolver) prefixes() []netip.Prefix {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []netip.Addr
	for _, n := range r.names {
		for _, last := range n.last {
			all = append(all, last...)
		}
	}
	return prefixes(all)
}

// due takes up to free names whose time has come, the most overdue first, and
// says when the next will have come; nil if that depends on something else.
func (r *Resolver) due(free int) (batch []*name, next <-chan time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var soonest time.Time
	for _, n := range r.names {
		switch {
		case n.running:
		case !n.due.After(now):
			batch = append(batch, n)
		case soonest.IsZero() || n.due.Before(soonest):
			soonest = n.due
		}
	}
	slices.SortFunc(batch, func(a, b *name) int { return a.due.Compare(b.due) })
	batch = batch[:min(free, len(batch))]
	for _, n := range batch {
		n.running = true
		r.stats.Lookups++
	}
	if soonest.IsZero() {
		return batch, nil
	}
	return batch, time.After(soonest.Sub(now))
}

// finish takes over what was said of a name, unless the lookup was cut short
// by the end of Run.
func (r *Resolver) finish(n *name, reply *reply, cut bool) {
	r.mu.Lock()
	n.running = false
	var first remarks
	if !cut {
		first = r.take(n, reply)
	}
	r.mu.Unlock()
	log := r.cfg.Logger.With("name", n.text)
	if first.ignored > 0 {
		log.Warn("whitelist: the answer names no remote host and is ignored", "addresses", first.ignored)
	}
	if first.cut > 0 {
		log.Warn("whitelist: the name has too many addresses", "most", r.cfg.MaxAddresses, "left_out", first.cut)
	}
	if first.failure != nil {
		log.Warn("whitelist: the name cannot be resolved: its last good answer stays", "error", first.failure)
	}
}

// remarks are what there is to warn of, each once in the life of a name.
type remarks struct {
	ignored, cut int
	failure      error
}

// take needs r.mu.
func (r *Resolver) take(n *name, reply *reply) (first remarks) {
	found := reply.found()
	var ignored, cut int
	for i := range families {
		a := &reply[i]
		fresh := a.merge(n.last[i], found)
		r.dirty = r.dirty || !slices.Equal(fresh, n.last[i])
		n.last[i] = fresh
		ignored += a.ignored
		cut += a.cut
	}
	now := time.Now()
	if found {
		n.at = now
	}
	failure := reply.failure()
	n.due = now.Add(n.wait(r.cfg.Interval, failure != nil))
	r.stats.Ignored += uint64(ignored)
	r.stats.Cut += uint64(cut)
	if failure != nil {
		r.stats.Failures++
	}
	if ignored > 0 && !n.saidIgnored {
		n.saidIgnored, first.ignored = true, ignored
	}
	if cut > 0 && !n.saidCut {
		n.saidCut, first.cut = true, cut
	}
	if failure != nil && !n.saidFailure {
		n.saidFailure, first.failure = true, failure
	}
	return first
}

// wait is how long to wait for the next lookup.
func (n *name) wait(interval time.Duration, failed bool) time.Duration {
	wait := interval
	if failed {
		wait = min(wait, retry<<min(n.failed, 16))
		n.failed++
	} else {
		n.failed = 0
	}
	return time.Duration(float64(wait) * (1 - jitter + 2*jitter*rand.Float64()))
}
