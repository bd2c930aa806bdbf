package netns

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// binaryEnv carries the built guard's path into the second run of this test
// binary, which is the one inside the namespace.
const binaryEnv = "NETCAP_GUARD_TEST_BINARY"

func TestMain(m *testing.M) {
	if !nstest.Inside() && os.Geteuid() == 0 {
		if err := build(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	// The tests wait much and compute little: more at once than processors.
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	nstest.Main(m, func() {
		if bin := os.Getenv(binaryEnv); bin != "" {
			_ = os.RemoveAll(filepath.Dir(bin)) // a temporary folder: the tests' verdict stands
		}
	})
}

// build builds the guard once, outside the namespace, where a module that is
// not in the cache yet can still be fetched.
func build() error {
	dir, err := os.MkdirTemp("", "netcap-guard-integration-")
	if err != nil {
		return fmt.Errorf("make a folder for the binary: %w", err)
	}
	// Others may read it: one test runs it as nobody.
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("open the folder for the binary: %w", err)
	}
	bin := filepath.Join(dir, "netcap-guard")
	cmd := exec.Command("go", "build", "-o", bin, "../../cmd/netcap-guard")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guard: %w\n%s", err, out)
	}
	return os.Setenv(binaryEnv, bin)
}

func guardBinary() string { return os.Getenv(binaryEnv) }
