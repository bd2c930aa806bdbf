package guard

import (
	"os"
	"path/filepath"
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
		{"wrong type", "dry_run: perhaps\n", "config.yaml:1: `perhaps` is not what belongs here (bool)"},
		{"two documents", "dry_run: true\n---\nbogus: 1\n", "more than one YAML document"},
		{"days", "default_duration: 2d\n", ""},
		{"no duration", "default_duration: soon\n", "config.yaml:"},
		{"broken YAML", "interfaces: [eth0\n", "config.yaml:"},
		{"unknown backend", "backend: pf\n", `backend "pf" is unknown (use auto, nft, iptables)`},
		{"broken whitelist", "whitelist: [192.0.2.300]\n", `"192.0.2.300" is neither an address, a CIDR nor a DNS name`},
		{"built-in chain", "chain: INPUT\n", `chain name "INPUT" is built in`},
		{"negative duration", "default_duration: -1s\n", "negative"},
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
	text := "chain: GUARD\ndefault_duration: 1h\nblock_counters: false\nwhitelist: [192.0.2.1]\nipv4: true\nprotect: {gateways: false}\n"
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
	if got := strings.Join(m.Whitelist, " "); got != "127.0.0.0/8 ::1/128 192.0.2.1/32" {
		t.Errorf("whitelist %s", got)
	}
}
