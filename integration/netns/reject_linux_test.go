package netns

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// A client sends its SYN again after one second, and after three.
const (
	// atOnce: the answer to the first packet was enough.
	atOnce = 900 * time.Millisecond
	// soon: the answer to the second was. Linux ignores an ICMP answer to a
	// SYN that arrives while connect still holds the socket, and over a veth
	// pair it arrives before the SYN's own transmission returns.
	soon = 2900 * time.Millisecond
)

// TestRejectIsSeenAtOnce: who is rejected is told, by the guard's own host and
// by the hosts behind it, and need not wait for a timeout.
func TestRejectIsSeenAtOnce(t *testing.T) {
	for action, limit := range map[string]time.Duration{"reject": soon, "reject-reset": atOnce} {
		t.Run(action, func(t *testing.T) {
			each(t, func(t *testing.T, f flavour) {
				w, router := newRoutedWorld(t)
				unlimitedAnswers(t, router)
				serve(t, router, 8080)
				g := startGuard(t, f, router.NS, rules(t, "iptables_block", "duration: 10m"))
				targets := []netip.Addr{router.v4, router.v6, w.victim.v4, w.victim.v6}
				for _, to := range targets {
					mustReach(t, "attacker before", w.attacker, to)
				}
				for _, a := range []netip.Addr{w.attacker.v4, w.attacker.v6} {
					verb(t, f, router.NS, "block", a.String(), "--action", action).mustBe(t, 0)
				}
				for _, to := range targets {
					// A busy machine may lose the race with the clock once.
					eventually(t, "a connection to "+to.String()+" is refused at once", func() bool {
						return isRefused(connect(t.Context(), w.attacker, to, limit))
					})
					eventually(t, "a datagram to "+to.String()+" is refused", func() bool { return isRefused(ask(t, w.attacker, to)) })
					mustReach(t, "bystander", w.bystander, to)
				}
				g.end(t)
			})
		})
	}
}

// ask sends a datagram to a port and returns what became of it: an answer that
// says port unreachable is an error of the socket.
func ask(t *testing.T, from host, to netip.Addr) error {
	t.Helper()
	return from.Do(func() error {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "udp", netip.AddrPortFrom(to, flowPort).String())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // nothing is lost that matters
		if _, err := conn.Write([]byte("anybody?")); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(atOnce)); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 8))
		return err
	})
}

// TestRejectAnswersAreBounded: a flood is answered at most so many times a
// second, and the rest is dropped without a word: no backscatter.
func TestRejectAnswersAreBounded(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		const rate = 20
		f.config = "reject_rate: " + strconv.Itoa(rate) + "\n"
		w, router := newRoutedWorld(t)
		unlimitedAnswers(t, router)
		g := startGuard(t, f, router.NS, rules(t, "iptables_block", "duration: 10m"))
		for name, a := range map[string]netip.Addr{"IPv4": w.attacker.v4, "IPv6": w.attacker.v6} {
			there, through := router.addr(a), w.victim.addr(a)
			flows := []*flow{startFlow(t, name+" to the router", w.attacker, &router, there),
				startFlow(t, name+" through the router", w.attacker, &w.victim, through)}
			for _, fl := range flows {
				fl.mustPass(t, "before")
			}
			before, began := unreachables(t, w.attacker, a), time.Now()
			verb(t, f, router.NS, "block", a.String(), "--action", "reject").mustBe(t, 0)
			for _, fl := range flows {
				fl.more(t, 400)
				fl.mustStop(t, "after the block")
			}
			got := unreachables(t, w.attacker, a) - before
			// A second's worth at once, and then the rate.
			most := rate + int(rate*time.Since(began).Seconds()) + rate
			if got < rate || got > most {
				t.Errorf("%s: %d answers to more than 800 datagrams, want %d to %d", name, got, rate, most)
			}
			t.Logf("%s: %d answers, at most %d", name, got, most)
			// The limit is one for all: what goes on would use up the other's.
			verb(t, f, router.NS, "unblock", a.String()).mustBe(t, 0)
		}
		g.end(t)
	})
}

// unreachables counts the answers "destination unreachable" that the host got.
func unreachables(t *testing.T, h host, like netip.Addr) int {
	t.Helper()
	if like.Is6() {
		fields := strings.Fields(lineWith(nstest.Run(t, h.NS, "cat", "/proc/net/snmp6"), "Icmp6InDestUnreachs"))
		return number(t, fields[len(fields)-1])
	}
	var names []string
	for line := range strings.Lines(nstest.Run(t, h.NS, "cat", "/proc/net/snmp")) {
		fields := strings.Fields(line)
		if fields[0] != "Icmp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "InDestUnreachs" {
				return number(t, fields[i])
			}
		}
	}
	t.Fatal("the kernel does not count InDestUnreachs")
	return 0
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestEstablishedConnectionStalls: the block comes before any accept, so a
// connection through the guard's host, or to it, carries nothing while it is
// in force, and goes on afterwards.
func TestEstablishedConnectionStalls(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w, router := newRoutedWorld(t)
		if f.backend == "iptables" {
			// What a firewall script usually begins with.
			for _, tool := range []string{"iptables", "ip6tables"} {
				f.run(t, router.NS, tool, "-A", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
			}
		}
		g := startGuard(t, f, router.NS, rules(t, "iptables_block", "duration: 10m"))
		for name, to := range map[string]netip.Addr{"to": router.v4, "to, IPv6": router.v6, "through": w.victim.v4, "through, IPv6": w.victim.v6} {
			at := w.victim
			if to == router.v4 || to == router.v6 {
				at = router
			}
			client, server := converse(t, w.attacker, at, to)
			mustCarry(t, name+" before", client, server)
			a := w.attacker.addr(to).String()
			verb(t, f, router.NS, "block", a).mustBe(t, 0)
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := server.SetReadDeadline(time.Now().Add(600 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if n, err := server.Read(make([]byte, 1)); n > 0 || !isTimeout(err) {
				t.Errorf("%s: the blocked connection carried %d bytes, error %v; want it to stall", name, n, err)
			}
			verb(t, f, router.NS, "unblock", a).mustBe(t, 0)
			mustCarry(t, name+" after", client, server) // TCP sends again what was lost
		}
		g.end(t)
	})
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error) //nolint:errorlint // the package net wraps it itself
	return ok && ne.Timeout()
}

// converse opens a TCP connection between two hosts.
func converse(t *testing.T, from, at host, to netip.Addr) (client, server net.Conn) {
	t.Helper()
	var ln net.Listener
	err := at.Do(func() (err error) {
		ln, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(to, flowPort).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }() // the connection outlives it
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = from.Do(func() (err error) {
		client, err = (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(to, flowPort).String())
		return err
	})
	if err == nil {
		server, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

// mustCarry checks that a byte gets from one end to the other.
func mustCarry(t *testing.T, when string, from, to net.Conn) {
	t.Helper()
	if _, err := from.Write([]byte("y")); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if err := to.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1)
	for buf[0] != 'y' {
		if _, err := to.Read(buf); err != nil {
			t.Fatalf("%s: the connection carries nothing: %v", when, err)
		}
	}
}
