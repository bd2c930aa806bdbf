package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/guard"
)

// result is what a run of the program shows.
type result struct {
	code        int
	out, errOut string
}

func runWith(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	// Neither the machine's own configuration nor its addresses reach a test.
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := "protect: {own: false, gateways: false, resolvers: false, ssh_peer: false}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"--config", config}, args...)
	var out, errOut bytes.Buffer
	code := run(args, guard.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errOut})
	return result{code, out.String(), errOut.String()}
}

// None of these gets as far as the kernel: the wrong use is seen before.
func TestWrongUse(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string // part of the one line on standard error
	}{
		{"nothing to watch", []string{"-q"}, 2, "use -i INTERFACE or -r FILE (interfaces here: lo"},
		{"unknown flag", []string{"--frobnicate"}, 2, "unknown flag: --frobnicate"},
		{"unknown command", []string{"blok", "192.0.2.1"}, 2, `unknown command "blok"`},
		{"a command nearly right", []string{"blok"}, 2, `unknown command "blok" for "netcap-guard", did you mean block? (see`},
		{"a command of the whitelist nearly right", []string{"whitelist", "lst"}, 2, "did you mean list?"},
		{"no workers", []string{"-i", "lo", "--workers", "0"}, 2, "workers is 0: 1 to 64"},
		{"too many workers", []string{"-i", "lo", "--workers", "5000"}, 2, "workers is 5000: 1 to 64"},
		{"nonsense workers", []string{"-i", "lo", "--workers", "x"}, 2, `"x" for "--workers" flag: not a whole number (see`},
		{"block everybody", []string{"block", "0.0.0.0/0"}, 2, "0.0.0.0/0 would block everybody"},
		{"flag without value", []string{"-i"}, 2, "flag needs an argument"},
		{"block nonsense", []string{"block", "nonsense"}, 2, `"nonsense" is neither an IP address nor a CIDR`},
		{"block nothing", []string{"block"}, 2, "accepts 1 arg(s)"},
		{"block two", []string{"block", "192.0.2.1", "192.0.2.2"}, 2, "accepts 1 arg(s)"},
		{"block for nonsense", []string{"block", "192.0.2.1", "--for", "soon"}, 2, `--for "soon"`},
		{"block for a negative time", []string{"block", "192.0.2.1", "--for", "-5m"}, 2, `--for "-5m"`},
		{"block with an unknown action", []string{"block", "192.0.2.1", "--action", "explode"}, 2, `action "explode"`},
		{"block with a log", []string{"block", "192.0.2.1", "--action", "log"}, 2, "use drop, reject, reject-reset or rate-limit"},
		{"block with no rate at all", []string{"block", "192.0.2.1", "--action", "rate-limit", "--rate", "0/s"}, 2, `"0" is no whole number above 0`},
		{"block with an odd rate", []string{"block", "192.0.2.1", "--action", "rate-limit", "--rate", "10/fortnight"}, 2, `unknown unit "fortnight"`},
		{"block without a burst", []string{"block", "192.0.2.1", "--action", "rate-limit", "--burst", "0"}, 2, "--burst 0: at least 1"},
		{"block with a burst beyond the largest", []string{"block", "192.0.2.1", "--action", "rate-limit", "--burst", "4294967296"}, 2, "burst 4294967296"},
		{"block with a rate for a drop", []string{"block", "192.0.2.1", "--rate", "10/s"}, 2, "rate and burst go with the action rate-limit"},
		{"block with an unknown target", []string{"block", "192.0.2.1", "--target", "left"}, 2, `target "left"`},
		{"unblock nonsense", []string{"unblock", "nonsense"}, 2, `"nonsense" is neither`},
		{"unblock all and one", []string{"unblock", "--all", "192.0.2.1"}, 2, "unknown command"},
		{"list with an argument", []string{"list", "192.0.2.1"}, 2, "unknown command"},
		{"unknown output", []string{"-i", "lo", "-o", "xml"}, 2, `output "xml" is unknown (use human, json)`},
		{"built-in chain", []string{"-i", "lo", "--chain", "INPUT"}, 2, "is built in"},
		{"enforce without a capture", []string{"-i", "lo", "--enforce"}, 2, "--enforce goes with -r"},
		{"missing rules", []string{"check", "absent.yml"}, 78, "absent.yml"},
		{"missing capture", []string{"-r", "absent.pcap"}, 1, "absent.pcap"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := runWith(t, "", append([]string{"-q"}, tt.args...)...)
			if r.code != tt.code || !strings.Contains(r.errOut, tt.want) {
				t.Errorf("exit code %d, standard error %q; want %d and %q", r.code, r.errOut, tt.code, tt.want)
			}
			if strings.Count(r.errOut, "\n") != 1 || r.out != "" {
				t.Errorf("not one line on standard error alone: %q, %q", r.errOut, r.out)
			}
		})
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	r := runWith(t, "", "--help")
	for _, want := range []string{"check", "block", "unblock", "list", "flush", "cleanup", "demo", "version", "completion", "--netns", "--events"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("--help does not name %s", want)
		}
	}
	if r.code != 0 {
		t.Errorf("exit code %d", r.code)
	}
}

