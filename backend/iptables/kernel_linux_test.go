package iptables

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
)

// silence is how long a test waits for what must not come.
const silence = 200 * time.Millisecond

// fresh is a sample block that begins now.
func fresh(prefix string, a backend.Action) backend.Block {
	b := sample(prefix, a)
	b.CreatedAt = time.Now()
	b.ExpiresAt = b.CreatedAt.Add(time.Hour)
	return b
}

func apply(t testing.TB, b *Backend, c backend.Change) {
	t.Helper()
	if err := b.Apply(t.Context(), c); err != nil {
		t.Fatalf("apply: %v\n%s", err, c)
	}
}

func add(blocks ...backend.Block) backend.Change    { return backend.Change{Add: blocks} }
func remove(blocks ...backend.Block) backend.Change { return backend.Change{Remove: blocks} }

func allowing(list ...string) backend.Change {
	p := prefixes(list...)
	return backend.Change{Allow: &p}
}

func count(t testing.TB, b *Backend) int {
	t.Helper()
	got, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(got)
}

// TestListing: an administrator sees what the specification page shows.
func TestListing(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, _ := start(t, Config{Variant: v})
		block, reject := sample("192.0.2.1", backend.Drop), sample("2001:db8::/32", backend.Reject)
		block.ExpiresAt, reject.ExpiresAt = time.Time{}, time.Time{}
		apply(t, b, add(block, reject))
		const comment = `-m comment --comment "NETCAP: Block SSH Brute Force; 10 in 300 s; @1777863721000"`
		want := "IPv4\n-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n-N NETCAP\n" +
			"-A INPUT -j NETCAP\n-A FORWARD -j NETCAP\n-A OUTPUT -j NETCAP\n" +
			"-A NETCAP -s 192.0.2.1/32 " + comment + " -j DROP\n" +
			"IPv6\n-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n-N NETCAP\n" +
			"-A INPUT -j NETCAP\n-A FORWARD -j NETCAP\n-A OUTPUT -j NETCAP\n"
		for n := 133; n <= 137; n++ {
			want += fmt.Sprintf("-A NETCAP -p ipv6-icmp -m icmp6 --icmpv6-type %d -m hl --hl-eq 255 -m comment --comment \"NETCAP neighbour discovery\" -j RETURN\n", n)
		}
		want += "-A NETCAP -s 2001:db8::/32 -m hashlimit --hashlimit-above 1000/sec --hashlimit-burst 1000 --hashlimit-name NETCAP-1000 " + comment + " -j DROP\n" +
			"-A NETCAP -s 2001:db8::/32 " + comment + " -j REJECT --reject-with icmp6-port-unreachable\n"
		if got := snapshot(t, v); got != want {
			t.Errorf("listing is\n%s\nwant\n%s", got, want)
		}
	})
}

// TestManualCleanup types the specification page's commands. It flushes the
// chain of both families and takes the IPv4 one away; the same lines with
// ip6tables take the other.
func TestManualCleanup(t *testing.T) {
	const page = `
# Manually flush NETCAP chain
sudo iptables -F NETCAP
sudo ip6tables -F NETCAP
# Remove jump rules
sudo iptables -D INPUT -j NETCAP
sudo iptables -D FORWARD -j NETCAP
sudo iptables -D OUTPUT -j NETCAP
# Delete chain
sudo iptables -X NETCAP
`
	eachVariant(t, func(t *testing.T, v string) {
		before := snapshot(t, v)
		b, _ := newBackend(t, Config{Variant: v})
		if err := b.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		apply(t, b, add(fresh("192.0.2.1", backend.Drop), fresh("2001:db8::1", backend.RejectReset)))
		if err := b.Detach(); err != nil {
			t.Fatal(err)
		}
		path := toolDir(t, v, tools()...)
		script := "set -e\nsudo() { \"$@\"; }\n" + page
		runIn(t, path, "sh", "-c", script)
		if got := snapshot(t, v); strings.Contains(got[:strings.Index(got, "IPv6")], "NETCAP") || strings.Contains(got, "-A NETCAP") {
			t.Errorf("the page's commands leave\n%s", got)
		}
		six := strings.ReplaceAll(strings.ReplaceAll(page, "sudo ip6tables -F NETCAP\n", ""), "sudo iptables", "sudo ip6tables")
		runIn(t, path, "sh", "-c", "set -e\nsudo() { \"$@\"; }\n"+six)
		if got := snapshot(t, v); got != before {
			t.Errorf("left behind:\n%s\nbefore:\n%s", got, before)
		}
	})
}

