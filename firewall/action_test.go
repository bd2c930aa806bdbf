package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *lockedBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// full lists what a listing shows of rate limits and log rules.
func full(m *Manager) string {
	var b strings.Builder
	for _, i := range m.GetActiveBlocks() {
		life := "permanent"
		if !i.ExpiresAt.IsZero() {
			life = time.Until(i.ExpiresAt).String()
		}
		fmt.Fprintf(&b, "%s %s %s %s", i.Action, i.Target, i.IP, life)
		if i.Limit != (backend.Limit{}) {
			fmt.Fprintf(&b, " %s", i.Limit)
		}
		if i.LogPrefix != "" {
			fmt.Fprintf(&b, " %q", i.LogPrefix)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func limited(d time.Duration) Request {
	return Request{Prefix: numbered(1), Action: backend.RateLimit, Limit: backend.Limit{Rate: 10, Per: time.Second, Burst: 5}, Duration: d}
}

func stopped(a backend.Action, d time.Duration) Request {
	return Request{Prefix: numbered(1), Action: a, Duration: d}
}

func logged(prefix string, d time.Duration) Request {
	return Request{Prefix: numbered(1), Action: backend.Log, LogPrefix: prefix, Duration: d}
}

// Each case is a run of requests for one address; the listing and the
// statistics afterwards are the expectation.
func TestStrength(t *testing.T) {
	fast := limited(time.Hour)
	fast.Limit.Rate = 1000
	long := fast
	long.Duration = 2 * time.Hour
	for _, tt := range []struct {
		name        string
		reqs        []Request
		want        []Outcome
		list, stats string
	}{
		{"a rate limit", []Request{limited(time.Hour)}, []Outcome{Created},
			"RATE_LIMIT source 192.0.0.1 1h0m0s 10/second burst 5\n", "active_blocks=1 blocks_created=1"},
		{"a log rule", []Request{logged("SSH: ", 0)}, []Outcome{Created},
			"LOG source 192.0.0.1 permanent \"SSH: \"\n", "active_blocks=1 blocks_created=1"},
		{"a block replaces a rate limit, the later end holds",
			[]Request{limited(time.Hour), stopped(backend.Drop, time.Minute)}, []Outcome{Created, Created},
			"DROP source 192.0.0.1 1h0m0s\n", "active_blocks=1 blocks_created=2 blocks_removed=1"},
		{"a permanent rate limit makes the block permanent",
			[]Request{limited(0), stopped(backend.Reject, time.Minute)}, []Outcome{Created, Created},
			"REJECT source 192.0.0.1 permanent\n", "active_blocks=1 blocks_created=2 blocks_removed=1"},
		{"the later end may be the block's",
			[]Request{limited(time.Minute), stopped(backend.RejectReset, time.Hour)}, []Outcome{Created, Created},
			"REJECT_RESET source 192.0.0.1 1h0m0s\n", "active_blocks=1 blocks_created=2 blocks_removed=1"},
		{"a rate limit does not weaken or lengthen a block",
			[]Request{stopped(backend.Drop, time.Minute), limited(time.Hour)}, []Outcome{Created, Duplicate},
			"DROP source 192.0.0.1 1m0s\n", "active_blocks=1 blocks_created=1 duplicates_skip=1"},
		{"of two rate limits the first stays, and may be longer",
			[]Request{limited(time.Hour), fast, long}, []Outcome{Created, Duplicate, Extended},
			"RATE_LIMIT source 192.0.0.1 2h0m0s 10/second burst 5\n", "active_blocks=1 blocks_created=1 duplicates_skip=2"},
		{"of two log rules the first stays, and may be longer",
			[]Request{logged("a", time.Minute), logged("b", time.Hour)}, []Outcome{Created, Extended},
			"LOG source 192.0.0.1 1h0m0s \"a\"\n", "active_blocks=1 blocks_created=1 duplicates_skip=1"},
		{"a log rule stands beside a block",
			[]Request{stopped(backend.Drop, time.Minute), logged("", time.Hour)}, []Outcome{Created, Created},
			"DROP source 192.0.0.1 1m0s\nLOG source 192.0.0.1 1h0m0s\n", "active_blocks=2 blocks_created=2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := dry(t, nil)
				for i, req := range tt.reqs {
					res, err := m.Block(t.Context(), req)
					if err != nil || res.Outcome != tt.want[i] {
						t.Errorf("request %d: %s, %v, want %s", i, res.Outcome, err, tt.want[i])
					}
				}
				if got := full(m); got != tt.list {
					t.Errorf("listing:\n%swant:\n%s", got, tt.list)
				}
				if got := stats(m); got != tt.stats {
					t.Errorf("statistics %q, want %q", got, tt.stats)
				}
			})
		})
	}
}

