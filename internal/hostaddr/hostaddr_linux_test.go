package hostaddr

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// sudo drops SSH_CONNECTION: the walk over ancestors must find it all the
// same, here in the environment of a shell between two test processes.
func TestSSHPeerOfAncestor(t *testing.T) {
	if os.Getenv("HOSTADDR_CHILD") == "1" {
		es, _ := sshPeers()
		fmt.Println(strings.Join(prefixes(es), ","))
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