// TestForeignRules: rules that are not ours survive everything but the chain
// they are in.
func TestForeignRules(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		iptables(t, v, 4, "-A", "INPUT", "-s", "203.0.113.1", "-j", "DROP")
		iptables(t, v, 4, "-N", "OTHER")
		t.Cleanup(func() {
			for _, a := range []string{"-D INPUT -s 203.0.113.1 -j DROP", "-X OTHER"} {
				runLate(t, "iptables-"+v, a)
			}
		})
		before := snapshot(t, v)
		b, log := start(t, Config{Variant: v})
		ours := fresh("192.0.2.1", backend.Drop)
		apply(t, b, add(ours, fresh("192.0.2.2", backend.Reject)))
		foreign := []string{
			"-A NETCAP -s 192.0.2.1/32 -j DROP",
			`-A NETCAP -s 198.51.100.9/32 -m comment --comment "NETCAP: by hand" -j ACCEPT`,
			"-A NETCAP -p tcp -m tcp --dport 22 -j RETURN",
		}
		for _, f := range foreign {
			args, _ := splitArgs(f)
			iptables(t, v, 4, args...)
		}
		iptables(t, v, 4, "-I", "NETCAP", "1", "-i", "lo", "-j", "ACCEPT")
		foreign = append(foreign, "-A NETCAP -i lo -j ACCEPT")
		if got := count(t, b); got != 2 || b.Skipped() != 4 {
			t.Errorf("listed %d and skipped %d, want 2 and 4", got, b.Skipped())
		}
		apply(t, b, remove(ours))
		ours.Rule = "another"
		apply(t, b, add(ours))
		apply(t, b, allowing("192.0.2.1/32"))
		if err := b.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		left := iptables(t, v, 4, "-S", "NETCAP")
		for _, f := range foreign {
			if strings.Count(left, f+"\n") != 1 {
				t.Errorf("%s is gone", f)
			}
		}
		if strings.Count(left, "-A") != len(foreign) {
			t.Errorf("the flushed chain has\n%s", left)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log.String(), "rules=4") {
			t.Errorf("no warning that somebody's rules go with the chain: %s", log)
		}
		if got := snapshot(t, v); got != before {
			t.Errorf("after Close:\n%s\nbefore:\n%s", got, before)
		}
	})
}

// TestCloseInUse: somebody's own jump keeps the chain, and the error says so.
func TestCloseInUse(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		before := snapshot(t, v)
		b, _ := start(t, Config{Variant: v})
		iptables(t, v, 6, "-A", "INPUT", "-m", "comment", "--comment", "mine", "-j", "NETCAP")
		err := b.Close(t.Context())
		if err == nil || !strings.Contains(err.Error(), "not ours") || !strings.Contains(err.Error(), "IPv6") {
			t.Errorf("close: %v, want an error about somebody's jump", err)
		}
		if got := iptables(t, v, 4, "-S"); strings.Contains(got, "NETCAP") {
			t.Errorf("the other family is still there:\n%s", got)
		}
		iptables(t, v, 6, "-D", "INPUT", "-m", "comment", "--comment", "mine", "-j", "NETCAP")
		for range 2 {
			if err := b.Close(t.Context()); err != nil {
				t.Errorf("close again: %v", err)
			}
		}
		if got := snapshot(t, v); got != before {
			t.Errorf("after Close:\n%s", got)
		}
	})
}