// Who is only slowed down or looked at is not blocked; unblocking lifts it all.
func TestLimitsAndLogsAreNoBlocks(t *testing.T) {
	m := dry(t, nil)
	for _, req := range []Request{limited(time.Hour), logged("x", time.Hour)} {
		if _, err := m.Block(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		req.Target = backend.Destination
		if _, err := m.Block(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	if m.IsBlocked("192.0.0.1") {
		t.Error("a rate limit or a log rule counts as a block")
	}
	if err := m.BlockCIDR("192.0.0.0/24", nil); err != nil {
		t.Fatal(err)
	}
	if !m.IsBlocked("192.0.0.1") {
		t.Error("a rate limit hides the block of the network around it")
	}
	lifted, err := m.Unblock(t.Context(), numbered(1))
	if err != nil || len(lifted) != 4 {
		t.Errorf("lifted %+v, %v", lifted, err)
	}
	if got := stats(m); got != "active_blocks=1 blocks_created=5 blocks_removed=4" {
		t.Errorf("statistics %q", got)
	}
}

// Who is whitelisted or protected is neither slowed down nor logged, and a log
// rule cannot be forced on him.
func TestLimitsAndLogsOfTheWhitelisted(t *testing.T) {
	m := dry(t, func(c *ManagerConfig) { c.Whitelist = []string{"192.0.0.0/24"} })
	for _, req := range []Request{limited(time.Hour), logged("x", time.Hour)} {
		for _, p := range []string{"192.0.0.1/32", "127.0.0.1/32"} {
			req.Prefix = netip.MustParsePrefix(p)
			req.Force = req.Action == backend.Log
			if res, err := m.Block(t.Context(), req); err != nil || res.Outcome != Whitelisted {
				t.Errorf("%s of %s: %s, %v", req.Action, p, res.Outcome, err)
			}
		}
		req.Prefix, req.Force = netip.MustParsePrefix("198.51.100.1/32"), false
		if res, err := m.Block(t.Context(), req); err != nil || res.Outcome != Created {
			t.Errorf("%s: %s, %v", req.Action, res.Outcome, err)
		}
	}
	if err := m.AddToWhitelist("198.51.100.0/24"); err != nil {
		t.Fatal(err)
	}
	if got := full(m); got != "" {
		t.Errorf("left after whitelisting:\n%s", got)
	}
}

func TestLimitsThatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		name, backend string
		req           Request
		want          error
		text          string
	}{
		{"no rate", BackendAuto, Request{Action: backend.RateLimit}, backend.ErrInvalid, "rate of 0"},
		{"no burst", BackendAuto, Request{Action: backend.RateLimit, Limit: backend.Limit{Rate: 1, Per: time.Second}}, backend.ErrInvalid, "burst of 0"},
		{"a fortnight", BackendNFT, Request{Action: backend.RateLimit, Limit: backend.Limit{Rate: 1, Per: 14 * 24 * time.Hour, Burst: 1}}, backend.ErrInvalid, "336h"},
		{"too fast for hashlimit", BackendIPTables, Request{Action: backend.RateLimit, Limit: backend.Limit{Rate: 2_000_000, Per: time.Second, Burst: 5}},
			backend.ErrUnsupported, "iptables"},
		{"too slow for hashlimit", BackendIPTables, Request{Action: backend.RateLimit, Limit: backend.Limit{Rate: 1, Per: 24 * time.Hour, Burst: 5}},
			backend.ErrUnsupported, "1/day burst 5"},
		{"a long log prefix", BackendAuto, Request{Action: backend.Log, LogPrefix: strings.Repeat("x", 64)}, backend.ErrInvalid, "64 bytes"},
		{"a log prefix of two lines", BackendAuto, Request{Action: backend.Log, LogPrefix: "a\nb"}, backend.ErrInvalid, "log prefix"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := dry(t, func(c *ManagerConfig) { c.Backend = tt.backend })
			tt.req.Prefix = numbered(1)
			res, err := m.Block(t.Context(), tt.req)
			if res.Outcome != Failed || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%s, %v, want %v with %q", res.Outcome, err, tt.want, tt.text)
			}
			if got := stats(m); got != "errors=1" {
				t.Errorf("statistics %q", got)
			}
		})
	}
}

