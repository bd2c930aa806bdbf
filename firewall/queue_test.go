package firewall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// slowBackend takes its time for each change, and says how large they were.
type slowBackend struct {
	*backend.Memory
	takes time.Duration
	mu    sync.Mutex
	sizes []int
}

func (s *slowBackend) Apply(ctx context.Context, c backend.Change) error {
	time.Sleep(s.takes)
	s.mu.Lock()
	s.sizes = append(s.sizes, len(c.Add))
	s.mu.Unlock()
	return s.Memory.Apply(ctx, c)
}

// on makes a Manager on a backend of the test.
func on(t *testing.T, b backend.Backend, edit func(*ManagerConfig)) *Manager {
	t.Helper()
	cfg := DefaultManagerConfig()
	cfg.Whitelist = nil
	cfg.Protect = hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true}
	if edit != nil {
		edit(cfg)
	}
	m, err := newManager(cfg, func(m *Manager, ctx context.Context) error {
		m.backend = b
		setDefault(&m.cfg.MaxActiveBlocks, maxBlocksNFT)
		return b.Init(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		checkBalance(t, m)
	})
	return m
}

func numbered(n int) netip.Prefix {
	return backend.Host(netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}))
}

// Requests that come while the kernel is busy go into one change, and each
// caller has his own answer.
func TestCoalescing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowBackend{Memory: backend.NewMemory(nil), takes: time.Second}
		m := on(t, slow, nil)
		slow.sizes = nil
		results := make([]Result, 500)
		errs := make([]error, len(results))
		var wg sync.WaitGroup
		began := time.Now()
		for i := range results {
			req := Request{Prefix: numbered(i % 400), Duration: time.Hour}
			switch {
			case i >= 400: // of somebody who asks for less
				req.Duration = time.Minute
			case i == 7:
				req.Duration = -1
			case i == 8:
				req.Prefix = netip.MustParsePrefix("127.0.0.1/32")
			}
			wg.Go(func() { results[i], errs[i] = m.Block(t.Context(), req) })
			synctest.Wait() // they come in this order
		}
		wg.Wait()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%d requests took %v of a kernel that needs a second for each change", len(results), took)
		}
		if len(slow.sizes) != 2 || slow.sizes[0] != 1 || slow.sizes[1] != 399 {
			t.Errorf("changes of %v blocks", slow.sizes)
		}
		for i, r := range results {
			want := Created
			switch {
			case i == 7:
				want = Failed
			case i == 8:
				want = Whitelisted
			case i >= 400 && i%400 != 7 && i%400 != 8:
				want = Duplicate
			}
			if r.Outcome != want || (errs[i] != nil) != (want == Failed) {
				t.Errorf("request %d: %s, %v, want %s", i, r.Outcome, errs[i], want)
			}
			if want == Created && r.Block.Prefix != numbered(i%400) {
				t.Errorf("request %d: block %+v", i, r.Block)
			}
		}
		if got := stats(m); got != "active_blocks=400 blocks_created=400 duplicates_skip=98 errors=1 whitelist_skip=1" {
			t.Errorf("statistics %q", got)
		}
	})
}

// A caller who gives up while he waits is answered at once, the others are
// served all the same, whoever of them had to lead.
func TestCoalescingContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowBackend{Memory: backend.NewMemory(nil), takes: time.Second}
		m := on(t, slow, nil)
		m.kernel.Lock() // somebody is at work
		outcome := make([]string, 6)
		cancels := make([]context.CancelFunc, len(outcome))
		var wg sync.WaitGroup
		for i := range outcome {
			ctx, cancel := context.WithCancel(t.Context())
			cancels[i] = cancel
			wg.Go(func() {
				res, err := m.Block(ctx, Request{Prefix: numbered(i), Duration: time.Hour})
				outcome[i] = fmt.Sprint(res.Outcome, errors.Is(err, context.Canceled))
			})
			synctest.Wait()
		}
		cancels[2]() // one that waits
		cancels[0]() // the one that leads
		synctest.Wait()
		if outcome[0] != "failed true" || outcome[2] != "failed true" {
			t.Errorf("given up: %q", outcome)
		}
		m.kernel.Unlock()
		synctest.Wait()
		cancels[3]() // what has begun is carried out
		wg.Wait()
		for _, cancel := range cancels {
			cancel()
		}
		want := []string{"failed true", "created false", "failed true", "created false", "created false", "created false"}
		if !slices.Equal(outcome, want) {
			t.Errorf("outcomes %q, want %q", outcome, want)
		}
		if got := stats(m); got != "active_blocks=4 blocks_created=4 errors=2" {
			t.Errorf("statistics %q", got)
		}
		if m.queue.led || len(m.queue.waiting) > 0 {
			t.Error("the queue is still led")
		}
	})
}

// Of a change that is too much for the kernel, what fits is in force and
// listed, and the rest is named.
func TestFullInTheMiddle(t *testing.T) {
	for _, room := range []int{0, 1, 7, 500, 777, 999, 1000} {
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			slow := &slowBackend{Memory: backend.NewMemory(nil)}
			slow.SetCapacity(room)
			m := on(t, slow, nil)
			slow.sizes = nil
			if room == 0 {
				slow.SetCapacity(1)
				if err := m.BlockIP("203.0.113.1", nil); err != nil {
					t.Fatal(err)
				}
			}
			reqs := make([]Request, 1000)
			for i := range reqs {
				reqs[i] = Request{Prefix: numbered(i), Duration: time.Hour}
			}
			fits := 0
			for i, r := range m.BlockAll(t.Context(), reqs) {
				switch {
				case r.Outcome == Created && r.Err == nil:
					fits++
				case r.Outcome != Failed || !errors.Is(r.Err, backend.ErrFull):
					t.Fatalf("request %d: %s, %v", i, r.Outcome, r.Err)
				}
			}
			if fits != room {
				t.Errorf("%d of 1000 made, want %d", fits, room)
			}
			if n := len(slow.sizes); n > 40 {
				t.Errorf("%d changes were tried", n)
			}
			sameAsMemory(t, m, slow.Memory)
		})
	}
}

