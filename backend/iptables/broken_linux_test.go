package iptables

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// tools are the names of the programs, without variant, as a system has them.
func tools() []string {
	return []string{"iptables", "ip6tables", "iptables-restore", "ip6tables-restore"}
}

// realTool is the path of a variant's program: iptables-restore of nft is
// iptables-nft-restore.
func realTool(t testing.TB, tool, variant string) string {
	t.Helper()
	base, restore := strings.CutSuffix(tool, "-restore")
	base += "-" + variant
	if restore {
		base += "-restore"
	}
	path, err := exec.LookPath(base)
	if err != nil {
		t.Fatalf("%v (install the package iptables)", err)
	}
	return path
}

// toolDir makes a folder in which the named programs, without variant, are
// those of one variant: the PATH of a system that has just these.
func toolDir(t testing.TB, variant string, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range names {
		if err := os.Symlink(realTool(t, n, variant), filepath.Join(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// wrap replaces a program in a folder by a shell script in front of the real
// one. In the script $real is the real program.
func wrap(t testing.TB, dir, tool, variant, script string) {
	t.Helper()
	path := filepath.Join(dir, tool)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	text := "#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nreal=" + realTool(t, tool, variant) + "\n" + script + "\nexec $real \"$@\"\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// runIn runs a program with its own PATH in front.
func runIn(t testing.TB, path, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
}

// runLate runs a program at the end of a test, when its context is over.
func runLate(t testing.TB, program, args string) {
	t.Helper()
	if out, err := exec.Command(program, append([]string{"--wait", "5"}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v: %s", program, args, err, out)
	}
}

func TestNoProgram(t *testing.T) {
	t.Setenv("PATH", "")
	b, _ := newBackend(t, Config{})
	err := b.Init(t.Context())
	if !errors.Is(err, backend.ErrUnavailable) || !strings.HasPrefix(err.Error(), "failed to initialize iptables (IPv4): ") ||
		!strings.Contains(err.Error(), "install package iptables") || strings.Contains(err.Error(), "\n") {
		t.Errorf("init without a program: %v", err)
	}
	if _, err := b.List(t.Context()); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("list: %v, want ErrUnavailable", err)
	}
	if err := b.Close(t.Context()); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("close: %v, want ErrUnavailable", err)
	}
}

// TestOneFamily: without ip6tables the other family works, with one warning.
func TestOneFamily(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		t.Setenv("PATH", toolDir(t, v, "iptables", "iptables-restore"))
		b, log := start(t, Config{})
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "IPv6") || !strings.Contains(got, "install package") {
			t.Errorf("logged %q, want one line about IPv6", got)
		}
		apply(t, b, add(fresh("192.0.2.1", backend.Drop)))
		apply(t, b, remove(fresh("2001:db8::1", backend.Drop)))
		err := b.Apply(t.Context(), add(fresh("192.0.2.2", backend.Drop), fresh("2001:db8::1", backend.Drop)))
		if !errors.Is(err, backend.ErrUnavailable) || count(t, b) != 1 {
			t.Errorf("apply for IPv6: %v with %d blocks, want ErrUnavailable and 1", err, count(t, b))
		}
		if err := b.Init(t.Context()); err != nil || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("init again: %v, logged %s", err, log)
		}
	})
}

// TestSwitchedOff: a family that the configuration leaves out is not touched.
func TestSwitchedOff(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, log := start(t, Config{Variant: v, IPv6: true})
		if got := iptables(t, v, 4, "-S"); strings.Contains(got, "NETCAP") || log.Len() != 0 {
			t.Errorf("IPv4 was touched:\n%s%s", got, log)
		}
		err := b.Apply(t.Context(), add(fresh("192.0.2.2", backend.Drop)))
		if !errors.Is(err, backend.ErrUnavailable) || !strings.Contains(err.Error(), "switched off") {
			t.Errorf("apply for IPv4: %v", err)
		}
	})
}

// withoutMatch makes a folder with the programs of a variant, which refuse a
// match as they do where the kernel lacks the module.
func withoutMatch(t testing.TB, v, match string) string {
	t.Helper()
	const says = `{ echo "Warning: Extension MATCH revision 0 not supported, missing kernel module?" >&2; echo "iptables: No chain/target/match by that name." >&2; exit 1; }`
	fail := strings.Replace(says, "MATCH", match, 1)
	dir := t.TempDir()
	for _, tool := range []string{"iptables", "ip6tables"} {
		wrap(t, dir, tool, v, `case " $* " in *" -"[mj]" `+match+` "*) `+fail+`;; esac`)
		wrap(t, dir, tool+"-restore", v, `in=$(cat); case "$in" in *" -"[mj]" `+match+` "*) `+fail+`;; esac; printf '%s\n' "$in" | $real "$@"; exit`)
	}
	return dir
}

