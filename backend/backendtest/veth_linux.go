package backendtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Namespace is a network namespace for the peer; *netlab.NS is one.
type Namespace interface {
	// Do runs f on a thread inside the namespace.
	Do(f func() error) error
	// IP runs the program ip inside the namespace.
	IP(ctx context.Context, args ...string) error
}

// port is where both ends answer.
const port = 7777

type end struct {
	in      func(func() error) error
	arrived chan string // "token source"
}

type veth struct {
	guard, peer *end
	peerNS      Namespace
	token       uint64
}

// Veth joins the test process's own network namespace (which must be a
// throwaway one: internal/nstest.Main) to the peer's, called name, with
// addresses as the constants of this package say, and listens at both ends.
func Veth(t testing.TB, name string, peer Namespace) Prober {
	t.Helper()
	v := &veth{
		guard:  &end{in: func(f func() error) error { return f() }, arrived: make(chan string, 64)},
		peer:   &end{in: peer.Do, arrived: make(chan string, 64)},
		peerNS: peer,
	}
	v.link(t, name)
	for _, e := range []*end{v.guard, v.peer} {
		if err := e.in(func() error { return e.listen(t) }); err != nil {
			t.Fatalf("listen: %v", err)
		}
	}
	return v
}

func (v *veth) link(t testing.TB, name string) {
	t.Helper()
	ctx := t.Context()
	v.own(t, "link", "add", "guard0", "type", "veth", "peer", "name", "peer0", "netns", name)
	t.Cleanup(func() { v.own(t, "link", "del", "guard0") })
	for _, args := range [][]string{
		{"addr", "add", Guard4 + "/24", "dev", "guard0"}, {"addr", "add", Guard6 + "/64", "dev", "guard0", "nodad"},
		{"link", "set", "guard0", "up"},
	} {
		v.own(t, args...)
	}
	peer := [][]string{{"link", "set", "peer0", "up"}}
	for i := 2; i <= 9; i++ {
		peer = append(peer, []string{"addr", "add", fmt.Sprintf("10.77.0.%d/24", i), "dev", "peer0"},
			[]string{"addr", "add", fmt.Sprintf("fd77::%d/64", i), "dev", "peer0", "nodad"})
	}
	// Every address of the routed networks is the peer's.
	peer = append(peer, []string{"route", "add", "local", Routed4, "dev", "lo"}, []string{"-6", "route", "add", "local", Routed6, "dev", "lo"})
	for _, args := range peer {
		if err := v.peerNS.IP(ctx, args...); err != nil {
			t.Fatal(err)
		}
	}
	// IPv6 lets a socket bind to such an address only if told so.
	if err := v.peerNS.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0)
	}); err != nil {
		t.Fatal(err)
	}
	v.own(t, "route", "add", Routed4, "via", marker4)
	v.own(t, "-6", "route", "add", Routed6, "via", marker6)
}

func (v *veth) own(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// listen takes datagrams and connections at every address.
func (e *end) listen(t testing.TB) error {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(t.Context(), "udp", ":"+strconv.Itoa(port))
	if err != nil {
		return err
	}
	ln, err := lc.Listen(t.Context(), "tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return errors.Join(err, pc.Close())
	}
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 64)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			select {
			case e.arrived <- string(buf[:n]) + " " + netip.MustParseAddrPort(from.String()).Addr().Unmap().String():
			default: // nobody reads any more; the end of the test must not hang here
			}
		}
	})
	done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_, _ = pc.Close(), ln.Close()
		done.Wait()
	})
	return nil
}

// Probe implements Prober.
func (v *veth) Probe(t testing.TB, _ backend.Backend, p Proto, from, to netip.Addr) Outcome {
	t.Helper()
	sender, receiver := v.peer, v.guard
	if from.String() == Guard4 || from.String() == Guard6 {
		sender, receiver = v.guard, v.peer
	}
	var out Outcome
	err := sender.in(func() (err error) {
		if p == TCP {
			out, err = connect(t.Context(), from, to)
		} else {
			out, err = v.datagram(t.Context(), sender, receiver, from, to)
		}
		return err
	})
	if err != nil {
		t.Fatalf("probe %s -> %s: %v", from, to, err)
	}
	return out
}

// datagram sends one datagram. The sender notices port-unreachable as the
// error of a later call on the connected socket.
func (v *veth) datagram(ctx context.Context, sender, receiver *end, from, to netip.Addr) (Outcome, error) {
	d := dialer(from, true)
	c, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(to, port).String())
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	token := v.next()
	_, err = c.Write([]byte(token))
	// A drop in the output hook is EPERM for the sender itself.
	if err != nil && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ECONNREFUSED) {
		return 0, err
	}
	passed, err := v.wait(ctx, sender, receiver, token+" "+from.String(), from.Is4())
	if err != nil || passed {
		return Passed, err
	}
	if err := c.SetReadDeadline(time.Now().Add(grace)); err != nil {
		return 0, err
	}
	_, err = c.Read(make([]byte, 1))
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Unreachable, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Silent, nil
	}
	return 0, fmt.Errorf("unexpected answer: %w", err)
}