// TestAdoption: another process finds the blocks, with their holes, clears
// away what has ended and mends what somebody took apart.
func TestAdoption(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		first, _ := newBackend(t, Config{Variant: v})
		if err := first.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		wide, reset, short := fresh("10.0.0.0/8", backend.RejectReset), fresh("2001:db8::1", backend.RejectReset), fresh("192.0.2.1", backend.Drop)
		short.ExpiresAt = time.Now().Add(time.Second)
		wide.Target = backend.Destination
		apply(t, first, add(wide, reset, short))
		var many []string
		for i := range 100 {
			many = append(many, fmt.Sprintf("10.%d.0.0/24", i))
		}
		apply(t, first, allowing(many...))
		if err := first.Detach(); err != nil {
			t.Fatal(err)
		}
		chain4, chain6 := iptables(t, v, 4, "-S", "NETCAP"), iptables(t, v, 6, "-S", "NETCAP")
		iptables(t, v, 6, "-D", "NETCAP", "6") // the bound in front of the reset
		iptables(t, v, 6, "-D", "NETCAP", "2") // a neighbour discovery rule
		iptables(t, v, 4, "-D", "INPUT", "-j", "NETCAP")
		iptables(t, v, 4, "-A", "FORWARD", "-j", "NETCAP")
		iptables(t, v, 4, "-I", "OUTPUT", "1", "-d", "203.0.113.1", "-j", "ACCEPT")
		t.Cleanup(func() { runLate(t, "iptables-"+v, "-D OUTPUT -d 203.0.113.1 -j ACCEPT") })
		waitUntil(t, short.ExpiresAt.Add(time.Second))
		second, _ := start(t, Config{Variant: v})
		got, err := second.List(t.Context())
		if err != nil || len(got) != 2 || got[0].Slot() != wide.Slot() || got[1].Slot() != reset.Slot() || got[1].Reason != reset.Reason {
			t.Fatalf("adopted %v, %v", got, err)
		}
		if late := got[0].ExpiresAt.Sub(wide.ExpiresAt); late < 0 || late >= time.Second {
			t.Errorf("adopted block ends %s, want %s", got[0].ExpiresAt, wide.ExpiresAt)
		}
		gone := ""
		for l := range strings.Lines(chain4) {
			if strings.Contains(l, "192.0.2.1/32") {
				gone = l
			}
		}
		if now := iptables(t, v, 4, "-S", "NETCAP"); gone == "" || now != strings.Replace(chain4, gone, "", 1) {
			t.Errorf("IPv4 chain is\n%s\nwant all but the ended rule of\n%s", now, chain4)
		}
		if now := iptables(t, v, 6, "-S", "NETCAP"); now != chain6 {
			t.Errorf("IPv6 chain is\n%s\nwant it mended to\n%s", now, chain6)
		}
		for _, from := range builtins() {
			rules := strings.Split(iptables(t, v, 4, "-S", from), "\n")
			if rules[1] != "-A "+from+" -j NETCAP" || strings.Count(strings.Join(rules, "\n"), "-j NETCAP") != 1 {
				t.Errorf("chain %s: %q", from, rules)
			}
		}
		// The holes close: a whitelist that is empty is a whitelist.
		apply(t, second, allowing())
		if now := iptables(t, v, 4, "-S", "NETCAP"); strings.Contains(now, "iprange") || strings.Count(now, "-A") != 3 {
			t.Errorf("after the allow list was emptied:\n%s", now)
		}
	})
}

// TestWithoutInit: what a killed process left can be looked at and taken away
// by one that makes nothing.
func TestWithoutInit(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		before := snapshot(t, v)
		look, _ := newBackend(t, Config{Variant: v})
		if _, err := look.List(t.Context()); !errors.Is(err, backend.ErrGone) {
			t.Errorf("list of nothing: %v, want ErrGone", err)
		}
		if got := snapshot(t, v); got != before {
			t.Errorf("List made\n%s", got)
		}
		left, _ := newBackend(t, Config{Variant: v})
		if err := left.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		apply(t, left, add(fresh("192.0.2.1", backend.Drop), fresh("2001:db8::1", backend.Reject)))
		there := snapshot(t, v)
		if n := count(t, look); n != 2 {
			t.Errorf("%d blocks, want 2", n)
		}
		if err := look.Detach(); err != nil {
			t.Fatal(err)
		}
		if err := look.Close(t.Context()); err != nil || snapshot(t, v) != there {
			t.Errorf("a detached Backend's Close: %v\n%s", err, snapshot(t, v))
		}
		for range 2 {
			cleaner, _ := newBackend(t, Config{Variant: v})
			if err := cleaner.Close(t.Context()); err != nil {
				t.Errorf("close: %v", err)
			}
			if got := snapshot(t, v); got != before {
				t.Errorf("left behind\n%s", got)
			}
		}
	})
}

