package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

// stage is one running demo.
type stage struct {
	out     *printer
	backend backend
	temp    string
	lab     *netlab.Lab
	guard   *netlab.Process
	closers []io.Closer

	victim, attacker, bystander *netlab.NS

	checks  int
	failed  []string
	blocked time.Duration // how long the port scanner was kept out
}

// host is where somebody is found in the demo's network.
type host struct{ v4, v6 netip.Addr }

func hosts() (victim, attacker, bystander host) {
	at := func(n string) host {
		return host{netip.MustParseAddr("192.0.2." + n), netip.MustParseAddr("2001:db8::" + n)}
	}
	return at("10"), at("66"), at("20")
}

// burstAddrs says where the second attack comes from and goes to: IPv6 where
// the kernel has it, so that both families are shown, else the attacker's
// second IPv4 address.
func burstAddrs() (from, to netip.Addr) {
	victim, attacker, _ := hosts()
	if haveIPv6() {
		return attacker.v6, victim.v6
	}
	return attacker.v4.Next(), victim.v4
}

func haveIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// build joins the three hosts through a switch: one network, one interface
// each, so the victim sees every packet once.
func (s *stage) build(ctx context.Context) error {
	hub, err := s.lab.Switch(ctx, "switch")
	if err != nil {
		return err
	}
	victim, attacker, bystander := hosts()
	for _, h := range []struct {
		name  string
		ns    **netlab.NS
		addrs []netip.Addr
	}{
		{"victim", &s.victim, []netip.Addr{victim.v4, victim.v6}},
		{"attacker", &s.attacker, []netip.Addr{attacker.v4, attacker.v6, attacker.v4.Next()}},
		{"bystander", &s.bystander, []netip.Addr{bystander.v4, bystander.v6}},
	} {
		if *h.ns, err = hub.Plug(ctx, h.name, networks(h.addrs)...); err != nil {
			return err
		}
		s.out.say("%-9s %s", h.name, strings.Trim(fmt.Sprint(h.addrs), "[]"))
	}
	return s.listenSSH(ctx, netip.AddrPortFrom(victim.v4, 22), victim.v6)
}

// networks gives each address its prefix length and leaves IPv6 out where the
// kernel has none.
func networks(addrs []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		switch {
		case a.Is4():
			out = append(out, netip.PrefixFrom(a, 24))
		case haveIPv6():
			out = append(out, netip.PrefixFrom(a, 64))
		}
	}
	return out
}

// listenSSH puts something that greets like an SSH server on port 22 of the
// victim, for both families.
func (s *stage) listenSSH(ctx context.Context, v4 netip.AddrPort, v6 netip.Addr) error {
	at := []netip.AddrPort{v4}
	if haveIPv6() {
		at = append(at, netip.AddrPortFrom(v6, v4.Port()))
	}
	return s.victim.Do(func() error {
		for _, a := range at {
			ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.String())
			if err != nil {
				return err
			}
			s.closers = append(s.closers, ln)
			go greet(ln)
		}
		return nil
	})
}

// greet serves until the listener is closed.
func greet(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "SSH-2.0-demo\r\n") // the peer may be gone already
		_ = c.Close()
	}
}

// connect opens a TCP connection from inside ns, from one address to another,
// and reads the greeting.
func connect(ctx context.Context, ns *netlab.NS, from, to netip.Addr) error {
	d := net.Dialer{Timeout: time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	return ns.Do(func() error {
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(to, 22).String())
		if err != nil {
			return err
		}
		err = c.SetReadDeadline(time.Now().Add(time.Second))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, len("SSH-")))
		}
		return errors.Join(err, c.Close())
	})
}

// pings reports whether one echo request from inside ns, sent from the given
// address, is answered within a second. Its error is for a ping that could not
// be tried.
func pings(ctx context.Context, ns *netlab.NS, from, to netip.Addr) (bool, error) {
	_, err := ns.Exec(ctx, "ping", "-n", "-q", "-c", "1", "-W", "1", "-I", from.String(), to.String())
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return false, nil
	}
	return err == nil, err
}

// expect prints and counts one expectation.
func (s *stage) expect(ok bool, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.checks++
	if !ok {
		s.failed = append(s.failed, text)
	}
	s.out.check(ok, text)
}
