package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// sameAsKernel reports where the Manager's listing is not what the kernel
// enforces.
func sameAsKernel(t *testing.T, m *Manager, cfg *ManagerConfig) {
	t.Helper()
	held, err := Inspect(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	kernel := map[string]bool{}
	for _, h := range held {
		for _, i := range h.Blocks {
			kernel[line(i, "")] = true
		}
	}
	list := m.GetActiveBlocks()
	for _, i := range list {
		i.CreatedAt = i.CreatedAt.Truncate(time.Millisecond)
		if !kernel[line(i, "")] {
			t.Errorf("the kernel lacks %s", line(i, ""))
		}
	}
	if len(kernel) != len(list) {
		t.Errorf("%d blocks are listed, the kernel has %v", len(list), kernel)
	}
}

// unprivileged runs f on a thread without CAP_NET_ADMIN and CAP_NET_RAW, which
// its programs do not get back either. The thread ends with it.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: nobody else may get it
		if err := dropNet(); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func dropNet() error {
	for _, c := range []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW} {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	const gone = uint32(1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW)
	data[0].Effective &^= gone
	data[0].Permitted &^= gone
	data[0].Inheritable &^= gone
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// TestModelPermission: a call that the kernel does not permit fails clearly,
// and the listing stays what the kernel enforces.
func TestModelPermission(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		cfg.CheckInterval = time.Hour
		m := open(t, cfg)
		for _, err := range []error{
			m.BlockIP("192.0.2.1", &BlockConfig{Duration: time.Hour, RuleName: "r"}),
			m.BlockCIDR("198.51.100.0/24", &BlockConfig{Action: "REJECT"}),
			m.AddToWhitelist("198.51.100.7"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		before, white := listing(m), fmt.Sprint(m.Whitelist())
		calls := []struct {
			name string
			do   func() error
		}{
			{"block", func() error { return m.BlockIP("192.0.2.2", nil) }},
			{"extend", func() error { return m.BlockIP("192.0.2.1", &BlockConfig{}) }},
			{"unblock", func() error { return m.UnblockIP("192.0.2.1") }},
			{"whitelist a blocked address", func() error { return m.AddToWhitelist("192.0.2.1") }},
			{"close a hole", func() error { return m.RemoveFromWhitelist("198.51.100.7") }},
			{"a list", func() error { return m.SetWhitelist("x", []netip.Prefix{netip.MustParsePrefix("198.51.100.8/32")}) }},
			{"flush", m.Flush},
			{"check", func() error { return m.Check(context.Background()) }},
		}
		unprivileged(t, func() {
			for _, c := range calls {
				// What reads the table through the library may fail without an
				// errno to branch on.
				if err := c.do(); err == nil || c.name != "check" && !errors.Is(err, backend.ErrPermission) {
					t.Errorf("%s: %v, want ErrPermission", c.name, err)
				}
				if got := listing(m); got != before {
					t.Errorf("after %s the listing is\n%swas\n%s", c.name, got, before)
				}
			}
		})
		if got := fmt.Sprint(m.Whitelist()); got != white {
			t.Errorf("the whitelist is %s, was %s", got, white)
		}
		sameAsKernel(t, m, cfg)
		if m.IsBlocked("198.51.100.7") || !m.IsBlocked("198.51.100.8") || !m.IsBlocked("192.0.2.1") {
			t.Error("what failed has changed what is blocked")
		}
		for _, c := range calls {
			if err := c.do(); err != nil {
				t.Errorf("with permission, %s: %v", c.name, err)
			}
		}
		sameAsKernel(t, m, cfg)
	})
}

// TestModelCaps: above the caps new blocks are refused, and the listing stays
// what the kernel enforces, whoever filled it.
func TestModelCaps(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		cfg.MaxActiveBlocks, cfg.MaxNewPerMinute = 4, 2
		m := open(t, cfg)
		byRule := func(ip string) error {
			_, err := m.Block(t.Context(), Request{Prefix: parsed(t, ip), Duration: time.Hour, ByRule: true})
			return err
		}
		if err := errors.Join(byRule("192.0.2.1"), byRule("192.0.2.2")); err != nil {
			t.Fatal(err)
		}
		if err := byRule("192.0.2.3"); !errors.Is(err, ErrRefused) {
			t.Errorf("a third of two a minute: %v", err)
		}
		sameAsKernel(t, m, cfg)
		if err := m.BlockIP("192.0.2.3", nil); err != nil {
			t.Fatal(err)
		}
		foreignElement(t, cfg, "192.0.2.4")
		// Either the Manager knows of it by now, or the kernel says no.
		err := m.BlockIP("192.0.2.5", nil)
		if cfg.Backend == BackendNFT && !errors.Is(err, backend.ErrFull) && !errors.Is(err, ErrRefused) {
			t.Errorf("a fifth of four: %v", err)
		}
		if err := m.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.BlockIP("192.0.2.6", nil); !errors.Is(err, ErrRefused) {
			t.Errorf("a sixth of four: %v", err)
		}
		if !m.IsBlocked("192.0.2.4") || m.IsBlocked("192.0.2.6") {
			t.Errorf("listing:\n%s", listing(m))
		}
		sameAsKernel(t, m, cfg)
	})
}

