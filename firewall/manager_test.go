package firewall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// dry makes a Manager on the in-memory backend that protects nothing of the
// machine the test runs on but the special prefixes.
func dry(t *testing.T, edit func(*ManagerConfig)) *Manager {
	t.Helper()
	cfg := DefaultManagerConfig()
	cfg.DryRun = true
	cfg.Protect = hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true}
	if edit != nil {
		edit(cfg)
	}
	m, err := NewManager(cfg)
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

// checkBalance holds the law of behaviour.md: created + adopted = active +
// removed + expired.
func checkBalance(t *testing.T, m *Manager) {
	t.Helper()
	s := m.GetStats()
	if s["blocks_created"]+m.Adopted() != s["active_blocks"]+s["blocks_removed"]+s["blocks_expired"] {
		t.Errorf("statistics do not balance: %v, adopted %d", s, m.Adopted())
	}
}

func listing(m *Manager) string {
	var b strings.Builder
	for _, i := range m.GetActiveBlocks() {
		life := "permanent"
		if !i.ExpiresAt.IsZero() {
			life = i.ExpiresAt.Sub(i.CreatedAt).String()
		}
		fmt.Fprintf(&b, "%s %s %s %s %s\n", i.Action, i.Target, i.IP, life, i.RuleName)
	}
	return b.String()
}

func stats(m *Manager, keys ...string) string {
	s := m.GetStats()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if (len(keys) == 0 || slices.Contains(keys, k)) && s[k] != 0 {
			out = append(out, fmt.Sprintf("%s=%d", k, s[k]))
		}
	}
	return strings.Join(out, " ")
}

