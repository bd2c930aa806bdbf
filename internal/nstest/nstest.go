// Package nstest keeps tests away from the machine's own network: Main moves a
// whole test process into a fresh network namespace, and Lab, Run and Tool
// wrap package netlab for tests.
//
// Under make test the variable NETCAP_GUARD_REQUIRE is 1, and what a test
// cannot do for lack of privilege or of a program is then a failure, never a
// skip.
package nstest

import (
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

const (
	// requireEnv set to 1 turns "cannot run here" into a failure.
	requireEnv = "NETCAP_GUARD_REQUIRE"
	// fromEnv marks the second run of the test binary and carries the
	// identity of the network namespace the first run was started in.
	fromEnv = "NETCAP_GUARD_TEST_NETNS_FROM"
)

// Main runs the tests of a package that touches a firewall or sends packets:
//
//	func TestMain(m *testing.M) { nstest.Main(m) }
//
// It never returns. The first time it replaces the process with the same test
// binary inside a new network namespace with lo up, so that every thread and
// every child program lives there and the machine's own ruleset is out of
// reach; the second time it runs the tests. Without root it says so and exits
// with 0, or with 1 where NETCAP_GUARD_REQUIRE is 1. The functions in after
// run once before the exit, in order, whatever came of it.
func Main(m *testing.M, after ...func()) {
	code := enter(m.Run)
	for _, f := range after {
		f()
	}
	os.Exit(code)
}

// Inside reports whether this process is the one that runs the tests, already
// inside its namespace. A TestMain that must do something outside first (build
// a binary, which may need the module cache filled) asks it before Main.
func Inside() bool { return os.Getenv(fromEnv) != "" }

// Required reports whether what cannot run here must fail.
func Required() bool { return os.Getenv(requireEnv) == "1" }

// cannot reports why the package's tests cannot run and returns the exit code.
func cannot(w io.Writer, required bool, reason error) int {
	if required {
		_, _ = fmt.Fprintf(w, "nstest: %v; %s=1 makes this a failure\n", reason, requireEnv)
		return 1
	}
	_, _ = fmt.Fprintf(w, "nstest: %v; the tests of this package did NOT run\n", reason)
	return 0
}

// Tool fails the test, naming the package to install, where the program is
// missing. It never skips.
func Tool(t testing.TB, program string) {
	t.Helper()
	if err := netlab.Tool(program, packageOf(program)); err != nil {
		t.Fatal(err)
	}
}

// packageOf is the Debian package of a program that the tests use.
func packageOf(program string) string {
	switch program {
	case "nft":
		return "nftables"
	case "iptables", "ip6tables", "iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft", "iptables-save", "ip6tables-save":
		return "iptables"
	case "ip", "ss", "bridge":
		return "iproute2"
	case "ping":
		return "iputils-ping"
	case "nc":
		return "netcat-openbsd"
	case "sshd":
		return "openssh-server"
	case "sftp":
		return "openssh-client"
	case "dig":
		return "bind9-dnsutils"
	case "dnsmasq":
		return "dnsmasq-base"
	case "dns2tcpc", "dns2tcpd":
		return "dns2tcp"
	case "setpriv":
		return "util-linux"
	}
	return program
}

// Lab makes a lab that is closed at the end of the test.
func Lab(t testing.TB) *netlab.Lab {
	t.Helper()
	lab, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return lab
}

// NS makes a namespace of the lab, or fails the test.
func NS(t testing.TB, lab *netlab.Lab, short string) *netlab.NS {
	t.Helper()
	ns, err := lab.Namespace(t.Context(), short)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// Run runs a program inside the namespace and returns its output; a status
// other than 0 fails the test.
func Run(t testing.TB, ns *netlab.NS, name string, args ...string) string {
	t.Helper()
	out, err := ns.Exec(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
