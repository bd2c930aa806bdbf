package firewall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// TestModel is random operations against the reference and the kernel's own
// listing. Each prints its seed; modelSeed repeats one, modelSteps (make soak)
// makes it longer.
const (
	modelSeed  = "NETCAP_GUARD_MODEL_SEED"
	modelSteps = "NETCAP_GUARD_MODEL_STEPS"
	// defaultSteps is what make test runs on each backend, but for iptables,
	// where a step runs twenty programs.
	defaultSteps, iptablesSteps = 300, 150
	// patience is how long a kernel's monitor may take; it takes milliseconds.
	patience = 10 * time.Second
	// rounding is what a kernel may change of a block's end.
	rounding = 2 * time.Second
)

// world is a kernel for TestModel, with the means of somebody else who works
// on it.
type world interface {
	// start is NewManager.
	start(cfg *ManagerConfig) (*Manager, error)
	// kill ends a Manager as kill -9 would: nothing is cleaned up.
	kill(m *Manager) error
	// enforced lists the blocks without the Manager.
	enforced(t *testing.T) []BlockInfo
	// filter reads what the kernel does with an address on a target's side.
	filter(t *testing.T) func(backend.Target, netip.Addr) bool
	// damage draws something that somebody else does to the blocks.
	damage(t *testing.T, rng *rand.Rand, ref *reference) damage
	// settle waits until the kernel's monitor has told the Manager what it
	// was waited for. Where a kernel has no monitor it looks at once.
	settle(t *testing.T, m *Manager, arrived func() bool)
	// comment is how many bytes the kernel keeps of a comment.
	comment() int
	// room says before each request, or several together, what the kernel has
	// room for: whether a block fits beside the others.
	room(rng *rand.Rand, ref *reference) (fits func(backend.Block) bool)
	// relax ends that.
	relax()
	// logPrefixes are those of kernel log rules.
	logPrefixes() []string
}

// damage is what somebody else does, and what must come of it.
type damage struct {
	name string
	do   func()
	// lifted blocks count as unblocked by an administrator, added ones as his.
	lifted []backend.Key
	added  []backend.Block
	// resyncs is how often everything else must be put back.
	resyncs uint64
}

// modelClock is a clock that a test steps. It is safe for concurrent use.
type modelClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *modelClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *modelClock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// modelRun is one run of TestModel.
type modelRun struct {
	t       *testing.T
	w       world
	m       *Manager
	ref     *reference
	rng     *rand.Rand
	clock   *modelClock
	cfg     *ManagerConfig
	history []string

	mu      sync.Mutex
	events  map[string]uint64
	reasons []string // why something was put back
}

// runModel makes the steps. edit completes the configuration.
func runModel(t *testing.T, w world, edit func(*ManagerConfig)) {
	steps := uint64(defaultSteps)
	if _, ok := w.(interface{ programs() []string }); ok {
		steps = iptablesSteps
	}
	if testing.Short() { // with the race detector, which is after other faults
		steps /= 3
	}
	steps = modelNumber(t, modelSteps, steps)
	// The short run is the same each time, so that a change is judged by what
	// it changes; the long one tries something new.
	seed := uint64(20261122)
	if steps > defaultSteps {
		seed = rand.Uint64()
	}
	seed = modelNumber(t, modelSeed, seed)
	t.Logf("%d steps, %s=%d", steps, modelSeed, seed)
	// Ahead of the machine's clock by more than any run takes: the kernel
	// never ends a block before the Manager does.
	now := time.Now().Round(0).Truncate(time.Second).Add(24 * time.Hour)
	white := []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32"), netip.MustParsePrefix("2001:db8:1::/126")}
	r := &modelRun{t: t, w: w, ref: newReference(now, white), rng: rand.New(rand.NewPCG(seed, 1)), clock: &modelClock{now: now}}
	r.ref.comment = w.comment()
	t.Cleanup(func() {
		if t.Failed() {
			if r.m != nil {
				_ = r.m.Close() // the next test wants the chain
			}
			tail := r.history[max(len(r.history)-40, 0):]
			t.Logf("%s=%d, the last of %d steps:\n%s", modelSeed, seed, len(r.history), strings.Join(tail, "\n"))
		}
	})
	r.cfg = DefaultManagerConfig()
	r.cfg.Now, r.cfg.OnEvent = r.clock.Now, r.note
	r.cfg.MaxActiveBlocks, r.cfg.MaxNewPerMinute = r.ref.maxActive, r.ref.maxPerMinute
	r.cfg.Protect = hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true}
	r.cfg.Whitelist = nil
	for _, p := range white {
		r.cfg.Whitelist = append(r.cfg.Whitelist, p.String())
	}
	r.cfg.MaxEscalations, r.cfg.StateDir = modelEscalations, t.TempDir()
	edit(r.cfg)
	r.start()
	blocks := 0
	for range steps {
		r.history = append(r.history, "")
		r.step()
		r.compare()
		blocks += len(r.ref.blocks)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d blocks on average", blocks/len(r.history))
	if err := r.m.Close(); err != nil {
		t.Error(err)
	}
	checkBalance(t, r.m)
}