// Each case is a run of calls from the same start; the listing and the
// statistics afterwards are the expectation.
func TestManagerTransitions(t *testing.T) {
	hour := &BlockConfig{Duration: time.Hour, RuleName: "r"}
	for _, tt := range []struct {
		name  string
		do    func(m *Manager) error
		list  string
		stats string
	}{
		{"nil config blocks the source for the default duration",
			func(m *Manager) error { return m.BlockIP("192.0.2.1", nil) },
			"DROP source 192.0.2.1 30m0s \n", "active_blocks=1 blocks_created=1"},
		{"duration 0 is permanent",
			func(m *Manager) error { return m.BlockIP("192.0.2.1", &BlockConfig{}) },
			"DROP source 192.0.2.1 permanent \n", "active_blocks=1 blocks_created=1"},
		{"reject of a destination",
			func(m *Manager) error {
				return m.BlockIP("2001:db8::1", &BlockConfig{Target: "dst", Action: "REJECT", Duration: time.Minute})
			},
			"REJECT destination 2001:db8::1 1m0s \n", "active_blocks=1 blocks_created=1"},
		{"an IPv4-mapped address is the IPv4 address",
			func(m *Manager) error {
				return errors.Join(m.BlockIP("::ffff:192.0.2.1", hour), m.BlockIP("192.0.2.1", hour))
			},
			"DROP source 192.0.2.1 1h0m0s r\n", "active_blocks=1 blocks_created=1 duplicates_skip=1"},
		{"host bits of a CIDR are masked",
			func(m *Manager) error { return m.BlockCIDR("198.51.100.77/24", hour) },
			"DROP source 198.51.100.0/24 1h0m0s r\n", "active_blocks=1 blocks_created=1"},
		{"a shorter duplicate changes nothing",
			func(m *Manager) error {
				return errors.Join(m.BlockIP("192.0.2.1", hour), m.BlockIP("192.0.2.1", &BlockConfig{Duration: time.Minute}))
			},
			"DROP source 192.0.2.1 1h0m0s r\n", "active_blocks=1 blocks_created=1 duplicates_skip=1"},
		{"a longer duplicate extends",
			func(m *Manager) error {
				return errors.Join(m.BlockIP("192.0.2.1", hour), m.BlockIP("192.0.2.1", &BlockConfig{Duration: 2 * time.Hour, RuleName: "s"}))
			},
			"DROP source 192.0.2.1 2h0m0s s\n", "active_blocks=1 blocks_created=1 duplicates_skip=1"},
		{"a permanent duplicate extends for ever, a timed one does not shorten it",
			func(m *Manager) error {
				return errors.Join(m.BlockIP("192.0.2.1", hour), m.BlockIP("192.0.2.1", &BlockConfig{}), m.BlockIP("192.0.2.1", hour))
			},
			"DROP source 192.0.2.1 permanent \n", "active_blocks=1 blocks_created=1 duplicates_skip=2"},
		{"of equal strength the first stays",
			func(m *Manager) error {
				return errors.Join(m.BlockIP("192.0.2.1", hour), m.BlockIP("192.0.2.1", &BlockConfig{Action: "reject", Duration: time.Hour}))
			},
			"DROP source 192.0.2.1 1h0m0s r\n", "active_blocks=1 blocks_created=1 duplicates_skip=1"},
		{"the two targets of one address are two blocks, unblock lifts both",
			func(m *Manager) error {
				return errors.Join(m.BlockIP("192.0.2.1", hour), m.BlockIP("192.0.2.1", &BlockConfig{Target: "destination"}), m.UnblockIP("192.0.2.1"))
			},
			"", "blocks_created=2 blocks_removed=2"},
		{"unblock of a host leaves the network around it",
			func(m *Manager) error {
				return errors.Join(m.BlockCIDR("192.0.2.0/24", hour), m.BlockIP("192.0.2.1", hour), m.UnblockIP("192.0.2.1"))
			},
			"DROP source 192.0.2.0/24 1h0m0s r\n", "active_blocks=1 blocks_created=2 blocks_removed=1"},
		{"unblock of what is not blocked is nil and counts nothing",
			func(m *Manager) error { return errors.Join(m.UnblockIP("192.0.2.1"), m.UnblockCIDR("192.0.2.0/24")) },
			"", ""},
		{"whitelisted and protected addresses are skipped",
			func(m *Manager) error {
				return errors.Join(m.AddToWhitelist("203.0.113.0/24"), m.BlockIP("203.0.113.9", hour), m.BlockIP("127.0.0.1", hour), m.BlockIP("224.0.0.1", hour))
			},
			"", "whitelist_skip=3"},
		{"a CIDR that two whitelist entries cover together is skipped",
			func(m *Manager) error {
				return errors.Join(m.AddToWhitelist("203.0.113.0/25"), m.AddToWhitelist("203.0.113.128/25"), m.BlockCIDR("203.0.113.0/24", hour))
			},
			"", "whitelist_skip=1"},
		{"AddToWhitelist lifts what it covers, a larger block stays",
			func(m *Manager) error {
				return errors.Join(m.BlockIP("203.0.113.9", hour), m.BlockCIDR("203.0.112.0/20", hour), m.AddToWhitelist("203.0.113.0/24"))
			},
			"DROP source 203.0.112.0/20 1h0m0s r\n", "active_blocks=1 blocks_created=2 blocks_removed=1"},
		{"RemoveFromWhitelist ends the exemption",
			func(m *Manager) error {
				return errors.Join(m.AddToWhitelist("203.0.113.9"), m.RemoveFromWhitelist("203.0.113.9"), m.BlockIP("203.0.113.9", hour))
			},
			"DROP source 203.0.113.9 1h0m0s r\n", "active_blocks=1 blocks_created=1"},
		{"flush lifts all",
			func(m *Manager) error {
				return errors.Join(m.BlockIP("192.0.2.1", hour), m.BlockCIDR("2001:db8::/32", hour), m.Flush())
			},
			"", "blocks_created=2 blocks_removed=2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the clock stands still between calls
				m := dry(t, nil)
				if err := tt.do(m); err != nil {
					t.Fatal(err)
				}
				if got := listing(m); got != tt.list {
					t.Errorf("listing:\n%swant:\n%s", got, tt.list)
				}
				if got := stats(m); got != tt.stats {
					t.Errorf("statistics %q, want %q", got, tt.stats)
				}
				checkBalance(t, m)
			})
		})
	}
}

