package nstest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestCannot(t *testing.T) {
	for _, tc := range []struct {
		name     string
		required bool
		code     int
		says     string
	}{
		{"required", true, 1, "makes this a failure"},
		{"not required", false, 0, "did NOT run"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := cannot(&out, tc.required, os.ErrPermission); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if !strings.Contains(out.String(), tc.says) || strings.Count(out.String(), "\n") != 1 {
				t.Errorf("says %q, want one line with %q", out.String(), tc.says)
			}
		})
	}
}

func TestOnlyLoopback(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		// Tunnel modules put their fallback devices (sit0, tunl0 ...) into
		// every namespace; none of them is up.
		if i.Flags&net.FlagUp != 0 && i.Name != "lo" {
			t.Errorf("interface %s is up: this is not a fresh namespace", i.Name)
		}
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil || lo.Flags&net.FlagUp == 0 {
		t.Fatalf("lo is not up: %+v, %v", lo, err)
	}
}

func TestChildIsInside(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "readlink", "/proc/self/ns/net").Output()
	if err != nil {
		t.Fatal(err)
	}
	if child := strings.TrimSpace(string(out)); child != own || own == os.Getenv(fromEnv) {
		t.Errorf("child in %s, test in %s, started from %s", child, own, os.Getenv(fromEnv))
	}
}

func TestVerifyRefuses(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, from, says string }{
		{"never left", own, "still in the network namespace"},
		{"forged marker", "1", "names no network namespace"},
		{"empty marker", "", "names no network namespace"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := verify(tc.from); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("verify(%q) = %v, want an error with %q", tc.from, err, tc.says)
			}
		})
	}
	if err := verify(os.Getenv(fromEnv)); err != nil {
		t.Errorf("verify of the true marker: %v", err)
	}
}

func TestTools(t *testing.T) {
	Tool(t, "ip")
	lab := Lab(t)
	ns := NS(t, lab, "a")
	if out := Run(t, ns, "ip", "-o", "link", "show", "up"); !strings.Contains(out, "lo:") {
		t.Errorf("lo is not up in the lab: %q", out)
	}
}
