package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// onKernel runs f for every real backend, in the namespace this process has
// to itself.
func onKernel(t *testing.T, f func(t *testing.T, cfg *ManagerConfig)) {
	for _, tt := range []struct{ name, backend, variant, tool string }{
		{"nft", BackendNFT, "", "nft"},
		{"iptables-legacy", BackendIPTables, "legacy", "iptables-legacy"},
		{"iptables-nft", BackendIPTables, "nft", "iptables-nft"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nstest.Tool(t, tt.tool)
			cfg := DefaultManagerConfig()
			cfg.Backend, cfg.IPTablesVariant = tt.backend, tt.variant
			cfg.Protect = hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true}
			t.Cleanup(func() {
				if err := Cleanup(context.Background(), cfg); err != nil {
					t.Error(err)
				}
			})
			f(t, cfg)
		})
	}
}

func open(t *testing.T, cfg *ManagerConfig) *Manager {
	t.Helper()
	m, err := NewManager(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Detach(); err != nil {
			t.Error(err)
		}
		checkBalance(t, m)
	})
	return m
}

// inspected is what the kernel enforces, seen without a Manager.
func inspected(t *testing.T, cfg *ManagerConfig) string {
	t.Helper()
	held, err := Inspect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, h := range held {
		for _, i := range h.Blocks {
			lines = append(lines, fmt.Sprintf("%s %s %s %s %q %s\n", i.Action, i.Target, i.IP, i.RuleName, i.Reason, i.Origin))
		}
	}
	slices.Sort(lines) // several were created within one millisecond
	return strings.Join(lines, "")
}

func TestManagerOnTheKernel(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		if got := inspected(t, cfg); got != "" {
			t.Fatalf("the kernel holds\n%s", got)
		}
		m := open(t, cfg)
		if _, err := NewManager(cfg); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("chain NETCAP is in use by process %d", os.Getpid())) {
			t.Fatalf("a second manager of the chain: %v", err)
		}
		for _, err := range []error{
			m.BlockIP("192.0.2.1", &BlockConfig{Duration: time.Hour, RuleName: "Block SSH", Reason: "10 in 5m0s"}),
			m.BlockIP("2001:db8::1", &BlockConfig{Target: "destination", Action: "REJECT", RuleName: "r"}),
			m.BlockCIDR("198.51.100.0/24", &BlockConfig{Duration: time.Hour}),
			m.AddToWhitelist("198.51.100.7"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		want := "DROP source 192.0.2.1 Block SSH \"10 in 5m0s\" kernel\nDROP source 198.51.100.0/24  \"\" kernel\nREJECT destination 2001:db8::1 r \"\" kernel\n"
		if got := inspected(t, cfg); got != want {
			t.Errorf("the kernel holds\n%swant\n%s", got, want)
		}
		if err := m.Detach(); err != nil {
			t.Fatal(err)
		}
		adoptAgain(t, cfg, want)
	})
}

// adoptAgain starts on what an earlier Manager left, and ends it all.
func adoptAgain(t *testing.T, cfg *ManagerConfig, want string) {
	t.Helper()
	cfg.Whitelist = append(cfg.Whitelist, "192.0.2.0/24") // the first block is whitelisted meanwhile
	m := open(t, cfg)
	if m.Adopted() != 2 || m.IsBlocked("192.0.2.1") || !m.IsBlocked("2001:db8::1") || !m.IsBlocked("198.51.100.8") {
		t.Errorf("adopted %d:\n%s", m.Adopted(), listing(m))
	}
	_, rest, _ := strings.Cut(want, "\n")
	if got := inspected(t, cfg); got != rest {
		t.Errorf("the kernel holds\n%swant\n%s", got, rest)
	}
	lifted, err := m.Unblock(t.Context(), netip.MustParsePrefix("2001:db8::1/128"))
	if err != nil || len(lifted) != 1 || lifted[0].Origin != OriginAdopted {
		t.Errorf("unblocking an adopted block: %+v, %v", lifted, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if got := rulesets(t, cfg); strings.Contains(got, "NETCAP") {
		t.Errorf("after Close something is left:\n%s", got)
	}
}

// rulesets is everything the tool of the backend shows.
func rulesets(t *testing.T, cfg *ManagerConfig) string {
	t.Helper()
	commands := [][]string{{"nft", "list", "ruleset"}}
	if cfg.Backend == BackendIPTables {
		commands = [][]string{{"iptables-" + cfg.IPTablesVariant, "-S"}, {"ip6tables-" + cfg.IPTablesVariant, "-S"}}
	}
	var b strings.Builder
	for _, c := range commands {
		out, err := exec.CommandContext(t.Context(), c[0], c[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
		b.Write(out)
	}
	return b.String()
}

func TestCleanupWithoutManager(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		m := open(t, cfg)
		if err := m.BlockIP("192.0.2.1", nil); err != nil {
			t.Fatal(err)
		}
		if err := m.Detach(); err != nil {
			t.Fatal(err)
		}
		if got := rulesets(t, cfg); !strings.Contains(got, "192.0.2.1") {
			t.Fatalf("Detach took the block away:\n%s", got)
		}
		for range 2 {
			if err := Cleanup(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
		if got := rulesets(t, cfg); strings.Contains(got, "NETCAP") {
			t.Errorf("Cleanup left\n%s", got)
		}
	})
}

// A block leaves the kernel's listing when its time has come, the tool's
// listing included, without anybody asking.
func TestExpiryOnTheKernel(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		over := make(chan Event, 1)
		cfg.OnEvent = func(e Event) { over <- e }
		m := open(t, cfg)
		if err := m.BlockIP("192.0.2.1", &BlockConfig{Duration: time.Second}); err != nil {
			t.Fatal(err)
		}
		select {
		case e := <-over:
			if e.Kind != Expired || e.Block.IP != "192.0.2.1" {
				t.Errorf("event %+v", e)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the block never ends")
		}
		if got := rulesets(t, cfg); strings.Contains(got, "192.0.2.1") {
			t.Errorf("the kernel still lists it:\n%s", got)
		}
	})
}

// What the kernel does not accept is not in the listing either.
func TestKernelFailureChangesNothing(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		m := open(t, cfg)
		if err := m.BlockIP("192.0.2.1", nil); err != nil {
			t.Fatal(err)
		}
		before := listing(m)
		m.kernel.Lock()
		cerr := m.backend.Close(t.Context()) // it all goes under the Manager's feet
		m.kernel.Unlock()
		if cerr != nil {
			t.Fatal(cerr)
		}
		err := m.BlockIP("192.0.2.2", nil)
		if !errors.Is(err, backend.ErrClosed) {
			t.Errorf("error %v", err)
		}
		if got := listing(m); got != before {
			t.Errorf("listing\n%swas\n%s", got, before)
		}
		// The monitor may have noticed as well, and counts for itself.
		if got := m.GetStats()["errors"]; got < 1 {
			t.Errorf("errors = %d", got)
		}
	})
}
