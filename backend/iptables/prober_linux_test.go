package iptables

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

const (
	guardIface = "guard0"
	peerIface  = "peer0"
	// silence is how long a probe waits for its packet or for an answer. On a
	// veth pair both take well under a millisecond.
	silence = 200 * time.Millisecond
)

// prober is a veth pair between this process's namespace, the guard's host,
// and a namespace whose every address of the suite's networks is local.
type prober struct{ peer *netlab.NS }

func newProber(t testing.TB) backendtest.Prober {
	t.Helper()
	p := &prober{peer: nstest.NS(t, nstest.Lab(t), "peer")}
	run(t, "ip", "link", "add", guardIface, "type", "veth", "peer", "name", peerIface, "netns", p.peer.Name)
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "link", "del", guardIface).CombinedOutput(); err != nil {
			t.Errorf("delete %s: %v: %s", guardIface, err, out)
		}
	})
	for _, a := range []string{
		"addr add " + backendtest.Guard4 + "/24 dev " + guardIface,
		"addr add " + backendtest.Guard6 + "/64 dev " + guardIface + " nodad",
		"link set " + guardIface + " up",
		"route add " + backendtest.Routed4 + " via 10.77.0.2",
		"route add " + backendtest.Routed6 + " via fd77::2",
	} {
		run(t, "ip", strings.Fields(a)...)
	}
	on := []string{
		"link set " + peerIface + " up",
		"addr add 10.77.0.2/24 dev " + peerIface,
		"route add local " + backendtest.Routed4 + " dev lo",
		"route add local " + backendtest.Routed6 + " dev lo",
	}
	for i := 3; i <= 9; i++ {
		on = append(on, "addr add 10.77.0."+strconv.Itoa(i)+"/24 dev "+peerIface)
	}
	for i := 2; i <= 9; i++ {
		on = append(on, "addr add fd77::"+strconv.Itoa(i)+"/64 dev "+peerIface+" nodad")
	}
	for _, a := range on {
		if err := p.peer.IP(t.Context(), strings.Fields(a)...); err != nil {
			t.Fatal(err)
		}
	}
	// Any address of a local route may be bound; IPv6 asks for this as well.
	if err := p.peer.Sysctl("net/ipv6/ip_nonlocal_bind", "1"); err != nil {
		t.Fatal(err)
	}
	p.warmUp(t)
	return p
}

// warmUp waits until packets pass in both families: a fresh link takes a
// moment, and a first probe must not be taken for a dropped one.
func (p *prober) warmUp(t testing.TB) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for _, pair := range [][2]string{{"10.77.0.2", backendtest.Guard4}, {"fd77::2", backendtest.Guard6}} {
		for p.Probe(t, nil, backendtest.UDP, netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])) != backendtest.Passed {
			if time.Now().After(end) {
				t.Fatalf("%s does not reach %s without any rule", pair[0], pair[1])
			}
		}
	}
}

// Probe sends one probe from a socket in the sender's namespace to one in the
// receiver's.
func (p *prober) Probe(t testing.TB, _ backend.Backend, proto backendtest.Proto, from, to netip.Addr) backendtest.Outcome {
	t.Helper()
	guard := to == netip.MustParseAddr(backendtest.Guard4) || to == netip.MustParseAddr(backendtest.Guard6)
	sender, receiver := p.peer.Do, here
	if !guard {
		sender, receiver = here, p.peer.Do
	}
	probe := probeUDP
	if proto == backendtest.TCP {
		probe = probeTCP
	}
	outcome, err := probe(sender, receiver, from, to)
	if err != nil {
		t.Fatalf("probe %s -> %s: %v", from, to, err)
	}
	return outcome
}

// place runs a function where sockets belong to one of the namespaces.
type place func(func() error) error

func here(f func() error) error { return f() }

