package nft_test

import (
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestContract(t *testing.T) {
	nstest.Tool(t, "nft")
	backendtest.Run(t, backendtest.Suite{
		New: func(t testing.TB) backend.Backend { return open(t, nft.Config{Counters: true}) },
		NewFull: func(t testing.TB, n int) backend.Backend {
			return open(t, nft.Config{SetSize: uint32(n)})
		},
		Packets: func(t testing.TB) backendtest.Prober {
			peer := nstest.NS(t, nstest.Lab(t), "peer")
			return backendtest.Veth(t, peer.Name, peer)
		},
		Persistent: true,
		Snapshot:   ruleset,
	})
}

func open(t testing.TB, c nft.Config) *nft.Backend {
	t.Helper()
	b, err := nft.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// start makes a backend with a table, removed at the test's end.
func start(t testing.TB, c nft.Config) *nft.Backend {
	t.Helper()
	b := open(t, c)
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// run runs the nft program in this process's namespace.
func run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// load feeds text to nft -f.
func load(t testing.TB, text string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft -f: %v\n%s\n%s", err, out, text)
	}
}

// volatile is what changes in a listing by itself.
func mask(listing string) string {
	for _, m := range [][2]string{
		{`expires \S+`, "expires TIME"},
		{`timeout \S+`, "timeout TIME"},
		{`packets \d+ bytes \d+`, "packets N bytes N"},
		{`@\d{13}`, "@CREATED"},
	} {
		listing = regexp.MustCompile(m[0]).ReplaceAllString(listing, m[1])
	}
	return listing
}

func ruleset(t testing.TB) string {
	t.Helper()
	return mask(run(t, "list", "ruleset"))
}

func apply(t testing.TB, b backend.Backend, c backend.Change) {
	t.Helper()
	if err := b.Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}
