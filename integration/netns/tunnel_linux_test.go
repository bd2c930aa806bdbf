package netns

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

const tunnelRule = "Block DNS Tunneling"

// tunnelled is a network with a resolver that everybody asks and that asks
// others, one of which is the far end of a tunnel.
type tunnelled struct {
	clients  world // of which the victim is the resolver
	guarded  host
	far      host
	captures []string
	flags    []string
}

// linked makes a host that is linked to eth9 of another.
func linked(t *testing.T, lab *netlab.Lab, to host) host {
	t.Helper()
	far := host{nstest.NS(t, lab, "far"), netip.MustParseAddr("203.0.113.53"), netip.MustParseAddr("2001:db8:113::53")}
	end := func(h host, iface, v4, v6 string) netlab.End {
		return netlab.End{NS: h.NS, Iface: iface, Addrs: []netip.Prefix{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)}}
	}
	err := lab.Link(t.Context(), end(far, "eth0", "203.0.113.53/24", "2001:db8:113::53/64"), end(to, "eth9", "203.0.113.1/24", "2001:db8:113::1/64"))
	if err != nil {
		t.Fatal(err)
	}
	return far
}

// onResolver: the resolver guards itself, and sees what it asks itself.
func onResolver(t *testing.T) tunnelled {
	w := newWorld(t)
	return tunnelled{w, w.victim, linked(t, w.lab, w.victim), []string{"eth0", "eth9"}, nil}
}

// beforeResolver: a router between the clients and the resolver, which asks
// others by another way.
func beforeResolver(t *testing.T) tunnelled {
	w, router := newRoutedWorld(t)
	return tunnelled{w, router, linked(t, w.lab, w.victim), []string{"any"}, nil}
}

// aroundResolver: a router that the resolver's own queries pass as well. It
// asks for others: the shipped rules say to whitelist it.
func aroundResolver(t *testing.T) tunnelled {
	w, router := newRoutedWorld(t)
	far := linked(t, w.lab, router)
	if err := far.Default(t.Context(), netip.MustParseAddr("203.0.113.1")); err != nil {
		t.Fatal(err)
	}
	return tunnelled{w, router, far, []string{"any"}, []string{"--whitelist", w.victim.v4.String()}}
}

// TestTunnelIsBlocked: dns2tcp through a resolver. Its client is blocked, the
// resolver and who asks it for ordinary names are not.
func TestTunnelIsBlocked(t *testing.T) {
	t.Parallel()
	for name, place := range map[string]func(*testing.T) tunnelled{"before the resolver": beforeResolver, "around the resolver": aroundResolver} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stopTunnel(t, newFlavour(t, "nft"), place(t))
		})
	}
	t.Run("on the resolver", func(t *testing.T) {
		each(t, func(t *testing.T, f flavour) { stopTunnel(t, f, onResolver(t)) })
	})
}

// stopTunnel is one run of TestTunnelIsBlocked.
func stopTunnel(t *testing.T, f flavour, n tunnelled) {
	t.Helper()
	w := n.clients
	resolver(t, w.victim, n.far)
	tunnelServer(t, n.far)
	args := append([]string{"--rules", shipped(t)}, n.flags...)
	for _, name := range n.captures {
		args = append(args, "-i", name)
	}
	g := launch(t, f, n.guarded.NS, f.command(t, n.guarded.NS, guardBinary(), args...))
	dig(t, w.bystander, w.victim, "www.example.com")
	smuggle(t, w.attacker, w.victim)
	dig(t, w.bystander, w.victim, "www.example.com")
	g.mustBlock(t, w.attacker.v4, tunnelRule)
	mustNotReach(t, "attacker", w.attacker, w.victim.v4)
	for _, name := range []string{"www.example.com", strings.Repeat("a-long-but-honest-label.", 3) + "example.com"} {
		dig(t, w.bystander, w.victim, name)
	}
	mustReach(t, "bystander", w.bystander, w.victim.v4)
	checkInnocents(t, g, n)
	g.end(t)
}

