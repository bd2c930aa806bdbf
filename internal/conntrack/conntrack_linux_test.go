package conntrack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// patience is how long a test waits for what comes at once.
const patience = 20 * time.Second

// track has the kernel follow connections in this namespace, forget about the
// middle of those it does not know, and translate the address of 127.0.0.3.
func track(t *testing.T) {
	t.Helper()
	nstest.Tool(t, "nft")
	run := func(script string) {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
	}
	run(`table inet track {
		chain in {
			type filter hook input priority 0; policy accept;
			ct state invalid drop
		}
		chain nat {
			type nat hook postrouting priority srcnat; policy accept;
			ip saddr 127.0.0.3 snat ip to 127.0.0.9
		}
	}`)
	t.Cleanup(func() { run("delete table inet track") })
	// Middles of connections that are not known are invalid, not new.
	if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
}

// pair is an established TCP connection.
type pair struct{ client, server net.Conn }

// connect makes a connection from an address of loopback to another.
func connect(t *testing.T, from, to string) *pair {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(to, "0"))
	if err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)), Timeout: patience}
	var p pair
	if p.client, err = d.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if p.server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = p.client.Close(), p.server.Close() // nothing is to be said any more
	})
	p.mustLive(t, true, patience)
	return &p
}

// mustLive checks whether what the client writes arrives.
func (p *pair) mustLive(t *testing.T, want bool, wait time.Duration) {
	t.Helper()
	if _, err := p.client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := p.server.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	_, err := p.server.Read(make([]byte, 1))
	switch {
	case want && err != nil:
		t.Errorf("the connection is dead: %v", err)
	case !want && !errors.Is(err, os.ErrDeadlineExceeded):
		t.Errorf("the connection lives (%v)", err)
	}
}

// tracked is how many entries belong to a prefix.
func tracked(t *testing.T, prefix string) int {
	t.Helper()
	p := netip.MustParsePrefix(prefix)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, end, err := dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	family := byte(unix.AF_INET)
	if p.Addr().Is6() {
		family = unix.AF_INET6
	}
	all, _, err := dump(conn, family, newMatcher([]netip.Prefix{p}, nil), maxKept)
	if err := errors.Join(err, end()); err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func kills(t *testing.T, want int, except func(netip.Addr) bool, prefixes ...string) {
	t.Helper()
	var list []netip.Prefix
	for _, p := range prefixes {
		list = append(list, netip.MustParsePrefix(p))
	}
	if n, err := Kill(t.Context(), list, except); n != want || err != nil {
		t.Errorf("killed %d of %v (%v), want %d", n, prefixes, err, want)
	}
}

func TestKill(t *testing.T) {
	kills(t, 0, nil, "192.0.2.0/24", "2001:db8::/32") // nothing is tracked here
	if err := Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	track(t)
	const server = "127.0.0.1"
	from, towards, natted := connect(t, "127.0.0.2", server), connect(t, server, "127.0.0.4"), connect(t, "127.0.0.3", server)
	bystander, excepted := connect(t, "127.0.0.6", server), connect(t, "127.0.0.7", server)
	six := connect(t, "::1", "::1")
	if n := tracked(t, "127.0.0.9/32"); n != 1 {
		t.Fatalf("%d entries of the translated address, want 1", n)
	}
	kills(t, 0, nil)
	kills(t, 0, nil, "192.0.2.0/24", "2001:db8::/32")
	kills(t, 3, nil, "127.0.0.2/32", "127.0.0.4/32", "127.0.0.9/32")
	kills(t, 0, nil, "127.0.0.2/32", "127.0.0.4/32", "127.0.0.9/32")
	kills(t, 0, func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.7") }, "127.0.0.7/32")
	for _, p := range []*pair{bystander, excepted, six} {
		p.mustLive(t, true, patience)
	}
	for _, p := range []*pair{from, towards, natted} {
		p.mustLive(t, false, 300*time.Millisecond)
	}
	kills(t, 1, nil, "::1/128")
	six.mustLive(t, false, 300*time.Millisecond)
	bystander.mustLive(t, true, patience)
	if n := tracked(t, "127.0.0.0/8"); n != 2 {
		t.Errorf("%d entries are left, want the bystander's and the excepted one", n)
	}
}

// TestKillEnds: a context that is over ends it at once.
func TestKillEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Kill(ctx, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, nil); err == nil {
		t.Error("no error although nothing could be asked")
	}
}

func TestExplain(t *testing.T) {
	for _, tc := range []struct{ err, want error }{
		{unix.EPERM, ErrPermission}, {unix.EINVAL, ErrUnsupported}, {unix.EOPNOTSUPP, ErrUnsupported}, {unix.ENOMEM, unix.ENOMEM},
	} {
		if err := explain(tc.err); !errors.Is(err, tc.want) {
			t.Errorf("%v is explained as %v", tc.err, err)
		}
	}
	if err := explain(nil); err != nil {
		t.Errorf("no error is explained as %v", err)
	}
}

// More entries than are kept in memory at once are deleted all the same.
func TestKillInRounds(t *testing.T) {
	track(t)
	for range 5 {
		connect(t, "127.0.0.8", "127.0.0.1")
	}
	for _, most := range []int{2, 5} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		n, err := kill(ctx, newMatcher([]netip.Prefix{netip.MustParsePrefix("127.0.0.8/32")}, nil), most)
		cancel()
		if want := map[int]int{2: 5, 5: 0}[most]; n != want || err != nil {
			t.Errorf("killed %d, at most %d in memory (%v), want %d", n, most, err, want)
		}
	}
}