func probeUDP(sender, receiver place, from, to netip.Addr) (backendtest.Outcome, error) {
	var in, out *net.UDPConn
	err := receiver(func() (err error) {
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 0)))
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	at := in.LocalAddr().(*net.UDPAddr)
	err = sender(func() (err error) {
		out, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), at)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }()
	if _, err := out.Write([]byte("probe")); err != nil && !refused(err) && !errors.Is(err, syscall.EPERM) {
		return 0, err
	}
	deadline := time.Now().Add(silence)
	if err := errors.Join(in.SetReadDeadline(deadline), out.SetReadDeadline(deadline)); err != nil {
		return 0, err
	}
	arrived := make(chan bool, 1)
	go func() {
		_, _, err := in.ReadFromUDP(make([]byte, 16))
		arrived <- err == nil
		if err == nil {
			_ = out.SetReadDeadline(time.Now()) // no answer will come
		}
	}()
	_, err = out.Read(make([]byte, 16))
	if refused(err) {
		_ = in.SetReadDeadline(time.Now())
	}
	switch {
	case <-arrived:
		return backendtest.Passed, nil
	case refused(err):
		return backendtest.Unreachable, nil
	}
	return backendtest.Silent, nil
}

// refused reports whether port-unreachable came back.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// probeTCP connects. A reset and port-unreachable both surface as
// ECONNREFUSED from connect; what the kernel queued as an ICMP error tells
// them apart.
func probeTCP(sender, receiver place, from, to netip.Addr) (backendtest.Outcome, error) {
	var in net.Listener
	err := receiver(func() (err error) {
		in, err = net.Listen("tcp", netip.AddrPortFrom(to, 0).String())
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	to2 := in.Addr().(*net.TCPAddr).AddrPort()
	outcome := backendtest.Silent
	err = sender(func() (err error) {
		outcome, err = connect(netip.AddrPortFrom(from, 0), to2)
		return err
	})
	return outcome, err
}

// connect tells by the error queue what answered: IP_RECVERR and IPV6_RECVERR
// keep ICMP errors there, a reset leaves it empty.
func connect(from, to netip.AddrPort) (backendtest.Outcome, error) {
	domain, level, option := syscall.AF_INET, syscall.IPPROTO_IP, syscall.IP_RECVERR
	if to.Addr().Is6() {
		domain, level, option = syscall.AF_INET6, syscall.IPPROTO_IPV6, syscall.IPV6_RECVERR
	}
	fd, err := syscall.Socket(domain, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = syscall.Close(fd) }()
	wait := syscall.NsecToTimeval(int64(silence))
	err = errors.Join(
		syscall.SetsockoptInt(fd, level, option, 1),
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &wait),
		syscall.Bind(fd, sockaddr(from)),
	)
	if err != nil {
		return 0, err
	}
	// The answer can be there before connect lets go of the socket; the kernel
	// then only queues it and waits for the next, so the queue is asked always.
	connected := syscall.Connect(fd, sockaddr(to))
	_, _, _, _, queue := syscall.Recvmsg(fd, make([]byte, 256), make([]byte, 256), syscall.MSG_ERRQUEUE|syscall.MSG_DONTWAIT)
	switch {
	case connected == nil:
		return backendtest.Passed, nil
	case queue == nil:
		return backendtest.Unreachable, nil
	case errors.Is(connected, syscall.EINPROGRESS):
		return backendtest.Silent, nil
	case refused(connected):
		return backendtest.Reset, nil
	}
	return 0, os.NewSyscallError("connect", connected)
}

func sockaddr(a netip.AddrPort) syscall.Sockaddr {
	if a.Addr().Is4() {
		return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// ForgetNeighbours empties both neighbour tables.
func (p *prober) ForgetNeighbours(t testing.TB) {
	t.Helper()
	run(t, "ip", "neigh", "flush", "dev", guardIface)
	if err := p.peer.IP(t.Context(), "neigh", "flush", "dev", peerIface); err != nil {
		t.Fatal(err)
	}
}

// Resolve asks the kernel to use the neighbour and looks at what it knows then.
// A datagram would not do: a block of the destination drops it before the
// kernel looks for the neighbour.
func (p *prober) Resolve(t testing.TB, neighbour netip.Addr) bool {
	t.Helper()
	run(t, "ip", "neigh", "add", neighbour.String(), "dev", guardIface, "use")
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if strings.Contains(run(t, "ip", "neigh", "show", neighbour.String(), "dev", guardIface), "lladdr") {
			return true
		}
	}
	return false
}
