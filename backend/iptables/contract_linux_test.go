package iptables

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// The whole binary runs in a network namespace of its own, which is the
// guard's host in every test here.
func TestMain(m *testing.M) { nstest.Main(m) }

func variants() []string { return []string{"legacy", "nft"} }

// eachVariant runs a test with both variants of the program.
func eachVariant(t *testing.T, f func(t *testing.T, variant string)) {
	for _, v := range variants() {
		t.Run(v, func(t *testing.T) {
			ownLock(t)
			f(t, v)
		})
	}
}

// ownLock gives the legacy program a lock file of the test's own. The usual
// one is the whole machine's, and whoever holds it has no business with this
// namespace.
func ownLock(t testing.TB) string {
	t.Helper()
	lock := filepath.Join(t.TempDir(), "xtables.lock")
	t.Setenv("XTABLES_LOCKFILE", lock)
	return lock
}

func TestContract(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		backendtest.Run(t, backendtest.Suite{
			New: func(t testing.TB) backend.Backend {
				b, _ := newBackend(t, Config{Variant: v})
				return b
			},
			Packets:    newProber,
			Persistent: true,
			Snapshot:   func(t testing.TB) string { return snapshot(t, v) },
		})
	})
}

// newBackend makes a Backend and returns what it logs.
func newBackend(t testing.TB, cfg Config) (*Backend, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b, &log
}

// start makes a Backend that is initialized, and closed at the test's end.
func start(t testing.TB, cfg Config) (*Backend, *bytes.Buffer) {
	t.Helper()
	b, log := newBackend(t, cfg)
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b, log
}

// run runs a program in this process's namespace and returns its standard
// output without the lines in which iptables-nft speaks of the other variant.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	var b strings.Builder
	for l := range strings.Lines(out.String()) {
		if !strings.HasPrefix(l, "# Warning: ") {
			b.WriteString(l)
		}
	}
	return b.String()
}

// iptables runs one of the four programs, e.g. iptables(t, "nft", 4, "-S").
func iptables(t testing.TB, variant string, version int, args ...string) string {
	t.Helper()
	tool := map[int]string{4: "iptables-", 6: "ip6tables-"}[version] + variant
	nstest.Tool(t, tool)
	return run(t, tool, append([]string{"--wait", "5"}, args...)...)
}

// snapshot is what both families' filter tables hold.
func snapshot(t testing.TB, variant string) string {
	t.Helper()
	return fmt.Sprintf("IPv4\n%sIPv6\n%s", iptables(t, variant, 4, "-S"), iptables(t, variant, 6, "-S"))
}
