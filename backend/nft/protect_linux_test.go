package nft_test

import (
	"bytes"
	"context"
	"log/slog"
	"os/exec"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// TestContractProtected: the contract holds for a protected table, adoption by
// the next process included.
func TestContractProtected(t *testing.T) {
	if !beside(t, "") {
		return
	}
	backendtest.Run(t, backendtest.Suite{
		Actions: backend.Actions(),
		New:     func(t testing.TB) backend.Backend { return open(t, nft.Config{Protect: true}) },
		NewFull: func(t testing.TB, n int) backend.Backend {
			return open(t, nft.Config{SetSize: uint32(n), Protect: true})
		},
		Persistent: true,
		Snapshot:   ruleset,
	})
}

// denied runs the nft program, which must be told that the operation is not
// permitted.
func denied(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nft", args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Operation not permitted") {
		t.Errorf("nft %s: %v, want it refused\n%s", strings.Join(args, " "), err, out)
	}
}

// TestProtect: nobody else can change the table while its owner lives, and the
// next owner takes it over with all blocks.
func TestProtect(t *testing.T) {
	nstest.Tool(t, "nft")
	first := open(t, nft.Config{Protect: true})
	if err := first.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	apply(t, first, everything(t))
	before := list(t, first)
	for _, args := range [][]string{
		{"delete", "table", "inet", "NETCAP"},
		{"delete", "element", "inet", "NETCAP", "drop_src4_32", "{ 192.0.2.1 }"},
		{"flush", "set", "inet", "NETCAP", "drop_src4_32"},
		{"flush", "chain", "inet", "NETCAP", "prerouting"},
		{"insert", "rule", "inet", "NETCAP", "prerouting", "accept"},
	} {
		denied(t, args...)
	}
	load(t, "table ip other {\n}\n")
	run(t, "flush", "ruleset")
	if listing := ruleset(t); !strings.Contains(listing, "192.0.2.1 timeout") || strings.Contains(listing, "other") {
		t.Errorf("after flush ruleset:\n%s", listing)
	}
	second := open(t, nft.Config{Protect: true})
	wantError(t, second.Init(t.Context()), backend.ErrPermission)
	plain := open(t, nft.Config{})
	if err := plain.Init(t.Context()); err == nil || !strings.Contains(err.Error(), "owned by another program") {
		t.Errorf("a second owner: %v", err)
	}
	if err := plain.Detach(); err != nil {
		t.Error(err)
	}
	if err := first.Detach(); err != nil {
		t.Fatal(err)
	}
	if err := second.Init(t.Context()); err != nil {
		t.Fatalf("taking over from a dead owner: %v", err)
	}
	if got := list(t, second); !sameBlocks(got, before) {
		t.Errorf("taken over:\n%v\nwant\n%v", got, before)
	}
	denied(t, "delete", "table", "inet", "NETCAP")
	apply(t, second, backend.Change{Rebuild: true, Add: before[:2]})
	denied(t, "flush", "table", "inet", "NETCAP")
	if err := second.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
	if left := ruleset(t); left != "" {
		t.Errorf("left after Close:\n%s", left)
	}
}

func sameBlocks(got, want []backend.Block) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if !same(got[i], want[i]) {
			return false
		}
	}
	return true
}

// TestProtectLater: a table that an unprotected process left is replaced by a
// protected one in one step, and one that a protected process left serves an
// unprotected one.
func TestProtectLater(t *testing.T) {
	nstest.Tool(t, "nft")
	var before []backend.Block
	for i, protect := range []bool{false, true, false, true} {
		b := open(t, nft.Config{Protect: protect, Counters: true})
		if err := b.Init(t.Context()); err != nil {
			t.Fatalf("run %d, protected %t: %v", i, protect, err)
		}
		if i == 0 {
			apply(t, b, everything(t))
			before = list(t, b)
		}
		if got := list(t, b); !sameBlocks(got, before) {
			t.Errorf("run %d, protected %t:\n%v\nwant\n%v", i, protect, got, before)
		}
		if got := run(t, "list", "set", "inet", "NETCAP", "allow4"); !strings.Contains(got, "10.1.0.0/16") || !strings.Contains(got, "240.0.0.0/4") {
			t.Errorf("run %d: the allowed addresses are\n%s", i, got)
		}
		if protect {
			denied(t, "flush", "table", "inet", "NETCAP")
		} else {
			run(t, "flush", "chain", "inet", "NETCAP", "output")
			if err := b.Init(t.Context()); err != nil {
				t.Fatalf("run %d, putting a chain back: %v", i, err)
			}
		}
		if i == 3 {
			if err := b.Close(context.Background()); err != nil {
				t.Error(err)
			}
		} else if err := b.Detach(); err != nil {
			t.Error(err)
		}
	}
}

// TestCannotProtect: a kernel that does not know the flags (here: one of them
// is unknown to every kernel) gives a warning and a table that works.
func TestCannotProtect(t *testing.T) {
	nstest.Tool(t, "nft")
	var log bytes.Buffer
	b := open(t, nft.Config{Protect: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	nft.UnknownFlag(b)
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	apply(t, b, everything(t))
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "protect_table") || !strings.Contains(log.String(), "6.9") {
		t.Errorf("warned %d times:\n%s", n, log.String())
	}
	run(t, "delete", "element", "inet", "NETCAP", "drop_src4_32", "{ 192.0.2.1 }")
	if got := list(t, b); len(got) != len(everything(t).Add)-1 {
		t.Errorf("listed %v", got)
	}
}