// waitUntil waits for a moment of the kernel's clock.
func waitUntil(t testing.TB, at time.Time) {
	t.Helper()
	select {
	case <-time.After(time.Until(at)):
	case <-t.Context().Done():
		t.Fatal("test ended while waiting")
	}
}

// TestGone: what somebody else removed is noticed, and Init puts it back.
func TestGone(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, _ := start(t, Config{Variant: v})
		one, two := fresh("192.0.2.1", backend.Drop), fresh("192.0.2.2", backend.Drop)
		apply(t, b, add(one, two))
		iptables(t, v, 4, "-D", "NETCAP", "1")
		apply(t, b, remove(one))
		if n := count(t, b); n != 1 {
			t.Fatalf("%d blocks, want 1", n)
		}
		iptables(t, v, 4, "-D", "NETCAP", "1")
		longer := two
		longer.ExpiresAt = two.ExpiresAt.Add(time.Hour)
		apply(t, b, add(longer, one))
		if n := count(t, b); n != 2 {
			t.Fatalf("%d blocks, want 2", n)
		}
		for _, a := range []string{"-D INPUT -j NETCAP", "-D FORWARD -j NETCAP", "-D OUTPUT -j NETCAP", "-F NETCAP", "-X NETCAP"} {
			iptables(t, v, 4, strings.Fields(a)...)
		}
		for _, c := range []backend.Change{add(fresh("192.0.2.3", backend.Drop)), remove(one), remove(one, longer)} {
			if err := b.Apply(t.Context(), c); !errors.Is(err, backend.ErrGone) {
				t.Errorf("%s without the chain: %v, want ErrGone", c, err)
			}
		}
		const says = "chain NETCAP is missing (IPv4)"
		if _, err := b.List(t.Context()); !errors.Is(err, backend.ErrDamaged) || !strings.Contains(err.Error(), says) {
			t.Errorf("list without one family's chain: %v, want ErrDamaged that says %s", err, says)
		}
		if err := b.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := count(t, b); n != 0 {
			t.Errorf("%d blocks in a new chain", n)
		}
		apply(t, b, add(one))
		if n := count(t, b); n != 1 {
			t.Errorf("%d blocks, want 1", n)
		}
	})
}

// TestNoUnblockedMoment: while a block is replaced over and over, by another
// end, another action and another allow list, not one packet passes.
func TestNoUnblockedMoment(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, _ := start(t, Config{Variant: v})
		in, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = in.Close() }()
		block := fresh("127.0.0.2", backend.Drop)
		net8 := fresh("127.0.0.0/30", backend.Drop)
		apply(t, b, add(block))
		ctx, stop := context.WithCancel(t.Context())
		sent := make(chan int, 1)
		go func() { sent <- flood(ctx, in.LocalAddr().String()) }()
		for i := range 20 {
			block.ExpiresAt = block.ExpiresAt.Add(time.Second)
			apply(t, b, add(block))
			other := block
			other.Action = backend.Reject
			apply(t, b, backend.Change{Remove: []backend.Block{block}, Add: []backend.Block{other}})
			apply(t, b, backend.Change{Remove: []backend.Block{other}, Add: []backend.Block{net8}})
			apply(t, b, allowing(fmt.Sprintf("127.0.0.%d/32", i%2*2+1)))
			apply(t, b, allowing())
			apply(t, b, backend.Change{Remove: []backend.Block{net8}, Add: []backend.Block{block}})
		}
		stop()
		n := <-sent
		if err := in.SetReadDeadline(time.Now().Add(silence)); err != nil {
			t.Fatal(err)
		}
		if _, from, err := in.ReadFromUDP(make([]byte, 16)); err == nil {
			t.Errorf("a packet from %s passed", from)
		}
		if n < 1000 {
			t.Errorf("only %d packets were sent", n)
		}
		apply(t, b, remove(block))
		if _, _, err := probePassed(in.LocalAddr().String(), in); err != nil {
			t.Errorf("the way is not open without the block, so the test proves nothing: %v", err)
		}
	})
}