func TestVersionAndCompletion(t *testing.T) {
	if r := runWith(t, "", "version"); r.code != 0 || !strings.HasPrefix(r.out, "netcap-guard ") {
		t.Errorf("version: %+v", r)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := runWith(t, "", "completion", shell); r.code != 0 || !strings.Contains(r.out, "netcap-guard") {
			t.Errorf("completion %s: exit code %d, %d bytes", shell, r.code, len(r.out))
		}
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yml", "- name: a\n  type: TCP\n  expression: SYN\n  threshold: 5\n")
	if r := runWith(t, "", "check", good); r.code != 0 || r.out != "ok: 1 rule runs\n" || r.errOut != "" {
		t.Errorf("%+v", r)
	}
	if r := runWith(t, "", "check", "--rules", good); r.code != 0 || r.out != "ok: 1 rule runs\n" {
		t.Errorf("--rules: %+v", r)
	}
	bad := write("bad.yml", "- name: b\n  type: TCP\n  expression: SYM\n  treshold: 5\n")
	r := runWith(t, "", "check", good, bad)
	if r.code != 78 || strings.Count(r.errOut, "netcap-guard: ") != 2 || !strings.Contains(r.errOut, "^~~\n") || !strings.Contains(r.errOut, bad+":3:") || !strings.Contains(r.errOut, bad+":4:") {
		t.Errorf("all mistakes, underlined, with file and line: %+v", r)
	}
	if r := runWith(t, "", "check"); r.code != 0 || !strings.HasPrefix(r.out, "ok: ") {
		t.Errorf("the built-in rules: %+v", r)
	}
}

// twoSYNs is a pcap file of raw IPv4 with two SYNs to port 22.
func twoSYNs() string {
	header := "\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x65\x00\x00\x00"
	packet := "\x45\x00\x00\x28\x00\x00\x40\x00\x40\x06\x00\x00\xc0\x00\x02\x01\xc6\x33\x64\x01" +
		"\x11\x5c\x00\x16\x00\x00\x00\x01\x00\x00\x00\x00\x50\x02\x20\x00\x00\x00\x00\x00"
	record := func(second string) string {
		return second + "\x00\x00\x00\x00\x00\x00\x00\x28\x00\x00\x00\x28\x00\x00\x00" + packet
	}
	return header + record("\x01") + record("\x02")
}

func TestReplayFromStandardInput(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "r.yml")
	text := "- name: two\n  type: TCP\n  expression: SYN && DstPort == 22\n  threshold: 2\n  threshold_window: 5\n" +
		"  actions: [{type: iptables_block, config: {duration: 1h}}, {type: iptables_log, config: {prefix: 'P: '}}]\n"
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	events := filepath.Join(t.TempDir(), "events.json")
	r := runWith(t, twoSYNs(), "-r", "-", "--rules", rules, "-o", "json", "-q", "--events", events)
	if r.code != 0 || r.errOut != "" {
		t.Fatalf("%+v", r)
	}
	var types []string
	for line := range strings.Lines(r.out) {
		var ev struct {
			Type   string `json:"event_type"`
			Packet int    `json:"packet"`
			Stats  struct {
				Packets  int
				Firewall map[string]int
			}
		}
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatal(err)
		}
		types = append(types, ev.Type)
		if ev.Type == "alert" && ev.Packet != 2 {
			t.Errorf("the alert is on packet %d, want 2", ev.Packet)
		}
		if ev.Type == "stats" && (ev.Stats.Packets != 2 || ev.Stats.Firewall["active_blocks"] != 1) {
			t.Errorf("stats %+v", ev.Stats)
		}
	}
	if got := strings.Join(types, " "); got != "start alert action log stats" {
		t.Errorf("events %s", got)
	}
	if file, err := os.ReadFile(events); err != nil || string(file) != r.out {
		t.Errorf("the event file differs from standard output (%v)", err)
	}
}

func TestCutCaptureIsEvaluatedAsFarAsItGoes(t *testing.T) {
	data := twoSYNs()
	r := runWith(t, data[:len(data)-5], "-r", "-", "-o", "json")
	if r.code != 0 || !strings.Contains(r.errOut, "cut short") || !strings.Contains(r.out, `"packets":1,`) {
		t.Errorf("%+v", r)
	}
	if r := runWith(t, "no capture at all", "-r", "-", "-q"); r.code != 1 || strings.Count(r.errOut, "\n") != 1 {
		t.Errorf("%+v", r)
	}
}
