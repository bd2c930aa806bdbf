package netns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

// event is what the tests read of the guard's events.
type event struct {
	Type  string `json:"event_type"`
	SrcIP string `json:"src_ip"`
	Alert struct {
		Signature string         `json:"signature"`
		Count     int            `json:"count"`
		Fields    map[string]any `json:"fields"`
	} `json:"alert"`
	Packet uint64 `json:"packet"`
	Action struct {
		Type     string    `json:"type"`
		Result   string    `json:"result"`
		IP       string    `json:"ip"`
		Duration string    `json:"duration"`
		Limit    string    `json:"limit"`
		Expires  time.Time `json:"expires"`
		Rule     string    `json:"rule"`
		DryRun   bool      `json:"dry_run"`
		Evidence string    `json:"evidence"`
	} `json:"action"`
	Log struct {
		Prefix string `json:"prefix"`
		Rule   string `json:"rule"`
		Kernel bool   `json:"kernel"`
		Error  string `json:"error"`
	} `json:"log"`
	Block  listedBlock `json:"block"`
	By     string      `json:"by"`
	Resync struct {
		Reason   string `json:"reason"`
		Restored int    `json:"restored"`
	} `json:"resync"`
	Stats struct {
		Packets uint64 `json:"packets"`
		Rules   map[string]struct {
			Matches uint64 `json:"matches"`
		} `json:"rules"`
		Capture struct {
			Received uint64 `json:"received"`
			Dropped  uint64 `json:"dropped"`
		} `json:"capture"`
		Firewall map[string]uint64 `json:"firewall"`
		Actions  map[string]uint64 `json:"actions"`
		Drops    map[string]struct {
			IPv4 uint64 `json:"ipv4"`
			IPv6 uint64 `json:"ipv6"`
		} `json:"drops"`
		KernelLog   map[string]uint64 `json:"kernel_log"`
		Escalation  map[string]uint64 `json:"escalation"`
		Connections map[string]uint64 `json:"connections"`
	} `json:"stats"`
}

// guard is a running guard.
type guard struct {
	*netlab.Process
	f  flavour
	ns *netlab.NS
}

const scanRule = "Block Port Scanner"

// rules writes a file with the specification's port scan rule and the given
// action line and returns its path.
func rules(t *testing.T, action, config string) string {
	t.Helper()
	return write(t, "rules.yml", fmt.Sprintf(`rules:
  - name: %s
    description: Block hosts performing port scans
    type: TCP
    expression: |
      SYN && !ACK && PayloadSize == 0
    severity: high
    threshold: 50
    threshold_window: 10
    actions:
      - type: %s
        config: {%s}
`, scanRule, action, config))
}