// flood sends datagrams from 127.0.0.2 until ctx ends and returns how many.
func flood(ctx context.Context, to string) int {
	out, err := dialFrom("127.0.0.2", to)
	if err != nil {
		return 0
	}
	defer func() { _ = out.Close() }()
	n := 0
	for ; ctx.Err() == nil; n++ {
		_, _ = out.Write([]byte("x")) // EPERM: our own OUTPUT chain drops it
	}
	return n
}

func dialFrom(from, to string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	return d.Dial("udp", to)
}

func probePassed(to string, in *net.UDPConn) (int, *net.UDPAddr, error) {
	out, err := dialFrom("127.0.0.2", to)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = out.Close() }()
	if _, err := out.Write([]byte("y")); err != nil {
		return 0, nil, err
	}
	if err := in.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, nil, err
	}
	return in.ReadFromUDP(make([]byte, 16))
}

// TestRejectRate: above the rate there is no answer. The budget is one for all
// blocks of the family.
func TestRejectRate(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		p := newProber(t)
		b, _ := start(t, Config{Variant: v, RejectRate: 1})
		apply(t, b, add(fresh("10.77.0.2", backend.Reject), fresh("10.77.0.3", backend.Reject)))
		begin := time.Now()
		answers := 0
		const probes = 10
		for i := range probes {
			from := netip.MustParseAddr([]string{"10.77.0.2", "10.77.0.3"}[i%2])
			switch got := p.Probe(t, b, backendtest.UDP, from, netip.MustParseAddr(backendtest.Guard4)); got {
			case backendtest.Unreachable:
				answers++
			case backendtest.Silent:
			default:
				t.Fatalf("probe %d: %s", i, got)
			}
		}
		if most := 2 + int(time.Since(begin)/time.Second); answers < 1 || answers > most {
			t.Errorf("%d answers to %d probes in %s, want 1 to %d", answers, probes, time.Since(begin), most)
		}
	})
}

// TestRejectRates: the listing rounds some rates; a rule is found and deleted
// all the same, by the process that made it and by the next.
func TestRejectRates(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		for _, rate := range []int{1, 7, 60, 999, 1000, 3600, 12_345, 333_333, 777_777, 1_000_000, -1} {
			cfg := Config{Variant: v, RejectRate: rate, IPv4: true}
			b, _ := start(t, cfg)
			one, two := fresh("192.0.2.1", backend.Reject), fresh("192.0.2.2", backend.Reject)
			apply(t, b, add(one, two))
			apply(t, b, remove(one))
			chain := iptables(t, v, 4, "-S", "NETCAP")
			if r, err := b.state.read(t.Context(), b.chains); err != nil || r.changed || b.Skipped() != 0 {
				t.Errorf("rate %d: changed %t, skipped %d, %v:\n%s", rate, r.changed, b.Skipped(), err, chain)
			}
			next, _ := start(t, cfg)
			if got := iptables(t, v, 4, "-S", "NETCAP"); got != chain {
				t.Errorf("rate %d: the next process changed\n%s\ninto\n%s", rate, chain, got)
			}
			apply(t, next, remove(two))
			if got := iptables(t, v, 4, "-S", "NETCAP"); got != "-N NETCAP\n" {
				t.Errorf("rate %d: left behind\n%s", rate, got)
			}
			if err := next.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestMany: above a thousand rules it is for the caller to warn, who knows
// another backend; they are counted for it.
func TestMany(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, log := start(t, Config{Variant: v})
		const many = 1000
		var all []backend.Block
		for i := range many + 2 {
			all = append(all, fresh(fmt.Sprintf("10.0.%d.%d", i/250, i%250), backend.Drop))
		}
		apply(t, b, add(all[:many]...))
		apply(t, b, add(all[many:]...))
		if log.Len() != 0 {
			t.Errorf("logged %q", log)
		}
		want(t, "rules", b.Rules(), many+2)
	})
}
