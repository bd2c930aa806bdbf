package iptables

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// TestDamageInWords: List says what is wrong, where, and lists what is there.
func TestDamageInWords(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		for _, c := range []struct {
			version int
			command string
			says    string
			left    int
		}{
			{4, "-D FORWARD -j NETCAP", "jump from FORWARD is missing (IPv4)", 2},
			{6, "-F OUTPUT", "jump from OUTPUT is missing (IPv6)", 2},
			{4, "-I INPUT 1 -s 203.0.113.7 -j ACCEPT", "jump from INPUT is no longer first (IPv4)", 2},
			{6, "-A FORWARD -j NETCAP", "2 jumps from FORWARD (IPv6)", 2},
			{6, "-D NETCAP 5", "rules for neighbour discovery are missing (IPv6)", 2},
			{6, "-I NETCAP 1 -s 2001:db8::7 -j ACCEPT", "rules for neighbour discovery are no longer first (IPv6)", 2},
			{6, "-F NETCAP", "rules for neighbour discovery are missing (IPv6)", 1},
		} {
			b, _ := start(t, Config{Variant: v})
			apply(t, b, add(fresh("192.0.2.1", backend.Drop), fresh("2001:db8::1", backend.Drop)))
			well := snapshot(t, v)
			iptables(t, v, c.version, strings.Fields(c.command)...)
			got, err := b.List(t.Context())
			if !errors.Is(err, backend.ErrDamaged) || !strings.HasSuffix(err.Error(), ": "+c.says) || len(got) != c.left {
				t.Errorf("after %s: %d blocks and %v, want %d and ErrDamaged that says %s", c.command, len(got), err, c.left, c.says)
			}
			if c.left == 2 && strings.HasPrefix(c.command, "-D") {
				apply(t, b, backend.Change{Rebuild: true, Add: got})
				if now := snapshot(t, v); now != well {
					t.Errorf("after %s rebuilt to\n%s\nwant\n%s", c.command, now, well)
				}
			}
			if err := b.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			iptables(t, v, 4, "-F")
		}
	})
}

// TestRebuildTouchesLittle: one transaction a family, whatever is to do. What
// is right keeps its counters, and what is somebody else's its place.
func TestRebuildTouchesLittle(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		ran := counting(t, v)
		b, _ := start(t, Config{})
		stays, goes, six := fresh("127.0.0.2", backend.Drop), fresh("192.0.2.2", backend.Reject), fresh("2001:db8::1", backend.Drop)
		apply(t, b, add(stays, goes, six))
		out, err := dialFrom("127.0.0.2", "127.0.0.1:9")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte("x")); !errors.Is(errors.Join(err, out.Close()), syscall.EPERM) {
			t.Fatalf("a packet to be counted: %v, want EPERM", err)
		}
		foreign := "-A NETCAP -s 198.51.100.9/32 -m comment --comment mine -j ACCEPT"
		args, _ := splitArgs(foreign)
		for _, a := range [][]string{args, strings.Fields("-D INPUT -j NETCAP"), strings.Fields("-I FORWARD 1 -s 203.0.113.7 -j ACCEPT")} {
			iptables(t, v, 4, a...)
		}
		t.Cleanup(func() { runLate(t, "iptables-"+v, "-F FORWARD") })
		ran()
		more := fresh("10.0.0.0/8", backend.Drop)
		allow := prefixes("10.9.0.0/16")
		apply(t, b, backend.Change{Rebuild: true, Add: []backend.Block{stays, six, more}, Allow: &allow})
		if runs := strings.Join(ran(), "\n"); strings.Count(runs, "\n") != 2 || strings.Count(runs, "-restore") != 1 {
			t.Errorf("ran\n%s\nwant a listing a family and a transaction of IPv4", runs)
		}
		chain := iptables(t, v, 4, "-v", "-S", "NETCAP")
		for _, want := range []string{"-s 127.0.0.2/32", " -c 1 ", "--comment mine", "! --src-range 10.9.0.0-10.9.255.255"} {
			if strings.Count(chain, want) != 1 {
				t.Errorf("chain without %s:\n%s", want, chain)
			}
		}
		if got, err := b.List(t.Context()); err != nil || len(got) != 3 || b.Skipped() != 1 {
			t.Errorf("listed %v, skipped %d, %v", got, b.Skipped(), err)
		}
		// Everything is gone: still one transaction each.
		for _, version := range versions() {
			iptables(t, v, version, "-F")
			iptables(t, v, version, "-X")
		}
		ran()
		apply(t, b, backend.Change{Rebuild: true, Add: []backend.Block{stays, six, more}})
		if runs := strings.Join(ran(), "\n"); strings.Count(runs, "\n") != 3 || strings.Count(runs, "-restore") != 2 {
			t.Errorf("ran\n%s\nwant a listing and a transaction each", runs)
		}
		if got, err := b.List(t.Context()); err != nil || len(got) != 3 {
			t.Errorf("listed %v, %v", got, err)
		}
	})
}

