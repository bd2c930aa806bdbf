package nflog

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// patience is how long a test waits for what the kernel tells at once.
const patience = 20 * time.Second

// logRules makes a table that logs UDP to ports 9001 and 9002 of loopback.
func logRules(t *testing.T) {
	t.Helper()
	nstest.Tool(t, "nft")
	run := func(script string) {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
	}
	run(`table inet logs {
		chain in {
			type filter hook input priority 0; policy accept;
			udp dport 9001 log prefix "FIRST: " group 77
			udp dport 9002 log prefix "SECOND 'x" group 77 drop
			udp dport 9003 log prefix "OTHER: " group 78
		}
	}`)
	t.Cleanup(func() { run("delete table inet logs") })
}

// send sends n datagrams to a port and returns where they came from.
func send(t *testing.T, host, port string, n int) netip.AddrPort {
	t.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		_, _ = c.Write([]byte("x")) // nobody listens: the next may be refused
	}
	from := netip.MustParseAddrPort(c.LocalAddr().String())
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return from
}

// open opens a group and closes it at the end.
func open(t *testing.T, c Config) *Reader {
	t.Helper()
	r, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeReader(t, r) })
	return r
}

// start runs a reader; the channel gives what it reads and is closed with it.
func start(t *testing.T, r *Reader) <-chan Packet {
	t.Helper()
	got := make(chan Packet, 1<<16)
	go func() {
		defer close(got)
		if err := r.Run(func(p *Packet) { got <- *p }); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(func() {
		closeReader(t, r)
		for range got {
		}
	})
	return got
}

func closeReader(t *testing.T, r *Reader) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func next(t *testing.T, got <-chan Packet) Packet {
	t.Helper()
	select {
	case p, ok := <-got:
		if !ok {
			t.Fatal("the reader ended")
		}
		return p
	case <-time.After(patience):
		t.Fatal("nothing was read")
	}
	return Packet{}
}

func TestReadsTheGroup(t *testing.T) {
	logRules(t)
	r := open(t, Config{Group: 77})
	got := start(t, r)
	for _, tc := range []struct{ host, port, prefix string }{
		{"127.0.0.1", "9001", "FIRST: "}, {"::1", "9001", "FIRST: "}, {"127.0.0.1", "9002", "SECOND 'x"}, {"::1", "9002", "SECOND 'x"},
	} {
		send(t, "127.0.0.1", "9003", 1) // another group's
		asked := time.Now()
		from := send(t, tc.host, tc.port, 1)
		p := next(t, got)
		t.Logf("%s port %s after %v", tc.host, tc.port, time.Since(asked))
		to := netip.MustParseAddrPort(net.JoinHostPort(tc.host, tc.port))
		if p.Src != from.Addr() || p.SrcPort != from.Port() || p.Dst != to.Addr() || p.DstPort != to.Port() || p.Proto != 17 {
			t.Errorf("%+v, want UDP from %s to %s", p, from, to)
		}
		if p.Prefix != tc.prefix || p.Hook != 1 || p.InDev != 1 {
			t.Errorf("%+v, want prefix %q, hook 1, device lo", p, tc.prefix)
		}
		if !p.Time.IsZero() && time.Since(p.Time).Abs() > time.Hour {
			t.Errorf("time %v", p.Time)
		}
	}
	if s := r.Stats(); s != (Stats{Received: 4}) {
		t.Errorf("%+v, want 4 received and nothing else", s)
	}
}

// TestGroupInUse: who comes second is told who was first, and may have the
// group once it is given up.
func TestGroupInUse(t *testing.T) {
	first := open(t, Config{Group: 77})
	_, err := Open(Config{Group: 77})
	if !errors.Is(err, ErrInUse) || !strings.HasPrefix(err.Error(), "NFLOG group 77: is read by another program (netlink port ") {
		t.Errorf("error %v", err)
	}
	open(t, Config{Group: 0})
	open(t, Config{Group: 65535})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, Config{Group: 77})
}

// TestLossIsCounted: what the socket has no room for is counted, packet by
// packet.
func TestLossIsCounted(t *testing.T) {
	logRules(t)
	r := open(t, Config{Group: 77, Buffer: 4096})
	const sent = 2000
	send(t, "127.0.0.1", "9002", sent)
	got := start(t, r)
	next(t, got) // there is room again
	received := uint64(1)
	for last := false; !last; {
		from := send(t, "::1", "9002", 1)
		for !last {
			select {
			case p := <-got:
				received++
				last = p.SrcPort == from.Port() && p.Src.Is6()
				continue
			case <-time.After(time.Second): // it was lost as well
			}
			break
		}
	}
	s := r.Stats()
	if s.Lost == 0 || s.Overruns == 0 || s.Received != received || s.Received+s.Lost < sent+1 {
		t.Errorf("%+v, %d read, want all of %d received or lost", s, received, sent+1)
	}
	t.Logf("%+v of %d", s, sent)
}

// TestCloseEndsRun: also where nothing is ever logged.
func TestCloseEndsRun(t *testing.T) {
	r := open(t, Config{Group: 9})
	got := start(t, r)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case _, ok := <-got:
		if ok {
			t.Error("a packet out of nowhere")
		}
	case <-time.After(patience):
		t.Fatal("Run does not end")
	}
}
