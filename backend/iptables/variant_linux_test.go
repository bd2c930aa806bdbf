package iptables

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

func TestInUse(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const names4, names6 = "proc/thread-self/net/ip_tables_names", "proc/thread-self/net/ip6_tables_names"
	const builtin = "lib/modules/6.1.0-9-amd64/modules.builtin"
	six := families()[1]
	for _, c := range []struct {
		name    string
		variant string
		family  family
		files   fstest.MapFS
		want    bool
	}{
		{"legacy: no module", "legacy", families()[0], fstest.MapFS{names6: file("filter\n")}, false},
		{"legacy: other tables", "legacy", families()[0], fstest.MapFS{names4: file("nat\nraw\n")}, false},
		{"legacy: in use", "legacy", families()[0], fstest.MapFS{names4: file("nat\nfilter\n")}, true},
		{"legacy: IPv6", "legacy", six, fstest.MapFS{names6: file("filter\n")}, true},
		{"nft: loaded", "nft", six, fstest.MapFS{"sys/module/nf_tables/refcnt": file("1"), "proc/modules": file("")}, true},
		{"nft: a kernel without modules", "nft", six, fstest.MapFS{}, true},
		{"nft: not loaded", "nft", six, fstest.MapFS{
			"proc/modules": file(""), "proc/sys/kernel/osrelease": file("6.1.0-9-amd64\n"), builtin: file("kernel/net/ipv4/ip.ko\n"),
		}, false},
		{"nft: built in", "nft", six, fstest.MapFS{
			"proc/modules": file(""), "proc/sys/kernel/osrelease": file("6.1.0-9-amd64\n"), builtin: file("kernel/net/netfilter/nf_tables.ko\n"),
		}, true},
		{"nft: nobody knows", "nft", six, fstest.MapFS{"proc/modules": file("")}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := inUse(c.files, c.variant, c.family); got != c.want {
				t.Errorf("in use: %t, want %t", got, c.want)
			}
		})
	}
}

// system gives the plain names of the programs to one variant, as a system's
// alternatives do, and leaves the others where they are.
func system(t *testing.T, v string) {
	t.Helper()
	t.Setenv("PATH", toolDir(t, v, tools()...)+":"+os.Getenv("PATH"))
}

func otherOf(v string) string {
	if v == legacyVariant {
		return nftVariant
	}
	return legacyVariant
}

// TestOtherVariant: our chain in the other variant's tables is warned of once,
// blocks go on there, and a clean-up takes both.
func TestOtherVariant(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		other := otherOf(v)
		before, beforeOther := snapshot(t, v), snapshot(t, other)
		left, _ := newBackend(t, Config{Variant: other})
		if err := left.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		apply(t, left, add(fresh("192.0.2.1", backend.Drop), fresh("2001:db8::1", backend.Drop)))
		if err := left.Detach(); err != nil {
			t.Fatal(err)
		}
		there := snapshot(t, other)
		system(t, v)
		b, log := newBackend(t, Config{})
		for range 2 {
			if err := b.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		said := log.String()
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, "variant="+v+" ") || !strings.Contains(said, "other_variant="+other+" ") ||
			!strings.Contains(said, "iptables-"+other) || !strings.Contains(said, "netcap-guard cleanup") {
			t.Errorf("logged %q, want one line that names both variants", said)
		}
		if n := count(t, b); n != 0 || snapshot(t, other) != there {
			t.Errorf("%d blocks, and there\n%s", n, snapshot(t, other))
		}
		if err := b.Detach(); err != nil {
			t.Fatal(err)
		}
		chosen, _ := newBackend(t, Config{Variant: v})
		if err := chosen.Close(t.Context()); err != nil || snapshot(t, v) != before || snapshot(t, other) != there {
			t.Errorf("a clean-up of one variant (%v) leaves\n%s\nand\n%s", err, snapshot(t, v), snapshot(t, other))
		}
		cleaner, _ := newBackend(t, Config{})
		if err := cleaner.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
		if now := snapshot(t, v); now != before {
			t.Errorf("left behind:\n%s", now)
		}
		if now := snapshot(t, other); now != beforeOther {
			t.Errorf("left behind in the other variant:\n%s", now)
		}
	})
}

// TestCloseBothVariants: a Backend at work takes the other variant's chain as
// well when it ends.
func TestCloseBothVariants(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		other := otherOf(v)
		before := snapshot(t, other)
		left, _ := newBackend(t, Config{Variant: other})
		if err := left.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := left.Detach(); err != nil {
			t.Fatal(err)
		}
		system(t, v)
		b, _ := newBackend(t, Config{})
		if err := errors.Join(b.Init(t.Context()), b.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		if now := snapshot(t, other); now != before {
			t.Errorf("left behind:\n%s", now)
		}
	})
}

// TestLegacyTablesAreNotMade: work with the nft variant, a clean-up included,
// does not bring the legacy tables into a namespace that has none.
func TestLegacyTablesAreNotMade(t *testing.T) {
	ns := nstest.NS(t, nstest.Lab(t), "fresh")
	system(t, nftVariant)
	names := ""
	err := ns.Do(func() error {
		b, _ := newBackend(t, Config{})
		cleaner, _ := newBackend(t, Config{})
		ctx := context.Background()
		err := errors.Join(b.Init(ctx), b.Close(ctx), cleaner.Close(ctx))
		for _, f := range families() {
			text, e := os.ReadFile("/proc/thread-self/net/" + f.legacyNames)
			if !errors.Is(e, os.ErrNotExist) {
				err = errors.Join(err, e)
			}
			names += string(text)
		}
		return err
	})
	if err != nil || names != "" {
		t.Errorf("tables %q, %v", names, err)
	}
}