// TestRebuildUnderFlood: while others damage the way to the chain and we mend
// it, the block that stands holds: not one packet passes through INPUT as long
// as OUTPUT's jump is left alone.
func TestRebuildUnderFlood(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, _ := start(t, Config{Variant: v})
		in, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = in.Close() }()
		block := fresh("127.0.0.2", backend.Drop)
		apply(t, b, add(block))
		ctx, stop := context.WithCancel(t.Context())
		sent := make(chan int, 1)
		go func() { sent <- flood(ctx, in.LocalAddr().String()) }()
		for i := range 10 {
			iptables(t, v, 4, "-D", "INPUT", "-j", "NETCAP")
			iptables(t, v, 4, "-A", "NETCAP", "-s", fmt.Sprintf("203.0.113.%d", i), "-j", "DROP")
			iptables(t, v, 4, "-I", "FORWARD", "1", "-j", "ACCEPT")
			longer := block
			longer.ExpiresAt = block.ExpiresAt.Add(time.Duration(i) * time.Minute)
			apply(t, b, backend.Change{Rebuild: true, Add: []backend.Block{longer}})
			if _, err := b.List(t.Context()); err != nil {
				t.Errorf("after the rebuild: %v", err)
			}
		}
		stop()
		n := <-sent
		if err := in.SetReadDeadline(time.Now().Add(silence)); err != nil {
			t.Fatal(err)
		}
		if _, from, err := in.ReadFromUDP(make([]byte, 16)); err == nil || n < 1000 {
			t.Errorf("a packet from %s passed of %d", from, n)
		}
		iptables(t, v, 4, "-F", "FORWARD")
	})
}

// TestClockStep: what a Manager does when the wall clock stepped: a thousand
// blocks get other dates, in one transaction a family, and stay blocked.
func TestClockStep(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		ran := counting(t, v)
		b, _ := start(t, Config{IPv4: true, IPv6: true})
		before, after := thousand()
		apply(t, b, add(before...))
		in, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = in.Close() }()
		ctx, stop := context.WithCancel(t.Context())
		sent := make(chan int, 1)
		go func() { sent <- flood(ctx, in.LocalAddr().String()) }()
		ran()
		begin := time.Now()
		apply(t, b, add(after...))
		t.Logf("1,000 ends rewritten in %s", time.Since(begin))
		if runs := ran(); len(runs) != 4 || !strings.Contains(runs[2], "-restore") || !strings.Contains(runs[3], "-restore") {
			t.Errorf("ran %q, want a look at the counters and one transaction a family", runs)
		}
		stop()
		n := <-sent
		if err := in.SetReadDeadline(time.Now().Add(silence)); err != nil {
			t.Fatal(err)
		}
		if _, from, err := in.ReadFromUDP(make([]byte, 16)); err == nil {
			t.Errorf("a packet from %s passed of %d", from, n)
		}
		got, err := b.List(t.Context())
		if g, w := texts(got), texts(newBlocks(after)); err != nil || g != w {
			t.Errorf("listed %d blocks, %v, not the %d that were applied", len(got), err, len(after))
		}
		next, _ := newBackend(t, Config{})
		read, err := next.List(t.Context())
		if err != nil || len(read) != len(after) {
			t.Fatalf("another process lists %d, %v", len(read), err)
		}
		ends := map[netip.Prefix]time.Time{}
		for _, a := range after {
			ends[a.Prefix] = a.ExpiresAt
		}
		for _, r := range read {
			if late := r.ExpiresAt.Sub(ends[r.Prefix]); late < 0 || late >= time.Second {
				t.Errorf("%s ends %s, want %s", r.Prefix, r.ExpiresAt, ends[r.Prefix])
			}
		}
	})
}

// thousand is a thousand blocks before and after the clock stepped; some have
// no end any more.
func thousand() (before, after []backend.Block) {
	for i := range 1000 {
		one := fresh("127.0.0.2", backend.Drop)
		switch {
		case i%3 == 1:
			one.Prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)}), 128)
		case i > 0:
			one.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
		}
		before = append(before, one)
		if one.ExpiresAt = one.ExpiresAt.Add(-37 * time.Minute); i%7 == 3 {
			one.ExpiresAt = time.Time{}
		}
		after = append(after, one)
	}
	return before, after
}

// newBlocks is the blocks as a Backend keeps them.
func newBlocks(blocks []backend.Block) []backend.Block {
	out := make([]backend.Block, 0, len(blocks))
	for _, b := range blocks {
		out = append(out, newEntry(b).block)
	}
	return out
}

