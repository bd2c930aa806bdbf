package netns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// patience is how long a test waits for what must come.
const patience = 90 * time.Second

// host is a namespace with its two addresses.
type host struct {
	*netlab.NS
	v4, v6 netip.Addr
}

// addr is the host's address of the family that like is of.
func (h host) addr(like netip.Addr) netip.Addr {
	if like.Is6() {
		return h.v6
	}
	return h.v4
}

// world is the usual network: three hosts on one switch.
type world struct {
	lab                         *netlab.Lab
	victim, attacker, bystander host
}

func newWorld(t *testing.T) world {
	t.Helper()
	lab := nstest.Lab(t)
	hub, err := lab.Switch(t.Context(), "switch")
	if err != nil {
		t.Fatal(err)
	}
	plug := func(name, number string) host {
		h := host{v4: netip.MustParseAddr("192.0.2." + number), v6: netip.MustParseAddr("2001:db8::" + number)}
		h.NS, err = hub.Plug(t.Context(), name, netip.PrefixFrom(h.v4, 24), netip.PrefixFrom(h.v6, 64))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	w := world{lab: lab, victim: plug("victim", "10"), attacker: plug("attacker", "66"), bystander: plug("bystander", "20")}
	serve(t, w.victim, 8080)
	return w
}

// newRoutedWorld has a router between the attacker and the two others; the
// attacker's traffic to them passes its FORWARD path.
func newRoutedWorld(t *testing.T) (w world, router host) {
	t.Helper()
	lab := nstest.Lab(t)
	outside, inside := newSwitch(t, lab, "outside"), newSwitch(t, lab, "inside")
	at := func(ns *netlab.NS, net, number string) host {
		return host{ns, netip.MustParseAddr("192.0." + net + "." + number), netip.MustParseAddr("2001:db8:" + net + "::" + number)}
	}
	router = at(nstest.NS(t, lab, "router"), "2", "1")
	inner := at(router.NS, "3", "1")
	w = world{lab: lab, attacker: at(nstest.NS(t, lab, "attacker"), "2", "66"),
		bystander: at(nstest.NS(t, lab, "bystander"), "2", "20"), victim: at(nstest.NS(t, lab, "victim"), "3", "10")}
	for _, c := range []struct {
		to    *netlab.Switch
		h     host
		iface string
	}{{outside, router, "eth0"}, {inside, inner, "eth1"}, {outside, w.attacker, "eth0"}, {outside, w.bystander, "eth0"}, {inside, w.victim, "eth0"}} {
		err := c.to.Connect(t.Context(), c.h.NS, c.iface, netip.PrefixFrom(c.h.v4, 24), netip.PrefixFrom(c.h.v6, 64))
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range []host{w.attacker, w.bystander, w.victim} {
		gateway := router
		if h.NS == w.victim.NS {
			gateway = inner
		}
		if err := errors.Join(h.Default(t.Context(), gateway.v4), h.Default(t.Context(), gateway.v6)); err != nil {
			t.Fatal(err)
		}
	}
	if err := router.Forward(); err != nil {
		t.Fatal(err)
	}
	serve(t, w.victim, 8080)
	return w, router
}

func newSwitch(t *testing.T, lab *netlab.Lab, name string) *netlab.Switch {
	t.Helper()
	s, err := lab.Switch(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serve answers TCP connections to both addresses of the host.
func serve(t *testing.T, h host, port uint16) {
	t.Helper()
	err := h.Do(func() error {
		for _, a := range []netip.Addr{h.v4, h.v6} {
			ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(a, port).String())
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = ln.Close() })
			go answer(ln)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func answer(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "hello\n") // the peer may be gone already
		_ = c.Close()
	}
}

// connect opens a TCP connection from inside a host and reads the greeting.
func connect(ctx context.Context, from host, to netip.Addr, wait time.Duration) error {
	d := net.Dialer{Timeout: wait}
	return from.Do(func() error {
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(to, 8080).String())
		if err != nil {
			return err
		}
		if err = c.SetReadDeadline(time.Now().Add(wait)); err == nil {
			_, err = io.ReadFull(c, make([]byte, len("hello")))
		}
		return errors.Join(err, c.Close())
	})
}

// pings reports whether an echo request is answered within a second.
func pings(t *testing.T, from host, to netip.Addr) bool {
	t.Helper()
	_, err := from.Exec(t.Context(), "ping", "-n", "-q", "-c", "1", "-W", "1", to.String())
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// mustReach checks that a host is served: it is given several tries, for a
// busy machine's sake.
func mustReach(t *testing.T, who string, from host, to netip.Addr) {
	t.Helper()
	eventually(t, who+"'s ping to "+to.String()+" is answered", func() bool { return pings(t, from, to) })
	if err := connect(t.Context(), from, to, patience); err != nil {
		t.Errorf("%s is not served by %s: %v", who, to, err)
	}
}

// mustNotReach checks that a host is not served.
func mustNotReach(t *testing.T, who string, from host, to netip.Addr) {
	t.Helper()
	if pings(t, from, to) {
		t.Errorf("%s's ping to %s is answered", who, to)
	}
	if connect(t.Context(), from, to, time.Second) == nil {
		t.Errorf("%s is served by %s", who, to)
	}
}

// eventually waits until the condition holds, or fails the test. The
// condition does something that takes time itself: the kernel is not asked in
// a tight loop.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %s until %s", patience, what)
		}
	}
}

// scan is a real SYN scan of a hundred ports, without retries: once blocked
// there is nobody to answer.
func scan(t *testing.T, from host, to netip.Addr) {
	t.Helper()
	args := []string{"-sS", "-n", "-Pn", "-F", "-T5", "--max-retries", "0", to.String()}
	if to.Is6() {
		args = append([]string{"-6"}, args...)
	}
	nstest.Run(t, from.NS, "nmap", args...)
}

// probe is nmap's word on the one port and the reason for it, "open syn-ack"
// or "filtered port-unreach".
func probe(t *testing.T, from host, to netip.Addr) string {
	t.Helper()
	args := []string{"-sS", "-n", "-Pn", "--reason", "-p", "8080", to.String()}
	if to.Is6() {
		args = append([]string{"-6"}, args...)
	}
	out := nstest.Run(t, from.NS, "nmap", args...)
	return lineWith(out, "8080/tcp")
}

// isRefused reports whether a connection was refused rather than left hanging.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
