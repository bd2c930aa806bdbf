package netns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// Ports that only these tests use.
const (
	alarmPort = 7777 // what rules look for
	countPort = 7778 // where datagrams are counted
)

// alarmRule is a rule that fires on two datagrams to the alarm port.
const alarmRule = "Alarm"

// alarmRules writes a file with the alarm rule and its actions, a line each.
func alarmRules(t *testing.T, actions ...string) string {
	t.Helper()
	text := fmt.Sprintf(`rules:
  - name: %s
    type: UDP
    expression: DstPort == %d
    threshold: 2
    actions:
`, alarmRule, alarmPort)
	for _, a := range actions {
		text += "      - {type: " + a + "}\n"
	}
	return write(t, "alarm.yml", text)
}

// dial opens a UDP socket of a host.
func dial(t *testing.T, from host, to netip.Addr, port uint16) net.Conn {
	t.Helper()
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(t.Context(), "udp", netip.AddrPortFrom(to, port).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // nothing is lost that matters
	return c
}

// alarm sends what the alarm rule looks for.
func alarm(t *testing.T, from host, to netip.Addr) {
	t.Helper()
	c := dial(t, from, to, alarmPort)
	for sent := 0; sent < 2; {
		if _, err := c.Write([]byte("alarm")); err == nil { // an error tells of the one before: nobody listens there
			sent++
		}
	}
}

// counter counts the datagrams that arrive at a port, by who sent them.
type counter struct {
	mu   sync.Mutex // guards what follows
	from map[netip.Addr]int
}

// count begins to count what arrives at both addresses of a host.
func count(t *testing.T, at host) *counter {
	t.Helper()
	c := &counter{from: map[netip.Addr]int{}}
	for _, a := range []netip.Addr{at.v4, at.v6} {
		var in net.PacketConn
		err := at.Do(func() (err error) {
			in, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", netip.AddrPortFrom(a, countPort).String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.receive(in)
		}()
		t.Cleanup(func() {
			_ = in.Close() // ends receive
			<-done
		})
	}
	return c
}

func (c *counter) receive(in net.PacketConn) {
	buf := make([]byte, 64)
	for {
		_, from, err := in.ReadFrom(buf)
		if err != nil {
			return
		}
		if ap, err := netip.ParseAddrPort(from.String()); err == nil {
			c.mu.Lock()
			c.from[ap.Addr()]++
			c.mu.Unlock()
		}
	}
}

func (c *counter) of(a netip.Addr) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.from[a]
}

// pace sends n datagrams, each so much after the one before, and returns how
// long that took.
func pace(c net.Conn, n int, gap time.Duration) time.Duration {
	began := time.Now()
	tick := time.NewTicker(gap)
	defer tick.Stop()
	for range n {
		_, _ = c.Write([]byte("count me")) // what arrives is counted
		<-tick.C
	}
	return time.Since(began)
}

// settled waits until nothing arrives any more of what an address sent.
func (c *counter) settled(t *testing.T, a netip.Addr) int {
	t.Helper()
	last, since := c.of(a), time.Now()
	eventually(t, "no more arrives", func() bool {
		if n := c.of(a); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
	return last
}

// TestRateLimit: of 300 datagrams in 3 s at 10/second burst 5 between 30 and
// 40 pass, the bystander loses none, and after the duration all pass.
func TestRateLimit(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		g := startGuard(t, f, w.victim.NS, alarmRules(t, "iptables_rate_limit, config: {rate: 10/second, burst: 5, duration: 10s}"))
		counted := count(t, w.victim)
		var ends time.Time
		for _, to := range families(w) {
			alarm(t, w.attacker, to)
			a := w.attacker.addr(to).String()
			e := g.await(t, "action on "+a, func(e event) bool { return e.Type == "action" && e.Action.IP == a }).Action
			if e.Type != "iptables_rate_limit" || e.Result != "created" || e.Limit != "10/second burst 5" {
				t.Fatalf("action %+v", e)
			}
			ends = e.Expires
		}
		var group sync.WaitGroup
		for name, to := range families(w) {
			attacker, bystander := dial(t, w.attacker, to, countPort), dial(t, w.bystander, to, countPort)
			group.Go(func() { mustBeLimited(t, name, attacker, counted, w.attacker.addr(to)) })
			group.Go(func() { pace(bystander, 300, 10*time.Millisecond) })
		}
		group.Wait()
		if late := time.Since(ends); late > 0 {
			t.Errorf("sending ended %s after the limit: this machine is too busy to tell", late)
		}
		for _, to := range families(w) {
			if n := counted.settled(t, w.bystander.addr(to)); n != 300 {
				t.Errorf("%d of the bystander's 300 datagrams arrived", n)
			}
		}
		listed := find(t, list(t, f, w.victim.NS), w.attacker.v4)
		if listed.Action != "RATE_LIMIT" || listed.Limit != "10/second burst 5" || listed.Packets == nil || *listed.Packets < 200 {
			t.Errorf("listed %+v, want the limit and the packets above it", listed)
		}
		g.await(t, "expire event", func(e event) bool { return e.Type == "expire" })
		eventually(t, "both limits have ended", func() bool { return len(list(t, f, w.victim.NS)) == 0 })
		for name, to := range families(w) {
			before := counted.of(w.attacker.addr(to))
			pace(dial(t, w.attacker, to, countPort), 100, time.Millisecond)
			if n := counted.settled(t, w.attacker.addr(to)) - before; n != 100 {
				t.Errorf("%s: after the duration %d of 100 datagrams pass", name, n)
			}
		}
		stats := g.end(t).Stats
		if d := stats.Drops["RATE_LIMIT"]; d.IPv4 < 200 || d.IPv6 < 200 {
			t.Errorf("drops %+v, want those above the rate", stats.Drops)
		}
	})
}

// mustBeLimited sends 300 datagrams in 3 s and checks how many pass. On a busy
// machine it takes longer, and more pass.
func mustBeLimited(t *testing.T, name string, c net.Conn, counted *counter, who netip.Addr) {
	// What the alarm took out of the bucket comes back.
	pause := time.NewTimer(time.Second)
	<-pause.C
	before := counted.of(who)
	took := pace(c, 300, 10*time.Millisecond)
	passed := counted.settled(t, who) - before
	t.Logf("%s: %d of 300 passed in %s", name, passed, took.Round(time.Millisecond))
	low, high := 10*took.Seconds()-1, 10*took.Seconds()+5+3
	if float64(passed) < low || float64(passed) > high {
		t.Errorf("%s: %d of 300 passed in %s, want %.0f to %.0f", name, passed, took, low, high)
	}
}

// kernelLogs returns what the kernel's log said of an address so far.
func (g *guard) kernelLogs(t *testing.T, ip string) []event {
	t.Helper()
	return slices.DeleteFunc(g.said(t, "log"), func(e event) bool { return !e.Log.Kernel || e.SrcIP != ip })
}

// mustBeLogged sends one datagram after the other until the guard tells of
// one, and returns how long that took.
func mustBeLogged(t *testing.T, g *guard, from host, to netip.Addr) time.Duration {
	t.Helper()
	ip := from.addr(to).String()
	c, before := dial(t, from, to, countPort), len(g.kernelLogs(t, ip))
	sent := time.Now()
	_, _ = c.Write([]byte("log me")) // may be blocked
	n := 0
	e := g.await(t, "kernel's log of "+ip, func(e event) bool {
		if e.Type == "log" && e.Log.Kernel && e.SrcIP == ip {
			n++
		}
		return n > before
	})
	took := time.Since(sent)
	if e.Log.Prefix != "SEEN: " || e.Log.Rule != alarmRule {
		t.Errorf("the kernel's log says %+v", e.Log)
	}
	return took
}

// TestKernelLog: the packets of a source that passes and of one that is
// blocked are told of, by the rule that asked for it.
func TestKernelLog(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		f.config = "nflog_group: 4242\n"
		g := startGuard(t, f, w.victim.NS, alarmRules(t, "iptables_log, config: {prefix: 'SEEN: ', kernel: true, duration: 10m}"))
		counted := count(t, w.victim)
		for name, to := range families(w) {
			a := w.attacker.addr(to)
			alarm(t, w.attacker, to)
			e := g.await(t, "log event", func(e event) bool { return e.Type == "log" && e.SrcIP == a.String() })
			if e.Log.Kernel || e.Log.Error != "" || e.Log.Prefix != "SEEN: " || e.Log.Rule != alarmRule {
				t.Fatalf("log %+v", e.Log)
			}
			eventually(t, "the log rule is in force", func() bool { return len(list(t, f, w.victim.NS)) > 0 })
			passing := mustBeLogged(t, g, w.attacker, to)
			eventually(t, "what is logged arrives", func() bool { return counted.of(a) > 0 })
			verb(t, f, w.victim.NS, "block", a.String(), "--for", "10m").mustBe(t, 0)
			arrived := counted.settled(t, a)
			blocked := mustBeLogged(t, g, w.attacker, to)
			if n := counted.settled(t, a); n != arrived {
				t.Errorf("%s: %d datagrams of a blocked source arrived", name, n-arrived)
			}
			t.Logf("%s: an event after %s (passing), %s (blocked)", name, passing.Round(time.Microsecond), blocked.Round(time.Microsecond))
			verb(t, f, w.victim.NS, "flush").mustBe(t, 0)
		}
		if len(g.kernelLogs(t, w.bystander.v4.String())) > 0 {
			t.Error("the kernel logs a bystander")
		}
		if stats := g.end(t).Stats; stats.KernelLog["packets"] < 4 || stats.KernelLog["unavailable"] != 0 {
			t.Errorf("statistics %v", stats.KernelLog)
		}
	})
}

