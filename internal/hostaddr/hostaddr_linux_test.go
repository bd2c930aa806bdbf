package hostaddr

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestDefaultRoutes(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"IPv4 default", "eth0 00000000 010200C0 0003 0 0 100 00000000 0 0 0", "192.0.2.1"},
		{"IPv4 on link", "eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0", ""},
		{"IPv4 default without gateway", "ppp0 00000000 00000000 0001 0 0 0 00000000 0 0 0", ""},
		{"header", "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := defaultRoute4(strings.Fields(tt.line))
			if ok != (tt.want != "") || ok && got.String() != tt.want {
				t.Errorf("got %v, %v; want %q", got, ok, tt.want)
			}
		})
	}
	six := "00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000000000000000000000001 00000400 1 0 3 eth0"
	if got, ok := defaultRoute6(strings.Fields(six)); !ok || got.String() != "2001:db8::1" {
		t.Errorf("IPv6 default route: %v, %v", got, ok)
	}
	lo := "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 1 0 200200 lo"
	if got, ok := defaultRoute6(strings.Fields(lo)); ok {
		t.Errorf("the unreachable default of lo counts as gateway %v", got)
	}
}

// sudo drops SSH_CONNECTION: the walk over ancestors must find it all the
// same, here in the environment of a shell between two test processes.
func TestSSHPeerOfAncestor(t *testing.T) {
	if os.Getenv("HOSTADDR_CHILD") == "1" {
		es, _ := sshPeers()
		os.Stdout.WriteString(strings.Join(prefixes(es), ",") + "\n")
		return
	}
	cmd := exec.Command("/bin/sh", "-c", `env -u SSH_CONNECTION HOSTADDR_CHILD=1 "$0" -test.run='^TestSSHPeerOfAncestor$'; exit $?`, os.Args[0])
	cmd.Env = append(os.Environ(), "SSH_CONNECTION=203.0.113.9 4 192.0.2.1 22")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "203.0.113.9/32 SSH peer") {
		t.Errorf("child printed %q (%v)", out, err)
	}
}

func TestParentOf(t *testing.T) {
	if got := parentOf(os.Getpid()); got != os.Getppid() {
		t.Errorf("parentOf(self) = %d, want %d", got, os.Getppid())
	}
	if got := parentOf(-1); got != 0 {
		t.Errorf("parentOf(-1) = %d", got)
	}
}
