package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// TestEvidence: the packets that led to a block are in a file that other
// programs read, which the action event and show name; with several workers,
// between whom a scan of many hosts is shared, too.
func TestEvidence(t *testing.T) {
	for _, workers := range []string{"1", "2"} {
		t.Run("workers "+workers, func(t *testing.T) {
			t.Parallel()
			nstest.Tool(t, "tcpdump")
			f := newFlavour(t, "nft")
			guarded, other := stacked(t, "addr add 192.0.2.10/24 dev p0", "addr add 192.0.2.11/24 dev p0", "addr add 192.0.2.12/24 dev p0")
			dir := filepath.Join(t.TempDir(), "evidence")
			g := launch(t, f, guarded, f.command(t, guarded, guardBinary(), "-i", "p0", "--workers", workers, "--evidence", dir,
				"--rules", rules(t, "iptables_block", "duration: 10m")))
			nstest.Run(t, other, "nmap", "-sS", "-n", "-Pn", "-p", probePorts, "--max-retries", "0", "192.0.2.10-12")
			file := g.action(t, "192.0.2.66", "created").Action.Evidence
			if filepath.Dir(file) != dir || !strings.HasSuffix(file, "_192.0.2.66_block-port-scanner.pcapng") {
				t.Fatalf("the event names %q", file)
			}
			eventually(t, "the file is there", func() bool { _, err := os.Stat(file); return err == nil })
			for path, mode := range map[string]os.FileMode{dir: 0o700, file: 0o600} {
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
					t.Errorf("%s: %v, %v", path, info.Mode(), err)
				}
			}
			syns := nstest.Run(t, other, "tcpdump", "-n", "-r", file, "src host 192.0.2.66 and tcp[tcpflags] == tcp-syn")
			// One of two workers may be behind: what it had not counted yet, but
			// was sent before, is there as well.
			if n := strings.Count(syns, "Flags [S]"); n < 50 || n > 50 && workers == "1" {
				t.Errorf("tcpdump reads %d SYNs, want the 50 that counted:\n%s", n, syns)
			}
			if others := nstest.Run(t, other, "tcpdump", "-n", "-r", file, "not src host 192.0.2.66"); strings.Contains(others, "IP") {
				t.Errorf("packets of others:\n%s", others)
			}
			data, err := os.ReadFile(file)
			if err != nil || strings.Count(string(data), scanRule) != 2 {
				t.Errorf("the rule's name is there %d times, want 2: on the section and on the last packet", strings.Count(string(data), scanRule))
			}
			if shown := verb(t, f, guarded, "show", "192.0.2.66"); !strings.Contains(shown.stdout, "evidence "+file) {
				t.Errorf("show does not name it: %s", shown.stdout)
			}
			if shown := verb(t, f, guarded, "show", "192.0.2.66", "-o", "json"); !strings.Contains(shown.stdout, fmt.Sprintf(`"evidence":[%q]`, file)) {
				t.Errorf("show -o json does not name it: %s", shown.stdout)
			}
			g.end(t)
		})
	}
}
