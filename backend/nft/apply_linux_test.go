package nft_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// many makes n blocks of hosts and of /24 networks.
func many(t testing.TB, n int) []backend.Block {
	t.Helper()
	var out []backend.Block
	for i := range n {
		p := fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)
		if i%10 == 9 {
			p = fmt.Sprintf("%d.%d.%d.0/24", 20+i>>16, i>>8&255, i&255)
		}
		out = append(out, block(t, p, backend.Drop))
	}
	return out
}

// TestRollback: a change that has to be cut and fails in its last piece leaves
// everything as it was: blocks it would have replaced, removed or added, and
// the allowed addresses.
func TestRollback(t *testing.T) {
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{SetSize: 40})
	allowed := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("240.0.0.0/4")}
	there := many(t, 30)
	there[3] = permanent(there[3])
	apply(t, b, backend.Change{Add: there, Allow: &allowed})
	before, listing := list(t, b), ruleset(t)
	nft.Shrink(b, 4)
	c := backend.Change{Remove: there[:5], Allow: &[]netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")}}
	for _, one := range there[5:12] {
		one.Rule = "rewritten"
		c.Add = append(c.Add, permanent(one))
	}
	for i := range 60 {
		c.Add = append(c.Add, block(t, fmt.Sprintf("203.0.113.%d", i), backend.Drop), block(t, fmt.Sprintf("2001:db8::%d", i), backend.Drop))
	}
	wantError(t, b.Apply(t.Context(), c), backend.ErrFull)
	if got := list(t, b); !slices.EqualFunc(got, before, same) {
		t.Errorf("after the failed change:\n%v\nwant\n%v", got, before)
	}
	allowOf := func(listing string) string {
		_, rest, _ := strings.Cut(listing, "set allow4")
		rest, _, _ = strings.Cut(rest, "}\n\n")
		return rest
	}
	if got := ruleset(t); allowOf(got) != allowOf(listing) || allowOf(got) == "" {
		t.Errorf("allowed addresses after the failed change:\n%s\nwant\n%s", allowOf(got), allowOf(listing))
	}
	c.Add = c.Add[:7]
	apply(t, b, c)
	if got := list(t, b); len(got) != 25 {
		t.Errorf("listed %d blocks after the smaller change, want 25", len(got))
	}
}

// TestSmallSocketBuffer: in a container, where the socket buffer cannot be
// enlarged, a large change goes through in pieces.
func TestSmallSocketBuffer(t *testing.T) {
	if !beside(t, "") {
		return
	}
	const mark = "NETCAP_GUARD_TEST_USERNS"
	if os.Getenv(mark) == "" {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestSmallSocketBuffer$", "-test.v")
		cmd.Env = append(os.Environ(), mark+"=1")
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, UidMappings: ids, GidMappings: ids}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestSmallSocketBuffer") {
			t.Fatalf("in a user namespace: %v\n%s", err, out)
		}
		return
	}
	b := start(t, nft.Config{})
	// About 10 MB, more than a socket takes whose buffer cannot be forced: twice
	// net.core.wmem_max, which is 208 KB by default and 4 MB on large hosts.
	const whole = 1 << 20
	nft.Shrink(b, whole)
	want := many(t, 55_000)
	for i := range want {
		want[i].Reason = strings.Repeat("long ", 30)
	}
	apply(t, b, backend.Change{Add: want})
	if got := list(t, b); len(got) != len(want) {
		t.Errorf("listed %d blocks, want %d", len(got), len(want))
	}
	if nft.Batch(b) == whole {
		t.Error("all went through in one transaction: the buffer was not small, nothing was tested")
	}
}

// TestListWhileOthersChange: a listing is whole although another program keeps
// changing the ruleset.
func TestListWhileOthersChange(t *testing.T) {
	if !beside(t, "") {
		return
	}
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{})
	want := many(t, 3000)
	apply(t, b, backend.Change{Add: want})
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- restless(stop) }()
	for range 20 {
		if got := list(t, b); len(got) != len(want) || len(slices.CompactFunc(got, func(a, b backend.Block) bool { return a.Slot() == b.Slot() })) != len(want) {
			t.Fatalf("listed %d blocks, want %d different ones", len(got), len(want))
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// restless adds and deletes a table of its own until it is stopped.
func restless(stop <-chan struct{}) error {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return err
	}
	for {
		select {
		case <-stop:
			return c.CloseLasting()
		default:
		}
		t := c.AddTable(&nftables.Table{Name: "restless", Family: nftables.TableFamilyIPv4})
		if err := c.Flush(); err != nil {
			return err
		}
		c.DelTable(t)
		if err := c.Flush(); err != nil {
			return err
		}
	}
}

// TestNoPrivilege: without CAP_NET_ADMIN every operation says what is missing.
// The capability is taken from one thread, which ends with the goroutine.
func TestNoPrivilege(t *testing.T) {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData // version 3 takes two
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- fmt.Errorf("drop capabilities: %w", err)
			return
		}
		b, err := nft.New(nft.Config{})
		if err != nil {
			done <- err
			return
		}
		_, listErr := b.List(t.Context())
		for op, err := range map[string]error{"init": b.Init(t.Context()), "list": listErr, "flush": b.Flush(t.Context())} {
			if !errors.Is(err, backend.ErrPermission) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s without privilege: %v, want one line of ErrPermission", op, err)
			}
		}
		if err := b.Close(t.Context()); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("close without privilege: %v", err)
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestLargeChange: what fits into one transaction is one: a bad end leaves
// nothing of it, and the generation of the ruleset moves by one.
func TestLargeChange(t *testing.T) {
	if !beside(t, "") {
		return
	}
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{})
	want := many(t, 6000)
	apply(t, b, backend.Change{Add: []backend.Block{want[0], want[9]}})
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.GetGen()
	if err != nil {
		t.Fatal(err)
	}
	apply(t, b, backend.Change{Add: want})
	after, err := c.GetGen()
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, b); len(got) != len(want) || after.ID != before.ID+1 {
		t.Errorf("%d blocks in %d transactions, want %d in 1", len(got), after.ID-before.ID, len(want))
	}
}

// TestSetsBesideEveryAddress: the set of 0.0.0.0/0 is there, and sets come
// whose rule is the last of its chain.
func TestSetsBesideEveryAddress(t *testing.T) {
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{})
	want := 0
	for _, prefix := range []string{"0.0.0.0/0", "2001:db8::1/128", "192.0.2.0/24", "::/0", "2001:db8::/32"} {
		for _, target := range []backend.Target{backend.Source, backend.Destination} {
			one := block(t, prefix, backend.Drop)
			one.Target = target
			if err := b.Apply(t.Context(), backend.Change{Add: []backend.Block{one}}); err != nil {
				t.Errorf("%s %s: %v", target, prefix, err)
			}
			want++
		}
	}
	if got := list(t, b); len(got) != want {
		t.Errorf("%d blocks, want %d: %v", len(got), want, got)
	}
}