// TestLogGroupInUse: somebody else reads the group; one warning and a counter,
// and blocking goes on.
func TestLogGroupInUse(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	nstest.Tool(t, "tcpdump")
	w := newWorld(t)
	other := w.victim.Command(t.Context(), "tcpdump", "-i", "nflog:77", "-n", "-c", "1")
	other.Stdout, other.Stderr = nil, nil
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill() // it may have ended
		_ = other.Wait()
	})
	eventually(t, "the group is taken", func() bool {
		out, err := w.victim.Exec(t.Context(), "cat", "/proc/thread-self/net/netfilter/nfnetlink_log")
		return err == nil && strings.Contains(out, "77 ")
	})
	g := startGuard(t, f, w.victim.NS, alarmRules(t, "iptables_log, config: {prefix: 'SEEN: ', kernel: true}", "iptables_block, config: {duration: 10m}"))
	for _, to := range families(w) {
		alarm(t, w.attacker, to)
		a := w.attacker.addr(to).String()
		g.await(t, "block of "+a, func(e event) bool { return e.Type == "action" && e.Action.IP == a && e.Action.Result == "created" })
		mustNotReach(t, "attacker", w.attacker, to)
	}
	if n := g.warnings("NFLOG group 77: is read by another program"); n != 1 {
		t.Errorf("%d warnings of the group, want 1", n)
	}
	if stats := g.end(t).Stats; stats.KernelLog["unavailable"] == 0 || stats.KernelLog["packets"] != 0 {
		t.Errorf("statistics %v", stats.KernelLog)
	}
}