func modelNumber(t *testing.T, env string, otherwise uint64) uint64 {
	text, ok := os.LookupEnv(env)
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	return n
}

// note counts the Manager's events.
func (r *modelRun) note(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.Kind {
	case Expired:
		r.events["expired"]++
	case Unblocked:
		r.events[e.By]++
	case Resynced:
		r.events["resynced"]++
		r.reasons = append(r.reasons, e.Reason)
	}
}

// resynced are the latest reasons for which something was put back.
func (r *modelRun) resynced() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reasons[max(len(r.reasons)-3, 0):]
}

// say adds to the history of this step.
func (r *modelRun) say(format string, args ...any) {
	last := &r.history[len(r.history)-1]
	if *last == "" {
		*last = fmt.Sprintf("%5d  %s  ", len(r.history), r.ref.now.UTC().Format("02 15:04:05"))
	}
	*last += fmt.Sprintf(format, args...)
}

func (r *modelRun) start() {
	r.mu.Lock()
	r.events = map[string]uint64{}
	r.mu.Unlock()
	var err error
	if r.m, err = r.w.start(r.cfg); err != nil {
		r.t.Fatal(err)
	}
}

// compare holds Manager, kernel and reference together.
func (r *modelRun) compare() {
	r.t.Helper()
	if err := r.m.Check(context.Background()); err != nil {
		r.t.Errorf("check: %v", err)
	}
	r.compareListings()
	r.compareStats()
	if r.t.Failed() {
		return
	}
	kernel := r.w.filter(r.t)
	for _, a := range probes() {
		for _, target := range []backend.Target{backend.Source, backend.Destination} {
			if got, want := kernel(target, a), r.ref.stops(target, a); got != want {
				r.t.Errorf("the kernel stops %s %s: %t, want %t", target, a, got, want)
			}
		}
	}
	r.compareBlocked()
}

// compareBlocked asks the Manager alone.
func (r *modelRun) compareBlocked() {
	r.t.Helper()
	for _, a := range probes() {
		text := a.String()
		if a.Is4() && a.As4()[3]%2 == 0 {
			text = "::ffff:" + text
		}
		want := r.ref.stops(backend.Source, a) || r.ref.stops(backend.Destination, a)
		if got := r.m.IsBlocked(text); got != want {
			r.t.Errorf("IsBlocked(%s) = %t, want %t", text, got, want)
		}
	}
}

// line is one block of a listing, without its end.
func line(i BlockInfo, origin Origin) string {
	return fmt.Sprintf("%s %s %q %s %s (%s) %q %q created %s permanent %t %s", i.Action, i.Limit, i.LogPrefix, i.Target, i.IP, i.Prefix, i.RuleName, i.Reason,
		i.CreatedAt.UTC().Format("02 15:04:05.000"), i.ExpiresAt.IsZero(), origin)
}

// listed are a listing's lines and the end of each.
func listed(list []BlockInfo, origin Origin) map[string]time.Time {
	out := make(map[string]time.Time, len(list))
	for _, i := range list {
		o := origin
		if o == "" {
			o = i.Origin
		}
		l := line(i, o)
		if _, twice := out[l]; twice {
			l += " twice"
		}
		out[l] = i.ExpiresAt
	}
	return out
}

