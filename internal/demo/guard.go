package demo

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

//go:embed rules.yml
var ruleFile []byte

// event is what the demo reads of the guard's events.
type event struct {
	Type  string     `json:"event_type"`
	SrcIP netip.Addr `json:"src_ip"`
	Alert struct {
		Signature string `json:"signature"`
		Severity  string `json:"severity"`
		Count     int    `json:"count"`
		Window    int    `json:"threshold_window"`
	} `json:"alert"`
	Action struct {
		Type    string    `json:"type"`
		Result  string    `json:"result"`
		IP      string    `json:"ip"`
		Expires time.Time `json:"expires"`
		Rule    string    `json:"rule"`
	} `json:"action"`
	Stats struct {
		Packets  uint64            `json:"packets"`
		Firewall map[string]uint64 `json:"firewall"`
	} `json:"stats"`
}

// startGuard writes the rules, starts the guard inside the victim and waits
// until it says that it captures.
func (s *stage) startGuard(ctx context.Context, binary string) error {
	rules, config := filepath.Join(s.temp, "rules.yml"), filepath.Join(s.temp, "config.yaml")
	if err := os.WriteFile(rules, ruleFile, 0o600); err != nil {
		return fmt.Errorf("write the demo's rules: %w", err)
	}
	// A configuration of its own, and a control socket, keep the machine's out
	// of the demo: a guard may be running there.
	if err := os.WriteFile(config, []byte("whitelist_dir: "+s.temp+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the demo's configuration: %w", err)
	}
	args := []string{"-i", "eth0", "--backend=" + s.backend.name, "--rules", rules, "--config", config,
		"--control", filepath.Join(s.temp, "control.sock"), "-o", "json"}
	s.out.step("the victim starts netcap-guard " + strings.Join(args[:3], " "))
	var err error
	if s.guard, err = netlab.Start(s.victim.Command(ctx, binary, args...)); err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	line, err := s.guard.Await(ctx, func(l netlab.Line) bool { return l.Stderr && strings.HasPrefix(l.Text, "guarding ") })
	if err != nil {
		return fmt.Errorf("wait until the guard is ready: %w", err)
	}
	s.out.say("%s", line.Text)
	return nil
}

// await returns the first event, past or to come within d, that fits.
func await(ctx context.Context, guard *netlab.Process, d time.Duration, what string, fits func(event) bool) (event, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var found event
	_, err := guard.Await(ctx, func(l netlab.Line) bool {
		e, ok := parseEvent(l)
		if ok && fits(e) {
			found = e
			return true
		}
		return false
	})
	if err != nil {
		return event{}, fmt.Errorf("waited up to %s for %s: %w", d, what, err)
	}
	return found, nil
}

// parseEvent reads a line of standard output. A line that is no event is
// nothing the demo waits for.
func parseEvent(l netlab.Line) (event, bool) {
	var e event
	if l.Stderr || json.Unmarshal([]byte(l.Text), &e) != nil {
		return event{}, false
	}
	return e, true
}