// TestMissingModules: the program refuses a match as it does where the kernel
// lacks the module.
func TestMissingModules(t *testing.T) {
	for _, c := range []struct {
		match string
		check func(t *testing.T, b *Backend, v string, err error, log string)
	}{
		{"comment", func(t *testing.T, _ *Backend, _ string, err error, _ string) {
			if !errors.Is(err, backend.ErrUnavailable) || !strings.Contains(err.Error(), "xt_comment") {
				t.Errorf("init: %v, want ErrUnavailable and xt_comment", err)
			}
		}},
		{"time", func(t *testing.T, b *Backend, v string, err error, log string) {
			if err != nil || strings.Count(log, "xt_time") != 1 || strings.Count(log, "\n") != 1 {
				t.Fatalf("init: %v, logged %q, want one warning about xt_time", err, log)
			}
			one := fresh("192.0.2.1", backend.Drop)
			apply(t, b, add(one))
			if got := iptables(t, v, 4, "-S", "NETCAP"); !strings.Contains(got, "192.0.2.1") || strings.Contains(got, "datestop") {
				t.Errorf("chain:\n%s", got)
			}
			if got, err := b.List(t.Context()); err != nil || len(got) != 1 || !got[0].ExpiresAt.Equal(one.ExpiresAt) {
				t.Errorf("listed %v, %v", got, err)
			}
		}},
		{"iprange", func(t *testing.T, b *Backend, _ string, err error, _ string) {
			if err != nil {
				t.Fatal(err)
			}
			apply(t, b, allowing("10.1.0.0/16"))
			apply(t, b, add(fresh("192.0.2.0/24", backend.Drop)))
			if err := b.Apply(t.Context(), add(fresh("10.0.0.0/8", backend.Drop))); !errors.Is(err, backend.ErrUnsupported) {
				t.Errorf("a block with a hole: %v, want ErrUnsupported", err)
			}
		}},
		{"hl", func(t *testing.T, b *Backend, v string, err error, log string) {
			if err != nil || !strings.Contains(log, "xt_hl") || strings.Contains(iptables(t, v, 6, "-S"), "NETCAP") {
				t.Fatalf("init: %v, logged %q, want IPv6 left alone", err, log)
			}
			apply(t, b, add(fresh("192.0.2.0/24", backend.Drop)))
		}},
		{"hashlimit", func(t *testing.T, b *Backend, _ string, err error, _ string) {
			if err != nil {
				t.Fatal(err)
			}
			apply(t, b, add(fresh("192.0.2.0/24", backend.Drop), logged("192.0.2.1", "x")))
			for _, one := range []backend.Block{limited("192.0.2.1", 5, time.Second, 5), fresh("192.0.2.1", backend.Reject)} {
				if err := b.Apply(t.Context(), add(one)); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "xt_hashlimit") {
					t.Errorf("%s: %v, want ErrUnsupported that names xt_hashlimit", one, err)
				}
			}
		}},
		{"NFLOG", func(t *testing.T, b *Backend, _ string, err error, _ string) {
			if err != nil {
				t.Fatal(err)
			}
			apply(t, b, add(limited("192.0.2.1", 5, time.Second, 5)))
			if err := b.Apply(t.Context(), add(logged("192.0.2.1", "x"))); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "xt_NFLOG") {
				t.Errorf("%v, want ErrUnsupported that names xt_NFLOG", err)
			}
		}},
	} {
		t.Run(c.match, func(t *testing.T) {
			eachVariant(t, func(t *testing.T, v string) {
				before := snapshot(t, v)
				t.Setenv("PATH", withoutMatch(t, v, c.match)+":"+os.Getenv("PATH"))
				b, log := newBackend(t, Config{})
				err := b.Init(t.Context())
				c.check(t, b, v, err, log.String())
				if err := b.Close(t.Context()); err != nil {
					t.Errorf("close: %v", err)
				}
				if got := snapshot(t, v); got != before {
					t.Errorf("left behind:\n%s", got)
				}
			})
		})
	}
}

// TestNobody: without privileges the error says so, and nothing is left.
func TestNobody(t *testing.T) {
	nstest.Tool(t, "setpriv")
	eachVariant(t, func(t *testing.T, v string) {
		before := snapshot(t, v)
		dir := t.TempDir()
		for _, tool := range tools() {
			wrap(t, dir, tool, v, `exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all $real "$@"`)
		}
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		b, _ := newBackend(t, Config{})
		err := b.Init(t.Context())
		if !errors.Is(err, backend.ErrPermission) || !strings.HasPrefix(err.Error(), "failed to initialize iptables (IPv4): ") {
			t.Errorf("init as nobody: %v", err)
		}
		if got := snapshot(t, v); got != before {
			t.Errorf("left behind:\n%s", got)
		}
	})
}