// sameAsMemory reports where the listing is not what is enforced.
func sameAsMemory(t *testing.T, m *Manager, mem *backend.Memory) {
	t.Helper()
	blocks, err := mem.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	enforced, shown := map[backend.Slot]int{}, map[backend.Slot]int{}
	for _, b := range blocks {
		enforced[b.Slot()]++
	}
	for _, i := range m.GetActiveBlocks() {
		action, err := backend.ParseAction(i.Action)
		if err != nil {
			t.Fatal(err)
		}
		shown[backend.Slot{Key: i.key(), Action: action}]++
	}
	if !maps.Equal(enforced, shown) {
		t.Errorf("%d blocks are enforced, %d listed", len(enforced), len(shown))
	}
}

// 100,000 requests with bad ones among them: the good ones are in force, the
// bad ones are named, prefixes that come twice are duplicates, and what has to
// go alone does.
func TestBlockAll(t *testing.T) {
	slow := &slowBackend{Memory: backend.NewMemory(nil)}
	m := on(t, slow, nil)
	reqs := make([]Request, 100_000)
	for i := range reqs {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		reqs[i] = Request{Prefix: backend.Host(a), Duration: time.Hour}
	}
	bad := map[int]bool{}
	for i := range 37 {
		n := 2700*i + 11
		bad[n] = true
		reqs[n].Duration = -1
	}
	reqs[5], reqs[20_000] = reqs[4], reqs[4]
	reqs[20_000].Duration = time.Minute // it comes in a later change
	reqs[6].Prefix, reqs[6].Force = netip.MustParsePrefix("127.0.0.5/32"), true
	for i, r := range m.BlockAll(t.Context(), reqs) {
		want := Created
		switch {
		case bad[i]:
			want = Failed
		case i == 5 || i == 20_000:
			want = Duplicate
		}
		if r.Outcome != want || (r.Err != nil) != bad[i] || bad[i] && !errors.Is(r.Err, backend.ErrInvalid) {
			t.Fatalf("request %d: %s, %v, want %s", i, r.Outcome, r.Err, want)
		}
	}
	if got := stats(m); got != "active_blocks=99961 blocks_created=99961 duplicates_skip=2 errors=37" {
		t.Errorf("statistics %q", got)
	}
	if !m.IsBlocked("127.0.0.5") || !m.IsBlocked("10.1.134.159") || m.IsBlocked("10.1.134.160") {
		t.Error("what is blocked is not what was asked for")
	}
	if n := len(slow.sizes); n > 20 {
		t.Errorf("%d changes", n)
	}
	sameAsMemory(t, m, slow.Memory)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, r := range m.BlockAll(ctx, reqs[:2]) {
		if r.Outcome != Failed || !errors.Is(r.Err, context.Canceled) {
			t.Errorf("with an ended context: %s, %v", r.Outcome, r.Err)
		}
	}
}

// Requests for one address keep their order: the last of several actions and
// durations sees those before it, whoever leads.
func TestCoalescingOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowBackend{Memory: backend.NewMemory(nil), takes: time.Millisecond}
		m := on(t, slow, nil)
		limit := backend.Limit{Rate: 10, Per: time.Second, Burst: 5}
		steps := []struct {
			action backend.Action
			d      time.Duration
			want   Outcome
		}{
			{backend.RateLimit, time.Hour, Created},
			{backend.RateLimit, 2 * time.Hour, Extended},
			{backend.Drop, time.Minute, Created},
			{backend.RateLimit, 9 * time.Hour, Duplicate},
			{backend.Reject, 3 * time.Hour, Extended},
			{backend.Log, time.Hour, Created},
			{backend.Drop, 0, Extended},
		}
		var wg sync.WaitGroup
		for host := range 50 {
			for i, s := range steps {
				req := Request{Prefix: numbered(host), Action: s.action, Duration: s.d, Limit: limit}
				wg.Go(func() {
					res, err := m.Block(t.Context(), req)
					if err != nil || res.Outcome != s.want {
						t.Errorf("host %d, step %d: %s, %v, want %s", host, i, res.Outcome, err, s.want)
					}
				})
				synctest.Wait()
			}
		}
		wg.Wait()
		sameAsMemory(t, m, slow.Memory)
		checkBalance(t, m)
	})
}

// namedBackend passes for another backend.
type namedBackend struct {
	*backend.Memory
	name string
}

func (n *namedBackend) Name() string { return n.name }

// Many rules of iptables are said once, with what to do about it; on nft they
// are nothing to speak of.
func TestManyRules(t *testing.T) {
	for name, want := range map[string]int{BackendIPTables: 1, BackendNFT: 0} {
		var log lockedBuffer
		m := on(t, &namedBackend{backend.NewMemory(nil), name}, func(c *ManagerConfig) { c.Logger = log.logger() })
		reqs := make([]Request, slowRules+5)
		for i := range reqs {
			reqs[i].Prefix = numbered(i)
		}
		m.BlockAll(t.Context(), reqs[:slowRules])
		if got := log.String(); strings.Contains(got, "nft") {
			t.Errorf("%s, %d rules: %s", name, slowRules, got)
		}
		for _, req := range reqs[slowRules:] {
			if _, err := m.Block(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Count(log.String(), "--backend nft"); got != want {
			t.Errorf("%s: said %d times, want %d", name, got, want)
		}
	}
}
