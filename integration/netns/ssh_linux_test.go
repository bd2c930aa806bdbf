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

const sshRule = "Block SSH Brute Force"

// sshServer starts a real SSH server in the host and returns the key that it
// lets the user nobody in with, who may fetch files.
func sshServer(t *testing.T, h host) string {
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
	key, user := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "user")
	for _, path := range []string{key, user} {
		nstest.Run(t, h.NS, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
	}
	public, err := os.ReadFile(user + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	p, err := netlab.Start(h.Command(t.Context(), sshd, "-D", "-e", "-f", os.DevNull, "-h", key, "-o", "UsePAM=no",
		"-o", "PidFile=none", "-o", "MaxStartups=1000", "-o", "MaxAuthTries=2", "-o", "ListenAddress="+h.v4.String(),
		"-o", "StrictModes=no", "-o", "AuthorizedKeysFile="+write(t, "authorized_keys", string(public)), "-o", "Subsystem=sftp internal-sftp"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	_, err = p.Await(t.Context(), func(l netlab.Line) bool { return strings.HasPrefix(l.Text, "Server listening on ") })
	if err != nil {
		t.Fatalf("sshd: %v", err)
	}
	return user
}

// fetch logs in with a key and fetches a file.
func fetch(t *testing.T, from, to host, key string) {
	t.Helper()
	nstest.Tool(t, "sftp")
	source, into := write(t, "file", strings.Repeat("honest work\n", 1000)), filepath.Join(t.TempDir(), "file")
	nstest.Run(t, from.NS, "sftp", "-q", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile="+os.DevNull, "nobody@"+to.v4.String()+":"+source, into)
	if data, err := os.ReadFile(into); err != nil || len(data) != 12000 {
		t.Errorf("fetched %d bytes: %v", len(data), err)
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

// TestPasswordGuesserIsBlocked: hydra against a real SSH server with shipped
// rules, and beside it somebody who logs in with a key.
func TestPasswordGuesserIsBlocked(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		key := sshServer(t, w.victim)
		g := startGuard(t, f, w.victim.NS, shipped(t))
		fetch(t, w.bystander, w.victim, key)
		hydra := guess(t, w.attacker, w.victim)
		g.mustBlock(t, w.attacker.v4, sshRule)
		fetch(t, w.bystander, w.victim, key)
		hydra.Kill()
		mustNotReach(t, "attacker", w.attacker, w.victim.v4)
		mustReach(t, "bystander", w.bystander, w.victim.v4)
		g.mustAccuse(t, w.attacker.v4)
		g.end(t)
	})
}