// TestSecondFamilyFails: a failure of the second family, whatever it is, takes
// the first back, in Init and in Apply.
func TestSecondFamilyFails(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		before := snapshot(t, v)
		dir := toolDir(t, v, tools()...)
		flag := filepath.Join(dir, "broken")
		fail := "test ! -e " + flag + ` || { echo "iptables: Memory allocation problem." >&2; exit 1; }`
		wrap(t, dir, "ip6tables", v, `case "$*" in --version|*-S*|*-D*|*-F*|*-X*) ;; *) `+fail+`;; esac`)
		wrap(t, dir, "ip6tables-restore", v, fail)
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		breakIt := func() {
			if err := os.WriteFile(flag, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		breakIt()
		b, _ := newBackend(t, Config{})
		if err := b.Init(t.Context()); !errors.Is(err, backend.ErrFull) || !strings.Contains(err.Error(), "(IPv6)") {
			t.Fatalf("init: %v, want ErrFull of IPv6", err)
		}
		if got := snapshot(t, v); got != before {
			t.Fatalf("a failed Init left\n%s", got)
		}
		if err := os.Remove(flag); err != nil {
			t.Fatal(err)
		}
		b, _ = start(t, Config{})
		stays := fresh("192.0.2.1", backend.Drop)
		apply(t, b, add(stays, fresh("2001:db8::9", backend.Drop)))
		middle := snapshot(t, v)
		breakIt()
		longer := stays
		longer.ExpiresAt = stays.ExpiresAt.Add(time.Hour)
		err := b.Apply(t.Context(), add(longer, fresh("192.0.2.2", backend.Reject), fresh("2001:db8::1", backend.Drop)))
		if !errors.Is(err, backend.ErrFull) {
			t.Errorf("apply: %v, want ErrFull", err)
		}
		if got := snapshot(t, v); got != middle {
			t.Errorf("after the failure\n%s\nwant\n%s", got, middle)
		}
		if n := count(t, b); n != 2 {
			t.Errorf("%d blocks, want 2", n)
		}
		if err := os.Remove(flag); err != nil {
			t.Fatal(err)
		}
		apply(t, b, add(longer, fresh("2001:db8::1", backend.Drop)))
		if n := count(t, b); n != 3 {
			t.Errorf("%d blocks, want 3", n)
		}
	})
}

// TestLocked: another program holds the xtables lock. Only the legacy program
// has one; the lock file is this test's own.
func TestLocked(t *testing.T) {
	lock := ownLock(t)
	b, _ := start(t, Config{Variant: "legacy", LockTimeout: time.Second})
	one := fresh("192.0.2.1", backend.Drop)
	apply(t, b, add(one))
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, c := range []backend.Change{remove(one), add(fresh("192.0.2.2", backend.Drop), fresh("192.0.2.3", backend.Drop))} {
		if err := b.Apply(t.Context(), c); !errors.Is(err, backend.ErrLocked) {
			t.Errorf("apply: %v, want ErrLocked", err)
		}
	}
	if err := b.Init(t.Context()); !errors.Is(err, backend.ErrLocked) {
		t.Errorf("init: %v, want ErrLocked", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if n := count(t, b); n != 1 {
		t.Errorf("%d blocks, want 1", n)
	}
	apply(t, b, remove(one))
}

// TestFarEnd: an end that xt_time cannot hold is refused, and the kernel takes
// the last one that it can.
func TestFarEnd(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, _ := start(t, Config{Variant: v})
		last := fresh("192.0.2.1", backend.Drop)
		last.ExpiresAt = lastStop()
		apply(t, b, add(last))
		last.Prefix = netip.MustParsePrefix("192.0.2.2/32")
		last.ExpiresAt = lastStop().Add(time.Hour)
		if err := b.Apply(t.Context(), add(last)); !errors.Is(err, backend.ErrUnsupported) || count(t, b) != 1 {
			t.Errorf("a block until %s: %v", last.ExpiresAt, err)
		}
	})
}

// TestManyHoles: the most holes that a rule may have fit into the kernel with
// everything else a rule can carry.
func TestManyHoles(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, _ := start(t, Config{Variant: v})
		block := fresh("2001:db8::/32", backend.RejectReset)
		block.Rule, block.Reason = strings.Repeat("r", 64), strings.Repeat("'", 200)
		var allow []netip.Prefix
		for i := range maxHoles * 3 {
			a := netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:0").As16()
			a[12], a[13] = byte(i), 1
			allow = append(allow, netip.PrefixFrom(netip.AddrFrom16(a), 120))
		}
		for _, n := range []int{maxHoles, maxHoles + 1, maxHoles * 3} {
			list := allow[:n]
			if err := b.Apply(t.Context(), backend.Change{Add: []backend.Block{block}, Allow: &list}); err != nil {
				t.Fatalf("%d holes: %v", n, err)
			}
			r, err := b.state.read(context.Background(), b.chains)
			if err != nil || r.changed {
				t.Errorf("%d holes: changed %t, %v", n, r.changed, err)
			}
		}
	})
}