// After a crash between the two steps of a change of action the kernel has
// both: the stronger is adopted, whichever is listed first.
func TestAdoptionOfTwoActions(t *testing.T) {
	for range 8 { // the order of a listing is not fixed
		mem := backend.NewMemory(nil)
		if err := mem.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		var change backend.Change
		for _, a := range []backend.Action{backend.RateLimit, backend.Drop, backend.Log} {
			b := backend.Block{Key: backend.Key{Prefix: numbered(1), Log: a == backend.Log}, Action: a, ExpiresAt: time.Now().Add(time.Hour)}
			if a == backend.RateLimit {
				b.Limit = backend.Limit{Rate: 1, Per: time.Minute, Burst: 1}
			}
			change.Add = append(change.Add, b)
		}
		if err := mem.Apply(t.Context(), change); err != nil {
			t.Fatal(err)
		}
		m := on(t, mem, nil)
		if m.Adopted() != 2 || !m.IsBlocked("192.0.0.1") {
			t.Errorf("adopted %d:\n%s", m.Adopted(), full(m))
		}
		sameAsMemory(t, m, mem)
		checkBalance(t, m)
	}
}

// A prefix is blocked in place of a single IPv6 address, where that is asked
// for, and never around an address that must not be blocked.
func TestIPv6Prefix(t *testing.T) {
	m := dry(t, func(c *ManagerConfig) {
		c.IPv6Prefix = 64
		c.Whitelist = []string{"2001:db8:0:5::5", "2001:db8:0:6::/64"}
	})
	block := func(p string, edit func(*Request)) string {
		t.Helper()
		req := Request{Prefix: netip.MustParsePrefix(p), Duration: time.Hour}
		if edit != nil {
			edit(&req)
		}
		res, err := m.Block(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(res.Outcome, " ", res.Block.IP)
	}
	for _, tt := range []struct {
		prefix string
		edit   func(*Request)
		want   string
	}{
		{"2001:db8:0:1::1/128", nil, "created 2001:db8:0:1::/64"},
		{"2001:db8:0:1::1/128", func(r *Request) { r.IPv6Prefix = 128 }, "created 2001:db8:0:1::1"},
		{"2001:db8:0:2::1/128", func(r *Request) { r.IPv6Prefix = 56 }, "created 2001:db8::/56"},
		{"2001:db8:0:3::/80", nil, "created 2001:db8:0:3::/80"},
		{"192.0.2.1/32", nil, "created 192.0.2.1"},
		{"2001:db8:0:5::5/128", nil, "whitelisted "},
		{"2001:db8:0:5::6/128", nil, "created 2001:db8:0:5::/64"},
		{"2001:db8:0:6::1/128", nil, "whitelisted "},
		{"ff02::1/128", nil, "whitelisted "},
		{"ff02::1/128", func(r *Request) { r.Force = true }, "created ff02::1"},
	} {
		if got := block(tt.prefix, tt.edit); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.prefix, got, tt.want)
		}
	}
	if m.IsBlocked("2001:db8:0:5::5") || !m.IsBlocked("2001:db8:0:5::7") {
		t.Error("the whitelisted address in a blocked prefix is not let through, or its neighbour is")
	}
	lifted, err := m.Unblock(t.Context(), netip.MustParsePrefix("2001:db8:0:1::1/128"))
	if err != nil || len(lifted) != 2 {
		t.Errorf("unblocking the address lifted %+v, %v", lifted, err)
	}
	for name, n := range map[string]int{"negative": -1, "too long": 129} {
		if _, err := NewManager(&ManagerConfig{DryRun: true, IPv6Prefix: n}); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fakeKiller notes what it is to end, as slowly as it is told.
type fakeKiller struct {
	mu     sync.Mutex
	calls  []string
	enters chan struct{} // nil: at once
	err    error
}

func (k *fakeKiller) Kill(ctx context.Context, p netip.Prefix, target backend.Target) (int, error) {
	if k.enters != nil {
		select {
		case <-k.enters:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, target.String()+" "+p.String())
	return 2, k.err
}

// Connections end when a block that stops packets has come into force, those
// of who is let through stay.
func TestKiller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKiller{}
		m := on(t, backend.NewMemory(nil), func(c *ManagerConfig) { c.Killer, c.Whitelist = k, []string{"198.51.100.1"} })
		dst := stopped(backend.Reject, time.Hour)
		dst.Target = backend.Destination
		network := stopped(backend.Drop, time.Hour)
		network.Prefix = netip.MustParsePrefix("198.51.100.0/30")
		white := stopped(backend.Drop, time.Hour)
		white.Prefix = netip.MustParsePrefix("198.51.100.1/32")
		for _, req := range []Request{
			limited(time.Hour), logged("", time.Hour), stopped(backend.Drop, time.Hour), // the last one only
			stopped(backend.Drop, time.Minute), stopped(backend.Drop, 2*time.Hour), // nothing new
			dst, network, white,
		} {
			if _, err := m.Block(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		want := "source 192.0.0.1/32, destination 192.0.0.1/32, source 198.51.100.0/32, source 198.51.100.2/31"
		if got := strings.Join(k.calls, ", "); got != want {
			t.Errorf("ended: %s\nwant:  %s", got, want)
		}
		if got := m.Kills(); got != (KillStats{Killed: 8}) {
			t.Errorf("%+v", got)
		}
	})
}

// No block waits for a Killer that hangs; what finds no room is counted, and
// the end of the Manager waits for it only so long.
func TestKillerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKiller{enters: make(chan struct{}), err: errors.New("no such module")}
		var log lockedBuffer
		m := on(t, backend.NewMemory(nil), func(c *ManagerConfig) { c.Killer, c.Logger = k, log.logger() })
		if _, err := m.Block(t.Context(), Request{Prefix: numbered(0)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		reqs := make([]Request, 2*maxBatch)
		for i := range reqs {
			reqs[i] = Request{Prefix: numbered(1 + i)}
		}
		m.BlockAll(t.Context(), reqs)
		if got := m.Kills(); got.Lost != 0 {
			t.Errorf("a long list: %+v", got)
		}
		for i := range killQueue - len(reqs) + 9 {
			m.killing.wish(numbered(i), backend.Destination)
		}
		if got := m.Kills(); got.Lost != 9 || strings.Count(log.String(), "some are left") != 1 {
			t.Errorf("%+v, log %s", got, log.String())
		}
		k.enters <- struct{}{}
		k.enters <- struct{}{}
		synctest.Wait()
		if got := m.Kills(); got.Failed != 2 || strings.Count(log.String(), "no such module") != 1 {
			t.Errorf("%+v, log %s", got, log.String())
		}
		began := time.Now()
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != killPatience {
			t.Errorf("Close took %v", took)
		}
		// The one that hung failed, and those behind it were not tried.
		if got := m.Kills(); got.Failed != 3 || got.Lost != 9+killQueue-2 {
			t.Errorf("at the end: %+v", got)
		}
	})
}
