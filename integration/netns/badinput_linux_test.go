package netns

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// Link types, as in the header of a capture file.
const (
	linkRaw     = 101
	linkUnknown = 147 // DLT_USER0: means whatever its user says
)

// capture writes a pcap file of n SYNs from one address to one port each, a
// millisecond apart.
func capture(t *testing.T, link uint32, n int) string {
	t.Helper()
	le := binary.LittleEndian
	file := le.AppendUint32(nil, 0xa1b2c3d4)
	file = le.AppendUint16(file, 2)
	file = le.AppendUint16(file, 4)
	file = append(file, make([]byte, 8)...)
	file = le.AppendUint32(file, 65535)
	file = le.AppendUint32(file, link)
	for i := range n {
		p := syn(uint16(i + 1))
		file = le.AppendUint32(file, 1700000000)
		file = le.AppendUint32(file, uint32(i)*1000)
		file = le.AppendUint32(file, uint32(len(p)))
		file = le.AppendUint32(file, uint32(len(p)))
		file = append(file, p...)
	}
	return write(t, "scan.pcap", string(file))
}

// syn is an IPv4 packet with a TCP SYN from 198.51.100.66 to a port of
// 198.51.100.10. Checksums are zero, as offloading interfaces show them.
func syn(port uint16) []byte {
	p := []byte{
		0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 198, 51, 100, 66, 198, 51, 100, 10,
		0x9c, 0x40, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0x04, 0, 0, 0, 0, 0,
	}
	binary.BigEndian.PutUint16(p[22:], port)
	return p
}

// cut returns a copy of the file without its last bytes.
func cut(t *testing.T, path string, bytes int) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cut.pcap", string(data[:len(data)-bytes]))
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWorld(t)
	good := rules(t, "iptables_block", "duration: 10m")
	broken := rules(t, "iptables-block", "duration: 10m")
	for _, tc := range []struct {
		name string
		args []string
		code int
		says []string // on the one line of standard error
	}{
		{"missing capture", []string{"-r", "missing.pcap", "--rules", good}, 1, []string{"missing.pcap"}},
		{"not a capture", []string{"-r", good, "--rules", good}, 1, []string{good}},
		{"empty capture", []string{"-r", write(t, "empty.pcap", ""), "--rules", good}, 1, []string{"empty.pcap"}},
		{"unknown link type", []string{"-r", capture(t, linkUnknown, 60), "--rules", good}, 1, []string{"scan.pcap", "link type", "147"}},
		{"missing rules", []string{"-i", "eth0", "--rules", "missing.yml"}, 78, []string{"missing.yml"}},
		{"broken rules", []string{"-i", "eth0", "--rules", broken}, 78, []string{broken + ":11:", "iptables_block"}},
		{"broken rules on replay", []string{"-r", capture(t, linkRaw, 1), "--rules", broken}, 78, []string{broken + ":11:"}},
		{"check of broken rules", []string{"check", broken}, 78, []string{broken + ":11:"}},
		{"unknown interface", []string{"-i", "eth9", "--rules", good}, 1, []string{"eth9"}},
		{"neither interface nor capture", []string{"--rules", good}, 2, []string{"eth0"}},
		{"unknown backend", []string{"-i", "eth0", "--rules", good, "--backend=pf"}, 2, []string{"pf"}},
		{"bad whitelist", []string{"-i", "eth0", "--rules", good, "--whitelist", "192.0.2.0/33"}, 2, []string{"192.0.2.0/33"}},
		{"unknown namespace", []string{"-i", "eth0", "--rules", good, "--netns", "nowhere"}, 1, []string{"nowhere"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := slices.Concat(common(t, f, w.victim.NS), tc.args, []string{"-q"})
			r := finish(t, f.command(t, w.victim.NS, guardBinary(), args...))
			oneLine(t, r, tc.code, tc.says...)
			f.mustBeClean(t, w.victim.NS)
		})
	}
}

// oneLine checks the exit code and that standard error is one line that says
// what is wanted; below it, indented, may stand the line of a file it speaks of.
func oneLine(t *testing.T, r result, code int, says ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	lines := 0
	for line := range strings.Lines(strings.TrimSpace(r.stderr)) {
		if !strings.HasPrefix(line, "      ") {
			lines++
		}
	}
	if lines != 1 {
		t.Errorf("standard error is not one line:\n%s", r.stderr)
	}
	for _, s := range says {
		if !strings.Contains(r.stderr, s) {
			t.Errorf("standard error %q does not say %q", r.stderr, s)
		}
	}
}