func (r *modelRun) compareListings() {
	kernel := map[string]time.Time{}
	for _, b := range r.ref.blocks {
		e := &entry{Block: b.Block}
		e.Rule, e.Reason = r.ref.kept(b.Block)
		kernel[line(e.info(), OriginKernel)] = b.ExpiresAt
	}
	list := r.m.GetActiveBlocks()
	if !slices.IsSortedFunc(list, func(a, b BlockInfo) int { return a.CreatedAt.Compare(b.CreatedAt) }) {
		r.t.Error("the listing is not in the order of creation")
	}
	r.compareManager("the Manager")
	r.compareLines("the kernel", listed(r.w.enforced(r.t), OriginKernel), kernel)
}

// compareManager asks the Manager alone.
func (r *modelRun) compareManager(who string) {
	want := map[string]time.Time{}
	for _, b := range r.ref.blocks {
		e := &entry{Block: b.Block}
		want[line(e.info(), b.origin)] = b.ExpiresAt
	}
	r.compareLines(who, listed(r.m.GetActiveBlocks(), ""), want)
}

func (r *modelRun) compareLines(who string, got, want map[string]time.Time) {
	for _, l := range slices.Sorted(maps.Keys(want)) {
		end, ok := got[l]
		switch {
		case !ok:
			r.t.Errorf("%s lacks %s until %s", who, l, want[l].UTC())
		case end.Sub(want[l]).Abs() > rounding:
			r.t.Errorf("%s ends %s at %s, want %s", who, l, end.UTC(), want[l].UTC())
		}
	}
	for _, l := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[l]; !ok {
			r.t.Errorf("%s has %s until %s, which should not be", who, l, got[l].UTC())
		}
	}
}

func (r *modelRun) compareStats() {
	s := r.ref.stats
	want := map[string]uint64{
		"blocks_created": s.created, "blocks_removed": s.removed, "blocks_expired": s.expired, "duplicates_skip": s.duplicates,
		"whitelist_skip": s.whitelisted, "errors": s.errors, "active_blocks": uint64(len(r.ref.blocks)),
	}
	if got := r.m.GetStats(); !maps.Equal(got, want) {
		r.t.Errorf("statistics %v, want %v", got, want)
	}
	checkBalance(r.t, r.m)
	for what, n := range map[string][2]uint64{
		"adopted": {r.m.Adopted(), s.adopted}, "refused": {r.m.Refused(), s.refused}, "resyncs": {r.m.Resyncs(), s.resyncs},
	} {
		if n[0] != n[1] {
			r.t.Errorf("%s = %d, want %d (put back: %q)", what, n[0], n[1], r.resynced())
		}
	}
	if s.resyncs > 0 {
		r.ref.ended["resynced"] = s.resyncs
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !maps.Equal(r.events, r.ref.ended) {
		r.t.Errorf("events %v, want %v", r.events, r.ref.ended)
	}
}

// universe is what is blocked and whitelisted: few prefixes, so that requests
// meet one another, that nest and touch, with whole families and protected
// addresses among them.
func universe() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"198.18.0.0/15", "198.18.0.0/16", "198.18.1.0/24", "198.18.1.0/25", "198.18.1.128/25", "198.18.1.128/32", "198.18.1.129/32",
		"198.18.1.255/32", "198.18.4.1/32", "198.18.4.2/32", "198.18.2.0/31", "198.18.2.2/31", "198.18.3.3/32", "198.19.0.0/24", "203.0.113.0/24", "203.0.113.9/32",
		"126.0.0.0/7", "127.0.0.5/32", "224.0.0.251/32", "128.0.0.0/1", "0.0.0.0/0", "255.255.255.255/32",
		"2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::/64", "2001:db8:1::/126", "2001:db8:1::1/128", "2001:db8:1::2/128",
		"2001:db8:1::5/128", "2001:db8:1::6/127", "2001:db8:ffff:ffff::/64", "ff02::1/128", "::1/128", "fe00::/7",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// probes are the ends of every prefix and what lies beside them.
func probes() []netip.Addr {
	var out []netip.Addr
	for _, p := range universe() {
		first, last := span(p)
		out = append(out, first, last)
		if a := first.Prev(); a.IsValid() {
			out = append(out, a)
		}
		if a := last.Next(); a.IsValid() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// expect reports an error that is not the one that was to come.
func (r *modelRun) expect(err, want error) {
	r.t.Helper()
	if want == nil && err != nil || want != nil && !errors.Is(err, want) {
		r.t.Errorf("error %v, want %v", err, want)
	}
	if err != nil {
		r.say(" (%v)", err)
	}
}
