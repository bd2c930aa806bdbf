package guard

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestLoadConfig(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       string // part of the error; empty: none
	}{
		{"empty", "", ""},
		{"only comments", "# nothing\n", ""},
		{"everything", "interfaces: [eth0]\nbackend: nft\ndefault_duration: 1h30m\nblock_counters: false\nprotect: {own: false}\nwhitelist: [192.0.2.1, 2001:db8::/32]\n", ""},
		{"unknown key", "interfaces: [eth0]\nbackand: nft\n", "config.yaml:2: field backand is unknown"},
		{"unknown key under protect", "protect:\n  owm: true\n", "config.yaml:2: field owm is unknown under protect"},
		{"unknown key under evidence", "evidence: {directory: /x, file: 3}\n", "field file is unknown under evidence"},
		{"evidence", "evidence: {directory: /x, packets: 10, memory: 1, files: 3, disk: 5}\n", ""},
		{"evidence beyond measure", "evidence: {memory: 100000}\n", "evidence: memory is 100000: 0 (the default) to 16384"},
		{"wrong type", "dry_run: perhaps\n", "config.yaml:1: `perhaps` is not what belongs here (bool)"},
		{"two documents", "dry_run: true\n---\nbogus: 1\n", "more than one YAML document"},
		{"days", "default_duration: 2d\n", ""},
		{"no duration", "default_duration: soon\n", "config.yaml:"},
		{"broken YAML", "interfaces: [eth0\n", "config.yaml:"},
		{"unknown backend", "backend: pf\n", `backend "pf" is unknown (use auto, nft, iptables)`},
		{"broken whitelist", "whitelist: [192.0.2.300]\n", `"192.0.2.300" is neither an address, a CIDR nor a DNS name`},
		{"built-in chain", "chain: INPUT\n", `chain name "INPUT" is built in`},
		{"negative duration", "default_duration: -1s\n", "negative"},
		{"of the kernel", "nflog_group: 65535\nkill_connections: true\nipv6_prefix: 64\nescalation_memory: 90d\nstate_dir: /x\n", ""},
		{"a group beyond the last", "nflog_group: 65536\n", "nflog_group is 65536: 0 to 65535"},
		{"a negative group", "nflog_group: -1\n", "nflog_group"},
		{"a prefix length beyond an address", "ipv6_prefix: 129\n", "ipv6_prefix is 129: 1 to 128"},
		{"a negative prefix length", "ipv6_prefix: -64\n", "ipv6_prefix"},
		{"a negative memory", "escalation_memory: -1h\n", "negative"},
		{"kill what", "kill_connections: tcp\n", "config.yaml:1: `tcp` is not what belongs here (bool)"},
		{"too large", "# " + strings.Repeat("x", maxConfigFile), "not a configuration file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadConfig(path)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q in it", err, tt.want)
			case tt.want != "" && ExitCode(err) != ExitConfig:
				t.Errorf("exit code %d, want %d", ExitCode(err), ExitConfig)
			}
		})
	}
}

func TestLoadConfigMissing(t *testing.T) {
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "absent.yaml")); ExitCode(err) != ExitConfig {
		t.Errorf("a file that was asked for is missing: %v", err)
	}
}

func TestConfigReachesTheManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	text := "chain: GUARD\ndefault_duration: 1h\nblock_counters: false\nwhitelist: [192.0.2.1]\nipv4: true\nprotect: {gateways: false}\n" +
		"nflog_group: 5\nipv6_prefix: 64\nescalation_memory: 90d\nstate_dir: /x\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	m := cfg.Manager(nil)
	if m.ChainName != "GUARD" || m.DefaultDuration != time.Hour || !m.NoBlockCounters || !m.EnableIPv4 || m.EnableIPv6 ||
		!m.Protect.NoGateways || m.Protect.NoOwn {
		t.Errorf("%+v", m)
	}
	if m.LogGroup != 5 || cfg.logGroup() != 5 || m.IPv6Prefix != 64 || m.EscalationMemory != 90*24*time.Hour {
		t.Errorf("%+v", m)
	}
	if m.StateDir != "" || m.Killer != nil {
		t.Errorf("a verb keeps state in %q and ends connections by %v: only a guard does", m.StateDir, m.Killer)
	}
	if own, named := cfg.statePath(""), cfg.statePath("/run/netns/blue"); own != "/x" || named != filepath.Join("/x", "blue") {
		t.Errorf("state in %q and %q", own, named)
	}
	if got := (&Config{}).logGroup(); got != 77 {
		t.Errorf("group %d by default, want 77", got)
	}
	if got := strings.Join(m.Whitelist, " "); got != "127.0.0.0/8 ::1/128 192.0.2.1/32" {
		t.Errorf("whitelist %s", got)
	}
}

// TestShippedConfig: the file that ships is without mistakes, as it is and
// with every key in force.
func TestShippedConfig(t *testing.T) {
	text, err := os.ReadFile("../../configs/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^#([a-z0-9_]+: )`).ReplaceAllString(string(text), "$1")
	for name, text := range map[string]string{"as it is": string(text), "with every key": all} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := LoadConfig(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "with every key" && (len(cfg.Interfaces) == 0 || cfg.StateDir == "" || cfg.BlockCounters == nil) {
			t.Errorf("keys are not read: %+v", cfg)
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if key := f.Tag.Get("yaml"); key != "-" && !strings.Contains(string(text), "\n#"+key+": ") {
			t.Errorf("%s is not in the file", key)
		}
	}
}