func TestBadInput(t *testing.T) {
	m := dry(t, nil)
	for _, tt := range []struct {
		name string
		do   func() error
	}{
		{"not an address", func() error { return m.BlockIP("nonsense", nil) }},
		{"a CIDR as an address", func() error { return m.BlockIP("192.0.2.0/24", nil) }},
		{"an address as a CIDR", func() error { return m.BlockCIDR("192.0.2.1", nil) }},
		{"a zone", func() error { return m.BlockIP("fe80::1%eth0", nil) }},
		{"prefix length out of range", func() error { return m.BlockCIDR("192.0.2.0/33", nil) }},
		{"everybody", func() error { return m.BlockCIDR("0.0.0.0/0", nil) }},
		{"a mapped prefix wider than IPv4", func() error { return m.BlockCIDR("::ffff:0:0/90", nil) }},
		{"negative duration", func() error { return m.BlockIP("192.0.2.1", &BlockConfig{Duration: -1}) }},
		{"unknown target", func() error { return m.BlockIP("192.0.2.1", &BlockConfig{Target: "left"}) }},
		{"unknown action", func() error { return m.BlockIP("192.0.2.1", &BlockConfig{Action: "explode"}) }},
		{"unblock nonsense", func() error { return m.UnblockIP("nonsense") }},
		{"whitelist nonsense", func() error { return m.AddToWhitelist("nonsense") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := m.GetStats()["errors"]
			if err := tt.do(); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("error %v, want ErrInvalid", err)
			}
			if after := m.GetStats()["errors"]; after != before+1 {
				t.Errorf("errors went from %d to %d", before, after)
			}
		})
	}
	if got := listing(m); got != "" {
		t.Errorf("bad input left blocks:\n%s", got)
	}
	if err := m.RemoveFromWhitelist("192.0.2.1"); !errors.Is(err, ErrNotWhitelisted) {
		t.Errorf("removing what is no entry: %v", err)
	}
}

