package iptables

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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

// TestContractElsewhere: the contract waits for packets and ends for most of
// its time. So parts of it run beside all other tests, each in a process and
// thereby in a namespace of its own.
func TestContractElsewhere(t *testing.T) {
	away := []*elsewhere{runElsewhere(t, "legacy", "packets"), runElsewhere(t, "legacy/packets", ""), runElsewhere(t, "nft/packets", "")}
	t.Parallel() // goes on when the others are through
	for _, e := range away {
		t.Run(e.name, e.wait)
	}
}

// TestContract is the whole of the contract where a part of it is asked for by
// name, and else what TestContractElsewhere leaves.
func TestContract(t *testing.T) {
	if pattern := flag.Lookup("test.run").Value.String(); strings.Contains(pattern, "/") {
		eachVariant(t, func(t *testing.T, v string) { contract(t, v, newProber) })
		return
	}
	t.Run("nft", func(t *testing.T) { contract(t, "nft", nil) })
}

func contract(t *testing.T, v string, packets func(testing.TB) backendtest.Prober) {
	backendtest.Run(t, backendtest.Suite{
		New: func(t testing.TB) backend.Backend {
			b, _ := newBackend(t, Config{Variant: v, CheckInterval: 50 * time.Millisecond})
			return b
		},
		Packets:    packets,
		Persistent: true,
		Foreign:    foreign(v),
		Polls:      true,
		Actions:    backend.Actions(),
		Snapshot:   func(t testing.TB) string { return snapshot(t, v) },
	})
}

// elsewhere is a part of TestContract in another process.
type elsewhere struct {
	name string
	out  bytes.Buffer
	done chan error
}

// runElsewhere starts a part of the contract, without one of its groups.
func runElsewhere(t *testing.T, name, without string) *elsewhere {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e := &elsewhere{name: name, done: make(chan error, 1)}
	args := []string{"-test.run=^TestContract$/^" + strings.ReplaceAll(name, "/", "$/^") + "$", "-test.v", "-test.timeout=5m"}
	if without != "" {
		args = append(args, "-test.skip=^TestContract$/^"+name+"$/^"+without+"$")
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Stdout, cmd.Stderr = &e.out, &e.out
	// Without the mark of package nstest the process makes a namespace.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NETCAP_GUARD_TEST_NETNS") })
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { e.done <- cmd.Wait() }()
	return e
}

func (e *elsewhere) wait(t *testing.T) {
	err := <-e.done
	if err != nil || !strings.Contains(e.out.String(), "--- PASS: TestContract/"+e.name+" ") {
		t.Errorf("%v:\n%s", err, e.failures())
	} else if testing.Verbose() {
		t.Log(e.out.String())
	}
}

// failures is the output without what says that something went well.
func (e *elsewhere) failures() string {
	var b strings.Builder
	for l := range strings.Lines(e.out.String()) {
		if s := strings.TrimSpace(l); !strings.HasPrefix(s, "--- PASS") && !strings.HasPrefix(s, "=== ") {
			b.WriteString(l)
		}
	}
	return b.String()
}

// newProber joins this process's namespace, the guard's host, to one of a peer.
func newProber(t testing.TB) backendtest.Prober {
	t.Helper()
	peer := nstest.NS(t, nstest.Lab(t), "peer")
	return backendtest.Veth(t, peer.Name, peer)
}

// versions are the IP versions, as iptables(t, ...) takes them.
func versions() []int { return []int{4, 6} }

// foreign is an administrator, and other programs, at work on our chain.
func foreign(v string) *backendtest.Foreign {
	each := func(commands ...string) func(testing.TB, backend.Backend) {
		return func(t testing.TB, _ backend.Backend) {
			t.Helper()
			for _, version := range versions() {
				for _, c := range commands {
					iptables(t, v, version, strings.Fields(c)...)
				}
			}
		}
	}
	return &backendtest.Foreign{
		Remove: func(t testing.TB, _ backend.Backend, blocks ...backend.Block) {
			t.Helper()
			for _, b := range blocks {
				unblock(t, v, b)
			}
		},
		Empty: func(t testing.TB, _ backend.Backend) {
			t.Helper()
			iptables(t, v, 4, "-F", "NETCAP")
		},
		Damages: []backendtest.Damage{
			{Name: "the page's clean-up", Gone: true, Do: each("-F NETCAP", "-D INPUT -j NETCAP", "-D FORWARD -j NETCAP", "-D OUTPUT -j NETCAP", "-X NETCAP")},
			{Name: "everything flushed", Gone: true, Do: each("-F", "-X")},
			{Name: "one family flushed", Do: func(t testing.TB, _ backend.Backend) {
				iptables(t, v, 6, "-F")
				iptables(t, v, 6, "-X")
			}},
			{Name: "one jump deleted", Do: func(t testing.TB, _ backend.Backend) { iptables(t, v, 4, "-D", "FORWARD", "-j", "NETCAP") }},
			{Name: "all jumps flushed", Do: each("-F INPUT", "-F FORWARD", "-F OUTPUT")},
			{Name: "a rule in front", Do: func(t testing.TB, _ backend.Backend) {
				iptables(t, v, 4, "-I", "FORWARD", "1", "-d", "203.0.113.99", "-j", "ACCEPT")
				t.Cleanup(func() { runLate(t, "iptables-"+v, "-F FORWARD") })
			}},
			{Name: "a jump twice", Do: each("-A INPUT -j NETCAP")},
			{Name: "neighbour discovery deleted", Do: func(t testing.TB, _ backend.Backend) { iptables(t, v, 6, "-D", "NETCAP", "3") }},
			{Name: "a rule before neighbour discovery", Do: func(t testing.TB, _ backend.Backend) {
				iptables(t, v, 6, "-I", "NETCAP", "1", "-s", "2001:db8:99::1", "-j", "RETURN")
			}},
		},
	}
}

// unblock deletes the rules of a block, last first, as a person would who reads
// the listing.
func unblock(t testing.TB, v string, b backend.Block) {
	t.Helper()
	version := versions()[familyOf(b.Prefix.Addr())]
	addr, _ := side(b.Target)
	rules := strings.Split(iptables(t, v, version, "-S", "NETCAP"), "\n")
	found := 0
	for i := len(rules) - 1; i > 0; i-- {
		if strings.Contains(rules[i], addr+" "+b.Prefix.String()+" ") {
			iptables(t, v, version, "-D", "NETCAP", strconv.Itoa(i))
			found++
		}
	}
	if found == 0 {
		t.Fatalf("%s is not in the chain:\n%s", b, strings.Join(rules, "\n"))
	}
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