// foreignElement has somebody else block an address, in our table or chain.
func foreignElement(t *testing.T, cfg *ManagerConfig, ip string) {
	t.Helper()
	w := kernelWorld{t: t, cfg: cfg}
	if cfg.Backend == BackendNFT {
		w.run("add element inet NETCAP drop_src4_32 { "+ip+" }", "nft", "-f", "-")
		return
	}
	w.run("", "iptables-"+cfg.IPTablesVariant, "-A", "NETCAP", "-s", ip, "-m", "comment", "--comment", "NETCAP: by hand; @1700000000000", "-j", "DROP")
}

// TestModelLocked: while somebody holds the xtables lock a change fails after
// its patience, and changes nothing.
func TestModelLocked(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		if cfg.IPTablesVariant != "legacy" {
			return // the others have no such lock
		}
		name := filepath.Join(t.TempDir(), "xtables.lock")
		t.Setenv("XTABLES_LOCKFILE", name)
		m := open(t, cfg)
		if err := m.BlockIP("192.0.2.1", nil); err != nil {
			t.Fatal(err)
		}
		lock, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		if err := m.BlockIP("192.0.2.2", nil); !errors.Is(err, backend.ErrLocked) {
			t.Errorf("under lock: %v", err)
		}
		if err := lock.Close(); err != nil {
			t.Fatal(err)
		}
		if m.IsBlocked("192.0.2.2") {
			t.Error("what failed is listed")
		}
		sameAsKernel(t, m, cfg)
		if err := m.BlockIP("192.0.2.2", nil); err != nil {
			t.Error(err)
		}
		sameAsKernel(t, m, cfg)
	})
}

// running are the stacks of goroutines in which the project's own code runs,
// without tests.
func running() []string {
	buf := make([]byte, 1<<20)
	var out []string
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		for _, pkg := range []string{"firewall.(*", "/backend/", "/internal/hostaddr"} {
			if strings.Contains(g, pkg) && !strings.Contains(g, "testing.tRunner") && !strings.Contains(g, "runtime.Stack") {
				out = append(out, g)
				break
			}
		}
	}
	return out
}

func waitRunning(t *testing.T, enough func(n int) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		list := running()
		if enough(len(list)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines run:\n%s", len(list), strings.Join(list, "\n\n"))
		}
	}
}

// TestModelGoroutines: Close and Detach leave no goroutine, whatever had been
// started.
func TestModelGoroutines(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		for name, end := range map[string]func(*Manager) error{"Close": (*Manager).Close, "Detach": (*Manager).Detach} {
			t.Run(name, func(t *testing.T) {
				cfg.Protect = hostaddr.Config{} // follows this host's addresses, too
				m, err := NewManager(cfg)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.BlockIP("192.0.2.1", &BlockConfig{Duration: time.Second}); err != nil {
					t.Fatal(err)
				}
				// The Manager's, the monitor's, that of this host's addresses.
				waitRunning(t, func(n int) bool { return n >= 3 })
				if err := end(m); err != nil {
					t.Fatal(err)
				}
				waitRunning(t, func(n int) bool { return n == 0 })
			})
		}
	})
}