// TestRulesOnlyNftShows: a rule made with nft hides our chain from
// iptables-nft. That is damage; a start says what to do, a rebuild puts
// everything back in one step, and the way out is clear.
func TestRulesOnlyNftShows(t *testing.T) {
	b, log := start(t, Config{Variant: "nft"})
	one, six := fresh("127.0.0.2", backend.Drop), fresh("2001:db8::1", backend.Drop)
	apply(t, b, add(one, six))
	well := snapshot(t, "nft")
	hide := func(chain string) {
		run(t, "nft", "insert", "rule", "ip", "filter", chain, "ct", "state", "new", "meta", "mark", "5", "counter")
	}
	hide("NETCAP")
	got, err := b.List(t.Context())
	if !errors.Is(err, backend.ErrDamaged) || !strings.Contains(err.Error(), "only nft can show (IPv4)") || len(got) != 2 {
		t.Errorf("list: %v, %v", got, err)
	}
	next, _ := newBackend(t, Config{Variant: "nft"})
	if err := next.Init(t.Context()); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "netcap-guard cleanup") {
		t.Errorf("init of another process: %v", err)
	}
	apply(t, b, backend.Change{Rebuild: true, Add: []backend.Block{one, six}})
	if now := snapshot(t, "nft"); now != well {
		t.Errorf("rebuilt to\n%s\nwant\n%s", now, well)
	}
	if !strings.Contains(log.String(), "only nft can show") {
		t.Errorf("no warning that a rule went: %s", log)
	}
	run(t, "nft", "add", "chain", "ip", "filter", "ELSE")
	t.Cleanup(func() { runLate(t, "iptables-nft", "-X ELSE") })
	hide("ELSE")
	if got, err := b.List(t.Context()); err != nil || len(got) != 2 {
		t.Errorf("somebody's own chain hides ours: %v, %v", got, err)
	}
	iptables(t, "nft", 4, "-D", "FORWARD", "-j", "NETCAP")
	if _, err := b.List(t.Context()); !errors.Is(err, backend.ErrDamaged) || !strings.Contains(err.Error(), "FORWARD is missing") {
		t.Errorf("list: %v", err)
	}
	run(t, "nft", "flush", "chain", "ip", "filter", "ELSE")
	hide("NETCAP")
}

// TestEndWithoutTime: where the kernel lacks xt_time the rule carries its end
// as a note. The next process knows it, removes what is over, and writes a date
// as soon as the kernel takes one.
func TestEndWithoutTime(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		path := os.Getenv("PATH")
		t.Setenv("PATH", withoutMatch(t, v, "time")+":"+path)
		first, _ := newBackend(t, Config{})
		if err := first.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		long, short, ever := fresh("192.0.2.1", backend.RejectReset), fresh("192.0.2.2", backend.Drop), fresh("2001:db8::1", backend.Drop)
		short.ExpiresAt, ever.ExpiresAt = time.Now().Add(time.Second), time.Time{}
		apply(t, first, add(long, short, ever))
		longer := long
		longer.ExpiresAt = long.ExpiresAt.Add(2 * time.Hour)
		apply(t, first, add(longer))
		if err := first.Detach(); err != nil {
			t.Fatal(err)
		}
		chain := iptables(t, v, 4, "-S", "NETCAP")
		if strings.Contains(chain, "datestop") || strings.Count(chain, "until @") != 4 {
			t.Errorf("chain:\n%s", chain)
		}
		waitUntil(t, short.ExpiresAt.Add(time.Second))
		second, _ := newBackend(t, Config{})
		if err := second.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now := iptables(t, v, 4, "-S", "NETCAP"); strings.Contains(now, "192.0.2.2/32") || strings.Count(now, "until @") != 3 {
			t.Errorf("chain after a start:\n%s", now)
		}
		check := func(b *Backend) {
			t.Helper()
			got, err := b.List(t.Context())
			if err != nil || len(got) != 2 || got[0].Slot() != long.Slot() || !got[1].Permanent() {
				t.Fatalf("adopted %v, %v", got, err)
			}
			if late := got[0].ExpiresAt.Sub(longer.ExpiresAt); late < 0 || late >= time.Second {
				t.Errorf("adopted block ends %s, want %s", got[0].ExpiresAt, longer.ExpiresAt)
			}
		}
		check(second)
		if err := second.Detach(); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", path)
		third, _ := start(t, Config{Variant: v})
		if now := iptables(t, v, 4, "-S", "NETCAP"); strings.Contains(now, "until @") || strings.Count(now, "datestop") != 3 {
			t.Errorf("chain where the kernel has xt_time:\n%s", now)
		}
		check(third)
	})
}