func TestIsBlocked(t *testing.T) {
	m := dry(t, func(c *ManagerConfig) { c.Whitelist = []string{"198.51.100.7"} })
	for _, err := range []error{
		m.BlockCIDR("198.51.100.0/24", nil),
		m.BlockCIDR("2001:db8::/32", &BlockConfig{Target: "destination"}),
		m.BlockIP("192.0.2.1", nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for ip, want := range map[string]bool{
		"192.0.2.1": true, "::ffff:192.0.2.1": true, "192.0.2.2": false,
		"198.51.100.0": true, "198.51.100.255": true, "198.51.101.0": false,
		"198.51.100.7":   false, // a hole
		"2001:db8::1234": true, "2001:db9::": false, "nonsense": false, "198.51.100.0/24": false,
	} {
		if got := m.IsBlocked(ip); got != want {
			t.Errorf("IsBlocked(%s) = %v", ip, got)
		}
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []Event
		m := dry(t, func(c *ManagerConfig) { c.OnEvent = func(e Event) { events = append(events, e) } })
		for ip, d := range map[string]time.Duration{"192.0.2.1": time.Second, "192.0.2.2": 10 * time.Minute, "192.0.2.3": 0} {
			if err := m.BlockIP(ip, &BlockConfig{Duration: d}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second - time.Nanosecond)
		if !m.IsBlocked("192.0.2.1") {
			t.Error("the block ended early")
		}
		time.Sleep(time.Nanosecond)
		if m.IsBlocked("192.0.2.1") {
			t.Error("the block lives on past its end")
		}
		synctest.Wait()
		if got := stats(m); got != "active_blocks=2 blocks_created=3 blocks_expired=1" {
			t.Errorf("statistics %q", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := stats(m); got != "active_blocks=1 blocks_created=3 blocks_expired=2" {
			t.Errorf("statistics %q", got)
		}
		if len(events) != 2 || events[0].Kind != Expired || events[0].Block.IP != "192.0.2.1" {
			t.Errorf("events %+v", events)
		}
	})
}

// A replay's Manager lives on packet time: hours of a capture pass in a
// moment, and blocks end in between.
func TestPacketTime(t *testing.T) {
	m := dry(t, func(c *ManagerConfig) { c.PacketTime = true })
	t0 := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	block := func(ip string, at time.Time) Outcome {
		t.Helper()
		res, err := m.Block(context.Background(), Request{Prefix: backend.Host(netip.MustParseAddr(ip)), Duration: time.Hour, At: at})
		if err != nil {
			t.Fatal(err)
		}
		return res.Outcome
	}
	for _, tt := range []struct {
		ip   string
		at   time.Time
		want Outcome
	}{
		{"192.0.2.1", t0, Created},
		{"192.0.2.1", t0, Duplicate},
		{"192.0.2.1", t0.Add(time.Minute), Extended},
		{"192.0.2.2", t0.Add(time.Second), Created}, // time goes backwards: the newest holds
		{"192.0.2.1", t0.Add(62 * time.Minute), Created},
	} {
		if got := block(tt.ip, tt.at); got != tt.want {
			t.Errorf("%s at %v: %v, want %v", tt.ip, tt.at.Sub(t0), got, tt.want)
		}
	}
	m.Advance(t0.Add(24 * time.Hour))
	if got := stats(m); got != "blocks_created=3 blocks_expired=3 duplicates_skip=2" {
		t.Errorf("statistics %q", got)
	}
}

// TestExtensionKeepsItsReason: who asks for longer without saying why does not
// erase why.
func TestExtensionKeepsItsReason(t *testing.T) {
	m := dry(t, func(*ManagerConfig) {})
	for i, tt := range []struct{ reason, want string }{{"asked for it", "asked for it"}, {"", "asked for it"}, {"again", "again"}} {
		req := Request{Prefix: backend.Host(netip.MustParseAddr("192.0.2.1")), Duration: time.Duration(i+1) * time.Hour, Reason: tt.reason}
		if res, err := m.Block(t.Context(), req); err != nil || res.Block.Reason != tt.want || (i > 0) != (res.Outcome == Extended) {
			t.Errorf("reason %q: %v, %+v, want %q", tt.reason, err, res, tt.want)
		}
	}
}

func TestCaps(t *testing.T) {
	m := dry(t, func(c *ManagerConfig) { c.MaxActiveBlocks, c.MaxNewPerMinute = 3, 1 })
	req := func(ip string, byRule bool) error {
		_, err := m.Block(context.Background(), Request{Prefix: backend.Host(netip.MustParseAddr(ip)), Duration: time.Hour, ByRule: byRule})
		return err
	}
	if err := req("192.0.2.1", true); err != nil {
		t.Fatal(err)
	}
	if err := req("192.0.2.2", true); !errors.Is(err, ErrRefused) {
		t.Errorf("the breaker let a second block of a rule pass: %v", err)
	}
	for _, ip := range []string{"192.0.2.2", "192.0.2.3"} {
		if err := req(ip, false); err != nil {
			t.Errorf("a manual block is exempt from the breaker: %v", err)
		}
	}
	if err := req("192.0.2.4", false); !errors.Is(err, ErrRefused) {
		t.Errorf("a fourth of three blocks: %v", err)
	}
	if err := req("192.0.2.3", false); err != nil {
		t.Errorf("extending a block when full: %v", err)
	}
	if m.Refused() != 2 {
		t.Errorf("refused = %d, want 2", m.Refused())
	}
}

// However many packets are only logged, by rules or by hand, and however many
// log rules there are: blocks have bounds of their own, and log rules have, too.
func TestCapsOfLogs(t *testing.T) {
	m := dry(t, func(c *ManagerConfig) { c.MaxActiveBlocks, c.MaxNewPerMinute = 40, 3 })
	ask := func(n int, a backend.Action, byRule bool, want Outcome) {
		t.Helper()
		res, err := m.Block(t.Context(), Request{Prefix: numbered(n), Action: a, Duration: time.Hour, ByRule: byRule})
		if res.Outcome != want {
			t.Errorf("%s %d, by rule %t: %s, %v, want %s", a, n, byRule, res.Outcome, err, want)
		}
	}
	for n := range 3 {
		ask(n, backend.Log, true, Created)
	}
	ask(3, backend.Log, true, Refused) // the breaker
	ask(3, backend.Drop, true, Created)
	reqs := make([]Request, 20) // together
	for i := range reqs {
		reqs[i] = Request{Prefix: numbered(100 + i), Action: backend.Log}
		if i%2 == 1 {
			reqs[i].Action = backend.Drop
		}
	}
	outcomes := map[string]int{}
	for i, res := range m.BlockAll(t.Context(), reqs) {
		outcomes[fmt.Sprint(reqs[i].Action, " ", res.Outcome)]++
	}
	if want := map[string]int{"LOG created": 7, "LOG refused": 3, "DROP created": 10}; !maps.Equal(outcomes, want) {
		t.Errorf("%v, want %v", outcomes, want)
	}
	ask(200, backend.Log, false, Refused) // a quarter of 40 is there
	ask(200, backend.Drop, true, Created)
	ask(201, backend.Drop, true, Created)
	ask(202, backend.Drop, true, Refused) // the breaker of blocks
	for n := range 27 {
		ask(300+n, backend.Drop, false, Created)
	}
	ask(400, backend.Drop, false, Refused) // 40 blocks beside 10 log rules
	if got := stats(m); got != "active_blocks=50 blocks_created=50 errors=7" {
		t.Errorf("statistics %q", got)
	}
}

// The in-memory backend says what the kernel would do with a packet.
func TestForceAndHoles(t *testing.T) {
	m := dry(t, func(c *ManagerConfig) { c.Whitelist = []string{"198.51.100.7"} })
	mem, ok := m.backend.(*backend.Memory)
	if !ok {
		t.Fatalf("backend is %T", m.backend)
	}
	peer := netip.MustParseAddr("203.0.113.1")
	passes := func(src string) bool { return mem.Passes(netip.MustParseAddr(src), peer) }
	if err := m.BlockCIDR("198.51.100.0/24", nil); err != nil {
		t.Fatal(err)
	}
	if !passes("198.51.100.7") || passes("198.51.100.8") {
		t.Error("the whitelisted host inside a blocked network is not let through, or its neighbour is")
	}
	force := func(f bool) Outcome {
		t.Helper()
		res, err := m.Block(context.Background(), Request{Prefix: netip.MustParsePrefix("127.0.0.5/32"), Duration: time.Hour, Force: f})
		if err != nil {
			t.Fatal(err)
		}
		return res.Outcome
	}
	if got := force(false); got != Whitelisted || !passes("127.0.0.5") {
		t.Errorf("a protected address: %v", got)
	}
	if got := force(true); got != Created || passes("127.0.0.5") || !m.IsBlocked("127.0.0.5") {
		t.Errorf("a forced block of a protected address: %v, passes %v", got, passes("127.0.0.5"))
	}
	if err := m.UnblockIP("127.0.0.5"); err != nil || !passes("127.0.0.5") {
		t.Errorf("unblocking a forced block: %v", err)
	}
	if !slices.Contains(mem.Allowed(), netip.MustParsePrefix("127.0.0.0/8")) {
		t.Error("the protection that was pierced did not come back")
	}
}

func TestClosed(t *testing.T) {
	m := dry(t, nil)
	if err := m.BlockIP("192.0.2.1", nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Fatalf("Close is not idempotent: %v", err)
	}
	for name, err := range map[string]error{
		"BlockIP": m.BlockIP("192.0.2.1", nil), "BlockCIDR": m.BlockCIDR("192.0.2.0/24", nil),
		"UnblockIP": m.UnblockIP("192.0.2.1"), "Flush": m.Flush(), "AddToWhitelist": m.AddToWhitelist("192.0.2.9"),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	if got := stats(m, "active_blocks", "blocks_removed"); got != "blocks_removed=1" {
		t.Errorf("Close counts %q", got)
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*ManagerConfig)
		ok   bool
	}{
		{"zero values take the defaults", func(c *ManagerConfig) { *c = ManagerConfig{DryRun: true} }, true},
		{"chain of 28 characters", func(c *ManagerConfig) { c.ChainName = strings.Repeat("A", 28) }, true},
		{"chain of 29 characters", func(c *ManagerConfig) { c.ChainName = strings.Repeat("A", 29) }, false},
		{"built-in chain", func(c *ManagerConfig) { c.ChainName = "INPUT" }, false},
		{"chain with a space", func(c *ManagerConfig) { c.ChainName = "A B" }, false},
		{"chain that reads as a flag", func(c *ManagerConfig) { c.ChainName = "-F" }, false},
		{"unknown backend", func(c *ManagerConfig) { c.Backend = "pf" }, false},
		{"negative duration", func(c *ManagerConfig) { c.DefaultDuration = -1 }, false},
		{"broken whitelist", func(c *ManagerConfig) { c.Whitelist = []string{"192.0.2.300"} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultManagerConfig()
			cfg.DryRun = true
			tt.edit(cfg)
			m, err := NewManager(cfg)
			if (err == nil) != tt.ok {
				t.Fatalf("error %v", err)
			}
			if err == nil {
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("error %v, want ErrInvalid", err)
			}
		})
	}
}

// TestClockStep: the wall clock is set while a block is active. The block
// lives on for its elapsed time, and a kernel that goes by the wall clock is
// told the new end, once for each step.
func TestClockStep(t *testing.T) {
	m := dry(t, nil)
	b := &wallClockBackend{Backend: m.backend}
	step := time.Duration(0)
	m.kernel.Lock()
	m.backend = b
	m.wallOffset = func(_, _ time.Time) time.Duration { return step }
	m.kernel.Unlock()
	for ip, d := range map[string]time.Duration{"192.0.2.1": time.Hour, "192.0.2.2": 0} {
		if err := m.BlockIP(ip, &BlockConfig{Duration: d}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		step time.Duration
		want int // blocks rewritten
	}{{0, 0}, {time.Second / 2, 0}, {time.Hour, 1}, {time.Hour, 0}, {-time.Hour, 1}} {
		b.rewritten, step = 0, tt.step
		m.followClock(t.Context())
		if b.rewritten != tt.want {
			t.Errorf("clock at %v: %d blocks rewritten, want %d", tt.step, b.rewritten, tt.want)
		}
	}
	timed := slices.DeleteFunc(m.GetActiveBlocks(), func(b BlockInfo) bool { return b.ExpiresAt.IsZero() })
	if len(timed) != 1 {
		t.Fatalf("timed blocks %+v", timed)
	}
	left := time.Until(timed[0].ExpiresAt)
	if left <= 59*time.Minute || left > time.Hour {
		t.Errorf("the block has %v left, want an hour less the test's time", left)
	}
}

func TestWallOffset(t *testing.T) {
	start := time.Now()
	if got := wallOffset(start, start.Add(time.Hour)); got != 0 {
		t.Errorf("an hour that passed on both clocks: %v", got)
	}
	// Without a monotonic reading only the wall counts, and nothing can differ.
	if got := wallOffset(start.Round(0), start.Round(0).Add(time.Hour)); got != 0 {
		t.Errorf("an injected clock: %v", got)
	}
}

// wallClockBackend ends blocks by the wall clock, as iptables does.
type wallClockBackend struct {
	backend.Backend
	rewritten int
}

func (*wallClockBackend) EndsOnWallClock() bool { return true }

func (b *wallClockBackend) Apply(ctx context.Context, c backend.Change) error {
	b.rewritten = len(c.Add)
	return b.Backend.Apply(ctx, c)
}
