package netlab_test

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

	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func prefixes(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// routed is client - router - server, both families.
func routed(t *testing.T) (client, server *netlab.NS) {
	t.Helper()
	lab := nstest.Lab(t)
	client, router, server := nstest.NS(t, lab, "client"), nstest.NS(t, lab, "router"), nstest.NS(t, lab, "server")
	links := [][2]netlab.End{
		{{NS: client, Iface: "eth0", Addrs: prefixes("10.1.0.2/24", "fd01::2/64")},
			{NS: router, Iface: "eth0", Addrs: prefixes("10.1.0.1/24", "fd01::1/64")}},
		{{NS: server, Iface: "eth0", Addrs: prefixes("10.2.0.2/24", "fd02::2/64")},
			{NS: router, Iface: "eth1", Addrs: prefixes("10.2.0.1/24", "fd02::1/64")}},
	}
	for _, l := range links {
		if err := lab.Link(t.Context(), l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := router.Forward(); err != nil {
		t.Fatal(err)
	}
	for _, gw := range []struct {
		ns *netlab.NS
		at string
	}{{client, "10.1.0.1"}, {client, "fd01::1"}, {server, "10.2.0.1"}, {server, "fd02::1"}} {
		if err := gw.ns.Default(t.Context(), netip.MustParseAddr(gw.at)); err != nil {
			t.Fatal(err)
		}
	}
	return client, server
}

func TestRoutedPing(t *testing.T) {
	client, _ := routed(t)
	for _, to := range []string{"10.2.0.2", "fd02::2"} {
		nstest.Run(t, client, "ping", "-n", "-c", "1", "-W", "5", to)
	}
}

func TestDoEntersAndLeaves(t *testing.T) {
	client, server := routed(t)
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var ln net.Listener
	err = server.Do(func() error {
		inside, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil || inside == before {
			t.Errorf("inside Do the namespace is %s, outside %s (%v)", inside, before, err)
		}
		ln, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "10.2.0.2:2222")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	nstest.Run(t, client, "nc", "-z", "-w", "5", "10.2.0.2", "2222")
	failure := errors.New("from f")
	if err := server.Do(func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("Do returned %v, want the error of f", err)
	}
}

func TestExecErrorCarriesOutputAndStatus(t *testing.T) {
	ns := nstest.NS(t, nstest.Lab(t), "a")
	out, err := ns.Exec(t.Context(), "sh", "-c", "echo seen; exit 7")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Fatalf("error %v, want exit status 7", err)
	}
	if !strings.Contains(out, "seen") || !strings.Contains(err.Error(), "seen") {
		t.Errorf("output %q, error %q: both want the program's text", out, err)
	}
}

func TestCloseRemovesEverything(t *testing.T) {
	lab, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := lab.Namespace(t.Context(), "busy")
	if err != nil {
		t.Fatal(err)
	}
	cmd := ns.Command(context.Background(), "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitInside(t, ns)
	for range 2 {
		if err := lab.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the program inside outlived the lab")
	}
	if _, err := os.Stat("/run/netns/" + ns.Name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("namespace %s is still there: %v", ns.Name, err)
	}
	if _, err := lab.Namespace(t.Context(), "late"); !errors.Is(err, netlab.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// waitInside waits until a process is inside the namespace.
func waitInside(t *testing.T, ns *netlab.NS) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		out, err := exec.CommandContext(t.Context(), "ip", "netns", "pids", ns.Name).Output()
		if err == nil && len(strings.Fields(string(out))) > 0 {
			return
		}
	}
	t.Fatal("no process entered the namespace")
}

func TestToolNamesThePackage(t *testing.T) {
	err := netlab.Tool("no-such-program-here", "some-package")
	if !errors.Is(err, netlab.ErrNoTool) || !strings.Contains(err.Error(), "some-package") {
		t.Errorf("Tool: %v", err)
	}
	t.Setenv("PATH", "")
	if _, err := netlab.New(); !errors.Is(err, netlab.ErrNoTool) {
		t.Errorf("New without ip: %v, want ErrNoTool", err)
	}
}

func TestSwitch(t *testing.T) {
	lab := nstest.Lab(t)
	hub, err := lab.Switch(t.Context(), "switch")
	if err != nil {
		t.Fatal(err)
	}
	a, err := hub.Plug(t.Context(), "a-long-host-name", prefixes("192.0.2.1/24", "2001:db8::1/64")...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hub.Plug(t.Context(), "b", prefixes("192.0.2.2/24", "2001:db8::2/64")...); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"192.0.2.2", "2001:db8::2"} {
		nstest.Run(t, a, "ping", "-n", "-c", "1", "-W", "5", to)
	}
}