// alerts returns the alert events of a run.
func alerts(t *testing.T, r result) []event {
	t.Helper()
	var out []event
	for line := range strings.Lines(r.stdout) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("standard output carries %q: %v", line, err)
		}
		if e.Type == "alert" {
			out = append(out, e)
		}
	}
	return out
}

// TestTruncatedCapture: evaluated as far as it goes, one warning, exit 0.
func TestTruncatedCapture(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	ns := newWorld(t).victim.NS
	file := cut(t, capture(t, linkRaw, 60), 5)
	r := verb(t, f, ns, "-r", file, "--rules", rules(t, "iptables_block", "duration: 10m"), "-o", "json").mustBe(t, 0)
	warning := lineWith(r.stderr, "cut short")
	if !strings.Contains(warning, file) || strings.Count(r.stderr, "cut short") != 1 {
		t.Errorf("standard error does not warn once of the truncated capture: %q", r.stderr)
	}
	got := alerts(t, r)
	if len(got) != 1 || got[0].Packet != 50 || got[0].SrcIP != "198.51.100.66" {
		t.Errorf("alerts %+v, want one on packet 50", got)
	}
	f.mustBeClean(t, ns)
}

// asNobody runs the guard without any privilege.
func asNobody(t *testing.T, f flavour, w world, args ...string) *exec.Cmd {
	t.Helper()
	nstest.Tool(t, "setpriv")
	setpriv := []string{"--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", guardBinary()}
	return f.command(t, w.victim.NS, "setpriv", append(setpriv, args...)...)
}

func TestNoPrivileges(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		file := rules(t, "iptables_block", "duration: 10m")
		live := asNobody(t, f, w, slices.Concat(common(t, f, w.victim.NS), []string{"-i", "eth0", "--rules", file, "-q"})...)
		oneLine(t, finish(t, live), 1, "root")
		block := asNobody(t, f, w, slices.Concat([]string{"block", "198.51.100.1", "-q"}, common(t, f, w.victim.NS))...)
		r := finish(t, block).mustBe(t, 1)
		for line := range strings.Lines(r.stderr) { // one a family
			if !strings.Contains(line, "permission denied") || !strings.Contains(line, "root") {
				t.Errorf("standard error says %q, want what is missing", line)
			}
		}
		f.mustBeClean(t, w.victim.NS)
		replay := asNobody(t, f, w, slices.Concat(common(t, f, w.victim.NS), []string{"-r", capture(t, linkRaw, 60), "--rules", file, "-o", "json"})...)
		if got := alerts(t, finish(t, replay).mustBe(t, 0)); len(got) != 1 {
			t.Errorf("a replay needs no privileges: alerts %+v, want one", got)
		}
	})
}

func TestNoIPTablesProgram(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "iptables-nft")
	w := newWorld(t)
	empty := t.TempDir()
	cmd := f.command(t, w.victim.NS, guardBinary(), slices.Concat(common(t, f, w.victim.NS),
		[]string{"-i", "eth0", "--rules", rules(t, "iptables_block", "duration: 10m"), "-q"})...)
	cmd.Env = append(os.Environ(), "PATH="+empty)
	oneLine(t, finish(t, cmd), 1, "iptables", "install")
	f.mustBeClean(t, w.victim.NS)
}

// TestOneFamilyMissing: without ip6tables the guard protects IPv4, and says
// so.
func TestOneFamilyMissing(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "iptables-nft")
	f.tools = t.TempDir()
	for _, program := range []string{"iptables", "iptables-save", "iptables-restore"} {
		at, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(at, filepath.Join(f.tools, program)); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t)
	cmd := f.command(t, w.victim.NS, guardBinary(), slices.Concat([]string{"block", w.attacker.v4.String()}, common(t, f, w.victim.NS))...)
	cmd.Env = append(os.Environ(), "PATH="+f.tools)
	r := finish(t, cmd).mustBe(t, 0)
	if !strings.Contains(r.stderr, "ip6tables") && !strings.Contains(r.stderr, "IPv6") {
		t.Errorf("no word on the missing family: %q", r.stderr)
	}
	mustNotReach(t, "attacker", w.attacker, w.victim.v4)
}
