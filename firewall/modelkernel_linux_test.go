package firewall

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// kernelWorld is what the worlds of real kernels share.
type kernelWorld struct {
	t   *testing.T
	cfg *ManagerConfig
}

func TestModelNFT(t *testing.T) {
	nstest.Tool(t, "nft")
	runModel(t, &nftWorld{kernelWorld{t: t}}, func(c *ManagerConfig) { c.Backend = BackendNFT })
}

func TestModelIPTables(t *testing.T) {
	for _, variant := range []string{"legacy", "nft"} {
		t.Run(variant, func(t *testing.T) {
			nstest.Tool(t, "iptables-"+variant)
			w := &iptablesWorld{kernelWorld: kernelWorld{t: t}, variant: variant}
			runModel(t, w, func(c *ManagerConfig) {
				c.Backend, c.IPTablesVariant = BackendIPTables, variant
				c.CheckInterval = 24 * time.Hour // the test looks by itself
			})
		})
	}
}

func (w *kernelWorld) start(cfg *ManagerConfig) (*Manager, error) {
	w.cfg = cfg
	return NewManager(cfg)
}

// kill lets go of what the kernel takes from a process that dies: goroutines,
// sockets and the lock, but not the lock's file.
func (*kernelWorld) kill(m *Manager) error {
	m.stop()
	<-m.done
	return errors.Join(detach(m.backend), m.lock.file.Close())
}

func (w *kernelWorld) enforced(t *testing.T) []BlockInfo {
	cfg, err := w.cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	var out []BlockInfo
	err = eachBackend(&cfg, func(b backend.Backend) error {
		list, err := b.List(context.Background())
		for _, one := range list {
			out = append(out, (&entry{Block: one}).info())
		}
		if errors.Is(err, backend.ErrGone) {
			err = nil
		}
		return errors.Join(err, detach(b))
	})
	if err != nil {
		t.Errorf("the kernel's list: %v", err)
	}
	return out
}

// run runs a program as somebody else would, with text on its standard input.
func (w *kernelWorld) run(input string, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%v %q: %v: %s", args, input, err, out)
	}
	return string(out)
}

// TestModelSetDeleted: a set that is deleted with all that leads to it is put
// back, also where its only block could have been lifted by an administrator.
func TestModelSetDeleted(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		if cfg.Backend != BackendNFT {
			return // no sets
		}
		m := open(t, cfg)
		if err := m.BlockIP("192.0.2.1", nil); err != nil {
			t.Fatal(err)
		}
		w := kernelWorld{t: t, cfg: cfg}
		w.run("flush chain inet NETCAP source\ndelete set inet NETCAP drop_src4_32\n", "nft", "-f", "-")
		for deadline := time.Now().Add(patience); m.Resyncs() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after %s nothing is put back; statistics %v", patience, m.GetStats())
			}
		}
		if !m.IsBlocked("192.0.2.1") {
			t.Error("the block is lost")
		}
		sameAsKernel(t, m, cfg)
	})
}