func (v *veth) next() string {
	v.token++
	return "probe " + strconv.FormatUint(v.token, 10)
}

// wait sends a marker and waits until the probe or, a little longer, the
// marker has arrived.
func (v *veth) wait(ctx context.Context, sender, receiver *end, want string, v4 bool) (bool, error) {
	marker, err := v.mark(ctx, sender, v4)
	if err != nil {
		return false, err
	}
	limit := time.NewTimer(answerLimit)
	defer limit.Stop()
	marked := false
	for {
		select {
		case got := <-receiver.arrived:
			switch {
			case got == want:
				return true, nil
			case strings.HasPrefix(got, marker+" "):
				marked = true
				limit.Reset(grace)
			}
		case <-limit.C:
			if !marked {
				return false, errors.New("not even the marker arrived")
			}
			return false, nil
		}
	}
}

// mark sends a datagram that nobody stops: from or to the marker's address.
func (v *veth) mark(ctx context.Context, sender *end, v4 bool) (string, error) {
	from, to := marker6, Guard6
	if v4 {
		from, to = marker4, Guard4
	}
	if sender == v.guard {
		from, to = to, from
	}
	d := dialer(netip.MustParseAddr(from), true)
	c, err := d.DialContext(ctx, "udp", net.JoinHostPort(to, strconv.Itoa(port)))
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	token := v.next()
	_, err = c.Write([]byte(token))
	return token, err
}

// connect tells a reset from port-unreachable, which both are ECONNREFUSED, by
// what the kernel counts.
func connect(ctx context.Context, from, to netip.Addr) (Outcome, error) {
	before, err := unreachables()
	if err != nil {
		return 0, err
	}
	d := dialer(from, false)
	c, dialErr := d.DialContext(ctx, "tcp", netip.AddrPortFrom(to, port).String())
	if dialErr == nil {
		return Passed, c.Close()
	}
	after, err := unreachables()
	timeout := net.Error(nil)
	switch {
	case err != nil:
		return 0, err
	case after > before:
		return Unreachable, nil
	case errors.Is(dialErr, syscall.ECONNREFUSED):
		return Reset, nil
	case errors.As(dialErr, &timeout) && timeout.Timeout():
		return Silent, nil
	}
	return 0, dialErr
}

// unreachables is how many ICMP and ICMPv6 errors of type destination
// unreachable the calling thread's namespace has received.
func unreachables() (int, error) {
	v4, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return 0, err
	}
	v6, err := os.ReadFile("/proc/thread-self/net/snmp6")
	if err != nil {
		return 0, err
	}
	n := 0
	var names []string
	for line := range strings.Lines(string(v4)) {
		f := strings.Fields(line)
		if f[0] != "Icmp:" {
			continue
		}
		for i, name := range names {
			if name == "InDestUnreachs" {
				n, err = strconv.Atoi(f[i])
			}
		}
		names = f
	}
	for line := range strings.Lines(string(v6)) {
		if f := strings.Fields(line); err == nil && f[0] == "Icmp6InDestUnreachs" {
			var more int
			more, err = strconv.Atoi(f[1])
			n += more
		}
	}
	return n, err
}

// AtGuard implements Ends.
func (v *veth) AtGuard(f func() error) error { return v.guard.in(f) }

// AtPeer implements Ends.
func (v *veth) AtPeer(f func() error) error { return v.peer.in(f) }

// ForgetNeighbours implements Prober.
func (v *veth) ForgetNeighbours(t testing.TB) {
	t.Helper()
	v.own(t, "neigh", "flush", "dev", "guard0")
	if err := v.peerNS.IP(t.Context(), "neigh", "flush", "dev", "peer0"); err != nil {
		t.Fatal(err)
	}
}

// Resolve implements Prober. It makes both kernels ask for the other's address
// without a packet of their own, which a block could stop.
func (v *veth) Resolve(t testing.TB, neighbour netip.Addr) bool {
	t.Helper()
	return v.guard.resolve(t, "guard0", neighbour.String()) && v.peer.resolve(t, "peer0", Guard6)
}

func (e *end) resolve(t testing.TB, dev, neighbour string) bool {
	t.Helper()
	ip := func(args ...string) (out []byte, err error) {
		err = e.in(func() error {
			out, err = exec.CommandContext(t.Context(), "ip", args...).CombinedOutput()
			return err
		})
		return out, err
	}
	if out, err := ip("neigh", "replace", neighbour, "dev", dev, "use"); err != nil {
		t.Fatalf("ask for %s: %v\n%s", neighbour, err, out)
	}
	for limit := time.Now().Add(answerLimit); time.Now().Before(limit); {
		out, err := ip("neigh", "show", neighbour, "dev", dev)
		if err != nil {
			t.Fatalf("read neighbours: %v\n%s", err, out)
		}
		if strings.Contains(string(out), "lladdr") {
			return true
		}
		if strings.Contains(string(out), "FAILED") {
			return false
		}
	}
	return false
}
