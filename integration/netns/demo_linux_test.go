package netns

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

// demo starts `netcap-guard demo` and returns it with its process id.
func demo(t *testing.T, backend string) (*netlab.Process, int) {
	t.Helper()
	newFlavour(t, "nft") // for its check of the tools
	cmd := exec.CommandContext(t.Context(), guardBinary(), "demo", "--backend="+backend)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	p, err := netlab.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		for _, l := range p.Lines() {
			t.Log(l.Text)
		}
		for _, kind := range [][2]string{{"working folder", cmd.Dir}, {"temporary folder", cmd.Env[len(cmd.Env)-1][len("TMPDIR="):]}} {
			if left, err := os.ReadDir(kind[1]); err != nil || len(left) > 0 {
				t.Errorf("left in the %s: %v, %v", kind[0], left, err)
			}
		}
	})
	return p, cmd.Process.Pid
}

// mustLeaveNoNamespace checks that the demo's namespaces are gone.
func mustLeaveNoNamespace(t *testing.T, pid int) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ip", "netns", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "ng-"+strconv.Itoa(pid)+"-") {
		t.Errorf("the demo left namespaces:\n%s", out)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nft", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			p, pid := demo(t, backend)
			if err := p.Wait(t.Context()); err != nil {
				t.Errorf("demo: %v", err)
			}
			mustLeaveNoNamespace(t, pid)
			lines := p.Lines()
			if last := lines[len(lines)-1]; last.Stderr || !strings.Contains(last.Text, "PASS "+backend) {
				t.Errorf("the last line is %q, want the verdict", last.Text)
			}
		})
	}
}

// TestInterruptedDemo: Ctrl-C in the middle removes everything too.
func TestInterruptedDemo(t *testing.T) {
	t.Parallel()
	p, pid := demo(t, "nft")
	if _, err := p.Await(t.Context(), func(l netlab.Line) bool { return strings.Contains(l.Text, "ALERT") }); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(t.Context()); err == nil {
		t.Error("an interrupted demo ends with exit code 0")
	}
	mustLeaveNoNamespace(t, pid)
}