// write makes a file that everybody may read.
func write(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the test's own folder is made for its user alone
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// common are the flags that choose the backend, keep the machine's own
// configuration out of a test and its control sockets apart: the one of
// `--netns NAME` for whoever works in that namespace.
func common(t *testing.T, f flavour, ns *netlab.NS) []string {
	t.Helper()
	path := socket(ns)
	t.Cleanup(func() { _ = os.Remove(path) }) // a killed guard leaves it
	text := fmt.Sprintf("control: %s\nwhitelist_dir: %s\n%s", path, t.TempDir(), f.config)
	if !strings.Contains(f.config, "state_dir:") {
		text += "state_dir: " + t.TempDir() + "\n"
	}
	return []string{"--backend=" + f.backend, "--config", write(t, "config.yaml", text)}
}

// socket is the control socket of the guard in a namespace.
func socket(ns *netlab.NS) string { return filepath.Join("/run/netcap-guard", ns.Name+".sock") }

// startGuard starts the guard on eth0 of a namespace and waits until it says
// that it captures.
func startGuard(t *testing.T, f flavour, ns *netlab.NS, rules string, flags ...string) *guard {
	t.Helper()
	args := slices.Concat([]string{"-i", "eth0", "--rules", rules}, flags)
	return launch(t, f, ns, f.command(t, ns, guardBinary(), args...))
}

// launch starts a prepared guard that works in ns and waits until it says that
// it captures.
func launch(t *testing.T, f flavour, ns *netlab.NS, cmd *exec.Cmd) *guard {
	t.Helper()
	cmd.Args = slices.Concat(cmd.Args, []string{"-o", "json"}, common(t, f, ns))
	p, err := netlab.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{p, f, ns}
	t.Cleanup(func() {
		g.Kill()
		if t.Failed() {
			for _, l := range g.Lines() {
				t.Logf("guard: %.300s", l.Text)
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = g.Await(ctx, func(l netlab.Line) bool { return l.Stderr && strings.HasPrefix(l.Text, "guarding ") })
	if err != nil {
		t.Fatalf("the guard is not ready: %v", err)
	}
	return g
}

// await waits for the first event that fits.
func (g *guard) await(t *testing.T, what string, fits func(event) bool) event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var found event
	_, err := g.Await(ctx, func(l netlab.Line) bool {
		if l.Stderr {
			return false
		}
		var e event
		if err := json.Unmarshal([]byte(l.Text), &e); err != nil {
			t.Errorf("standard output carries %q: %v", l.Text, err)
			return false
		}
		found = e
		return fits(e)
	})
	if err != nil {
		t.Fatalf("no %s: %v", what, err)
	}
	return found
}

// action waits for the action of the port scan rule on the address.
func (g *guard) action(t *testing.T, ip, result string) event {
	t.Helper()
	e := g.await(t, "action on "+ip, func(e event) bool { return e.Type == "action" && e.Action.IP == ip })
	if e.Action.Result != result || e.Action.Rule != scanRule {
		t.Fatalf("action %+v, want result %s of rule %q", e.Action, result, scanRule)
	}
	return e
}

// end stops the guard in order, checks that nothing is left in the kernel and
// returns its statistics.
func (g *guard) end(t *testing.T) event {
	t.Helper()
	if err := g.Stop(t.Context()); err != nil {
		t.Errorf("the guard did not end in order: %v", err)
	}
	g.f.mustBeClean(t, g.ns)
	return g.await(t, "statistics", func(e event) bool { return e.Type == "stats" })
}

// result is what a run of the command line gave.
type result struct {
	args           []string
	stdout, stderr string
	code           int
}

// verb runs one subcommand inside a namespace to its end.
func verb(t *testing.T, f flavour, ns *netlab.NS, args ...string) result {
	t.Helper()
	return finish(t, f.command(t, ns, guardBinary(), slices.Concat(args, common(t, f, ns))...))
}

// finish runs a prepared command to its end, whatever its exit code. One that
// does not end fails the test.
func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Start()
	if err == nil {
		late := time.AfterFunc(patience, func() {
			t.Errorf("%v does not end", cmd.Args)
			_ = cmd.Process.Kill() // an error: it has just ended
		})
		err = cmd.Wait()
		late.Stop()
	}
	r := result{args: cmd.Args, stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return r
}

// mustBe fails the test where the exit code is another.
func (r result) mustBe(t *testing.T, code int) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("%v: exit code %d, want %d\nstdout: %s\nstderr: %s", r.args, r.code, code, r.stdout, r.stderr)
	}
	return r
}

// lineWith returns the first line that holds the text, with its spaces
// squeezed.
func lineWith(out, text string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, text) {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return ""
}

// listedBlock is one line of `list -o json`.
type listedBlock struct {
	Prefix    string   `json:"prefix"`
	Target    string   `json:"target"`
	Action    string   `json:"action"`
	Rule      string   `json:"rule"`
	Reason    string   `json:"reason"`
	Origin    string   `json:"origin"`
	Created   string   `json:"created"`
	Expires   *string  `json:"expires"`
	Remaining *float64 `json:"remaining"`
	Packets   *uint64  `json:"packets"`
	Limit     string   `json:"limit"`
	LogPrefix string   `json:"log_prefix"`
}

// list reads the output of `list -o json`.
func list(t *testing.T, f flavour, ns *netlab.NS) []listedBlock {
	t.Helper()
	return decodeLines[listedBlock](t, verb(t, f, ns, "list", "-o", "json").mustBe(t, 0).stdout)
}

// decodeLines reads one JSON object a line.
func decodeLines[T any](t *testing.T, out string) []T {
	t.Helper()
	var all []T
	for line := range strings.Lines(out) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, v)
	}
	return all
}

// find returns the listed block of the prefix, or fails the test.
func find(t *testing.T, blocks []listedBlock, a netip.Addr) listedBlock {
	t.Helper()
	prefix := netip.PrefixFrom(a, a.BitLen()).String()
	i := slices.IndexFunc(blocks, func(b listedBlock) bool { return b.Prefix == prefix })
	if i < 0 {
		t.Fatalf("%s is not listed: %+v", prefix, blocks)
	}
	return blocks[i]
}

// said are the events of a type so far.
func (g *guard) said(t *testing.T, kind string) []event {
	t.Helper()
	var out []event
	for _, l := range g.Lines() {
		var e event
		if !l.Stderr && json.Unmarshal([]byte(l.Text), &e) == nil && e.Type == kind {
			out = append(out, e)
		}
	}
	return out
}

// warnings counts the lines on standard error that hold the text.
func (g *guard) warnings(text string) int {
	n := 0
	for _, l := range g.Lines() {
		if l.Stderr && strings.Contains(l.Text, text) {
			n++
		}
	}
	return n
}

// resident is a process's resident memory in kilobytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb
		}
	}
	t.Fatalf("process %d has no VmRSS", pid)
	return 0
}