// longList is a list of n lines of which so many are bad, spread over it, and
// the numbers of those.
func longList(n, bad int) (text string, lines []string) {
	var b strings.Builder
	a := netip.MustParseAddr("10.0.0.0")
	for i := 1; i <= n; i++ {
		if a = a.Next(); i%(n/bad) == 0 && len(lines) < bad {
			fmt.Fprintf(&b, "10.0.%d\n", i)
			lines = append(lines, fmt.Sprintf("line %d: ", i))
			continue
		}
		b.WriteString(a.String() + "\n")
	}
	return b.String(), lines
}

// TestLongList: of a list of 100,000 lines the good ones are blocked, the 37
// bad ones named, by a running guard and without one.
func TestLongList(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWorld(t)
	text, bad := longList(100_000, 37)
	block := func() {
		t.Helper()
		cmd := f.command(t, w.victim.NS, guardBinary(), slices.Concat([]string{"block", "-", "--for", "10m"}, common(t, f, w.victim.NS))...)
		cmd.Stdin = strings.NewReader(text)
		began := time.Now()
		r := finish(t, cmd).mustBe(t, 1)
		t.Logf("100,000 lines in %s", time.Since(began).Round(time.Millisecond))
		if r.stdout != "100000 lines: 99963 created, 37 failed\n" {
			t.Errorf("it says %q", r.stdout)
		}
		for _, line := range bad {
			if !strings.Contains(r.stderr, line) {
				t.Errorf("it does not name %q", line)
			}
		}
		if n := strings.Count(r.stderr, "\n"); n != len(bad) {
			t.Errorf("%d lines on standard error, want %d:\n%.500s", n, len(bad), r.stderr)
		}
	}
	block()
	mustHold(t, f, w, "10.0.0.1", "10.1.134.160") // the first and the last good one
	verb(t, f, w.victim.NS, "cleanup").mustBe(t, 0)
	g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
	idle := resident(t, g.PID())
	block()
	mustHold(t, f, w, "10.0.0.1", "10.1.134.160")
	mustBeSmall(t, g, idle)
	if stats := g.end(t).Stats.Firewall; stats["blocks_created"] != 99_963 {
		t.Errorf("statistics %v", stats)
	}
}

// mustBeSmall checks what a guard with 100,000 blocks holds above an idle one,
// once it has given back what it needed to make them.
func mustBeSmall(t *testing.T, g *guard, idle int) {
	t.Helper()
	const room = 60 << 10 // kilobytes
	after := resident(t, g.PID())
	eventually(t, "100,000 blocks take at most 60 MB", func() bool { return resident(t, g.PID()) <= idle+room })
	now := resident(t, g.PID())
	t.Logf("resident: idle %d kB, after 100,000 blocks %d kB, then %d kB: %d kB above the idle guard", idle, after, now, now-idle)
}

// mustHold checks that the kernel itself knows the addresses; the program nft
// is asked once, because it reads the whole set for every question.
func mustHold(t *testing.T, f flavour, w world, addrs ...string) {
	t.Helper()
	f.run(t, w.victim.NS, "nft", "get", "element", "inet", "NETCAP", "drop_src4_32", "{ "+strings.Join(addrs, ", ")+" }")
}