// checkInnocents: the one client is listed. The resolver is accused where it
// asks in the guard's sight, and let go.
func checkInnocents(t *testing.T, g *guard, n tunnelled) {
	t.Helper()
	if blocks := list(t, g.f, g.ns); len(blocks) != 1 || blocks[0].Prefix != mustPrefix(n.clients.attacker.v4.String()) {
		t.Errorf("blocked: %+v", blocks)
	}
	for _, e := range g.said(t, "action") {
		if e.Action.IP != n.clients.attacker.v4.String() && e.Action.Result != "whitelisted" {
			t.Errorf("action %+v", e.Action)
		}
	}
	for _, e := range g.said(t, "alert") {
		if e.SrcIP == n.clients.bystander.v4.String() {
			t.Errorf("alert of the bystander: %q", e.Alert.Signature)
		}
	}
}

// tunnelZone is the part of the name space that the tunnel's far end serves.
const tunnelZone = "t.example.net"

// resolver runs dnsmasq, which knows example.com and asks for the tunnel's
// zone at its far end.
func resolver(t *testing.T, h, far host) {
	t.Helper()
	p := h.run(t, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--pid-file", "--user=root",
		"--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address="+h.v4.String(),
		"--address=/example.com/203.0.113.80", "--address=/example.com/2001:db8::80", "--txt-record=example.com,v=spf1 -all", "--mx-host=example.com,mail.example.com",
		fmt.Sprintf("--server=/%s/%s", tunnelZone, far.v4))
	if _, err := p.Await(t.Context(), func(l netlab.Line) bool { return strings.Contains(l.Text, "started, version") }); err != nil {
		t.Fatalf("dnsmasq: %v", err)
	}
}

// dig asks a resolver for a name, which must be answered.
func dig(t *testing.T, from, resolver host, query ...string) {
	t.Helper()
	nstest.Tool(t, "dig")
	eventually(t, fmt.Sprint("dig is answered for ", query), func() bool {
		out, err := from.Exec(t.Context(), "dig", append([]string{"+tries=1", "+time=5", "@" + resolver.v4.String()}, query...)...)
		return err == nil && strings.Contains(out, "status: NOERROR")
	})
}

// tunnelServer runs the far end of the tunnel, with a service behind it that
// takes whatever comes.
func tunnelServer(t *testing.T, h host) {
	t.Helper()
	err := h.Do(func() error {
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:9000")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
				go func() {
					_, _ = io.Copy(io.Discard, c) // until the tunnel ends
					_ = c.Close()
				}()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("listen = 0.0.0.0\nport = 53\nuser = root\nchroot = /\ndomain = %s\nkey = secret\nresources = sink:127.0.0.1:9000\n", tunnelZone)
	p := h.run(t, "dns2tcpd", "-F", "-d", "1", "-f", write(t, "dns2tcpd.conf", config))
	if _, err := p.Await(t.Context(), func(l netlab.Line) bool { return strings.Contains(l.Text, "Change to user") }); err != nil {
		t.Fatalf("dns2tcpd: %v", err)
	}
}

// smuggle sends data through the tunnel until the test ends.
func smuggle(t *testing.T, from, resolver host) {
	t.Helper()
	p := from.run(t, "dns2tcpc", "-d", "1", "-t", "5", "-r", "sink", "-k", "secret", "-z", tunnelZone, "-l", "2222", resolver.v4.String())
	if _, err := p.Await(t.Context(), func(l netlab.Line) bool { return strings.Contains(l.Text, "Listening on") }); err != nil {
		t.Fatalf("dns2tcpc: %v", err)
	}
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", "127.0.0.1:2222")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetWriteDeadline(time.Now().Add(10 * patience)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = c.Write(make([]byte, 100_000)) }() // the block ends it
}
