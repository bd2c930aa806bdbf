package nft_test

import (
	"context"
	"errors"
	"fmt"
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
	if !beside(t, " - /packets", "/packets - /packets/( v[46]$|^every|^expiry|^nested)", "/packets/(^every|^expiry|^nested)", "/packets/ v4$", "/packets/ v6$") {
		return
	}
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
		Actions:    backend.Actions(),
		Persistent: true,
		Snapshot:   ruleset,
		Foreign:    foreign(),
	})
}

// foreign is what an administrator does with the nft program.
func foreign() *backendtest.Foreign {
	return &backendtest.Foreign{
		Remove: func(t testing.TB, _ backend.Backend, blocks ...backend.Block) {
			for _, one := range blocks {
				run(t, "delete", "element", "inet", "NETCAP", setOf(one), "{ "+one.Prefix.Addr().String()+" }")
			}
		},
		Empty:   func(t testing.TB, _ backend.Backend) { run(t, "flush", "set", "inet", "NETCAP", "drop_src4_32") },
		Damages: damages(),
	}
}

// setOf is the name of the set that a block is in.
func setOf(b backend.Block) string {
	word := map[backend.Action]string{backend.Drop: "drop", backend.Reject: "reject", backend.RejectReset: "reset", backend.RateLimit: "limit"}[b.Action]
	side := map[backend.Target]string{backend.Source: "src", backend.Destination: "dst"}[b.Target]
	family := map[bool]string{true: "4", false: "6"}[b.Prefix.Addr().Is4()]
	return fmt.Sprintf("%s_%s%s_%d", word, side, family, b.Prefix.Bits())
}

// damages are what somebody can do to the structure, as commands of nft.
func damages() []backendtest.Damage {
	var out []backendtest.Damage
	for _, d := range [][2]string{
		{"table deleted", "delete table inet NETCAP"},
		{"ruleset flushed", "flush ruleset"},
		{"rules flushed", "flush table inet NETCAP"},
		{"chain flushed", "flush chain inet NETCAP source"},
		{"jumps flushed", "flush chain inet NETCAP prerouting"},
		{"rule in front", "insert rule inet NETCAP prerouting accept"},
		{"rule behind", "add rule inet NETCAP output tcp dport { 22, 80 } accept"},
		{"base chain deleted", "flush chain inet NETCAP output; delete chain inet NETCAP output"},
		{"policy", "add chain inet NETCAP prerouting { policy drop; }"},
		{"asleep", "add table inet NETCAP { flags dormant; }"},
		{"set deleted", "flush chain inet NETCAP source; delete set inet NETCAP drop_src4_32"},
		{"set added", "add set inet NETCAP drop_src4_28 { type ipv4_addr; flags timeout; }"},
		{"set of another kind", "flush chain inet NETCAP source; delete set inet NETCAP drop_src4_32; " +
			"add set inet NETCAP drop_src4_32 { type ipv4_addr; elements = { 192.0.2.1 } }"},
		{"allowed addresses changed", "add element inet NETCAP allow4 { 192.0.2.1 }"},
		{"in the way", "add chain inet NETCAP mine; add rule inet NETCAP mine jump source; add rule inet NETCAP mine ip saddr @drop_src4_24 accept; " +
			"flush chain inet NETCAP output; add rule inet NETCAP output accept; add rule inet NETCAP output jump mine"},
	} {
		out = append(out, backendtest.Damage{Name: d[0], Gone: strings.Contains(d[1], " table inet NETCAP") && strings.HasPrefix(d[1], "delete") || d[1] == "flush ruleset",
			Do: func(t testing.TB, _ backend.Backend) { load(t, strings.ReplaceAll(d[1], "; ", "\n")+"\n") }})
	}
	return out
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
