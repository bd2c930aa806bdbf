package netns

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// flavour is one way to block: a backend and, for iptables, a variant of the
// tool.
type flavour struct {
	name, backend string
	tools         string // folder in front of PATH; empty: as installed
	config        string // lines of the configuration file
}

// each runs the test on every flavour, in parallel.
func each(t *testing.T, test func(t *testing.T, f flavour)) {
	t.Helper()
	t.Parallel()
	for _, name := range []string{"nft", "iptables-nft", "iptables-legacy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newFlavour(t, name))
		})
	}
}

// eachIPTables leaves nft out.
func eachIPTables(t *testing.T, test func(t *testing.T, f flavour)) {
	t.Helper()
	t.Parallel()
	for _, name := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newFlavour(t, name))
		})
	}
}

func newFlavour(t *testing.T, name string) flavour {
	t.Helper()
	for _, tool := range []string{"nft", "nmap", "ping", "iptables"} {
		nstest.Tool(t, tool)
	}
	if name == "nft" {
		return flavour{name: name, backend: "nft"}
	}
	return flavour{name: name, backend: "iptables", tools: toolDir(t, strings.TrimPrefix(name, "iptables-"))}
}

// toolDir makes a folder in which iptables and its relatives are the wanted
// variant. The programs look at the name they are called by.
func toolDir(t *testing.T, variant string) string {
	t.Helper()
	dir := t.TempDir()
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, kind := range []string{"", "-save", "-restore"} {
			program := family + "-" + variant + kind
			nstest.Tool(t, program)
			at, err := exec.LookPath(program)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(at, filepath.Join(dir, family+kind)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// path is PATH as a user of this flavour has it.
func (f flavour) path() string {
	if f.tools == "" {
		return os.Getenv("PATH")
	}
	return f.tools + ":" + os.Getenv("PATH")
}

// command prepares a program inside ns under this flavour's PATH.
func (f flavour) command(t *testing.T, ns *netlab.NS, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := ns.Command(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "PATH="+f.path())
	return cmd
}

// run runs a program inside ns and fails the test where it fails.
func (f flavour) run(t *testing.T, ns *netlab.NS, name string, args ...string) string {
	t.Helper()
	return finish(t, f.command(t, ns, name, args...)).mustBe(t, 0).stdout
}

// listing is the kernel's own listing of our blocks of one family.
func (f flavour) listing(t *testing.T, ns *netlab.NS, a netip.Addr) string {
	t.Helper()
	switch {
	case f.backend == "nft":
		return f.run(t, ns, "nft", "list", "ruleset")
	case a.Is6():
		return f.run(t, ns, "ip6tables", "-S", "NETCAP")
	}
	return f.run(t, ns, "iptables", "-S", "NETCAP")
}

// lists reports whether the kernel lists a block of the address whose line
// fits what (see block).
func (f flavour) lists(t *testing.T, ns *netlab.NS, a netip.Addr, target, rule string) bool {
	t.Helper()
	comment := `"NETCAP: ` + regexp.QuoteMeta(rule) + `[^"]*"`
	line := `(?m)^-A NETCAP -s ` + regexp.QuoteMeta(a.String()) + `/\d+ .*--comment ` + comment + `.* -j ` + target
	if f.backend == "nft" {
		line = `(?m)[\s{]` + regexp.QuoteMeta(a.String()) + ` .*timeout \S+ expires \S+ comment ` + comment
	}
	return regexp.MustCompile(line).MatchString(f.listing(t, ns, a))
}

// left returns every line of the kernel's listings that is ours.
func (f flavour) left(t *testing.T, ns *netlab.NS) []string {
	t.Helper()
	listings := [][]string{{"nft", "list", "ruleset"}}
	if f.backend == "iptables" {
		listings = append(listings, []string{"iptables", "-S"}, []string{"ip6tables", "-S"})
	}
	var left []string
	for _, argv := range listings {
		for line := range strings.Lines(f.run(t, ns, argv[0], argv[1:]...)) {
			if strings.Contains(strings.ToUpper(line), "NETCAP") {
				left = append(left, strings.Join(argv, " ")+": "+strings.TrimSpace(line))
			}
		}
	}
	return left
}

// mustBeClean fails the test where anything of ours is left in the kernel.
func (f flavour) mustBeClean(t *testing.T, ns *netlab.NS) {
	t.Helper()
	if left := f.left(t, ns); len(left) > 0 {
		t.Errorf("left in the kernel:\n%s", strings.Join(left, "\n"))
	}
}
