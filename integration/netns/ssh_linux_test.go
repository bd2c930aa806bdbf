package netns

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

const sshRules = `- name: Block SSH Brute Force
  description: Block hosts after 10 SSH connection attempts in 5 minutes
  type: TCP
  expression: DstPort == 22 && SYN && !ACK
  severity: high
  threshold: 10
  threshold_window: 300
  actions:
    - type: iptables_block
      config:
        target: source
        duration: 2h
  enabled: true
  mitre: ["T1110"]
  tags: ["ssh", "brute-force", "block"]
`

// sshServer starts a real SSH server in the host.
func sshServer(t *testing.T, h host) {
	t.Helper()
	nstest.Tool(t, "sshd")
	sshd, err := exec.LookPath("sshd") // it insists on its full path
	if err != nil {
		t.Fatal(err)
	}
	// Debian's service makes the folder that sshd changes root to.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	nstest.Run(t, h.NS, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	p, err := netlab.Start(h.Command(t.Context(), sshd, "-D", "-e", "-f", os.DevNull, "-h", key, "-o", "UsePAM=no",
		"-o", "PidFile=none", "-o", "MaxStartups=1000", "-o", "MaxAuthTries=2", "-o", "ListenAddress="+h.v4.String()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	_, err = p.Await(t.Context(), func(l netlab.Line) bool { return strings.HasPrefix(l.Text, "Server listening on ") })
	if err != nil {
		t.Fatalf("sshd: %v", err)
	}
}

// guess runs hydra against the host's SSH server until the test ends it.
func guess(t *testing.T, from, to host) *netlab.Process {
	t.Helper()
	nstest.Tool(t, "hydra")
	var words strings.Builder
	for i := range 200 {
		words.WriteString("wrong" + strconv.Itoa(i) + "\n")
	}
	cmd := from.Command(t.Context(), "hydra", "-I", "-t", "16", "-l", "nobody", "-P", write(t, "words", words.String()), "ssh://"+to.v4.String())
	cmd.Dir = t.TempDir() // it leaves a file where it was
	p, err := netlab.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// TestPasswordGuesserIsBlocked: hydra against a real SSH server, with the
// specification's rule as it is printed there.
func TestPasswordGuesserIsBlocked(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		sshServer(t, w.victim)
		g := startGuard(t, f, w.victim.NS, write(t, "ssh.yml", sshRules))
		hydra := guess(t, w.attacker, w.victim)
		e := g.await(t, "action", func(e event) bool { return e.Type == "action" })
		if e.Action.IP != w.attacker.v4.String() || e.Action.Result != "created" {
			t.Errorf("action %+v, want a block of %s", e.Action, w.attacker.v4)
		}
		hydra.Kill()
		mustNotReach(t, "attacker", w.attacker, w.victim.v4)
		mustReach(t, "bystander", w.bystander, w.victim.v4)
		g.end(t)
	})
}
