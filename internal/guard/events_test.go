package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/nflog"
	"github.com/netcap-guard/netcap-guard/record"
)

var update = flag.Bool("update", false, "write the golden files anew")

// emitAll emits one event of every kind, and the odd ones among them.
func emitAll(t *testing.T, e *events) {
	t.Helper()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	attacker, victim := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	match := engine.Match{Time: at, Rule: "Block SSH", Src: attacker, Dst: victim, SrcPort: 4444, DstPort: 22, Proto: 6, Packet: 1234}
	block := firewall.BlockInfo{
		IP: "192.0.2.1", Prefix: netip.MustParsePrefix("192.0.2.1/32"), Target: "source", Action: "DROP", RuleName: "Block SSH",
		Reason: "10 in 5m0s", CreatedAt: at, ExpiresAt: at.Add(2 * time.Hour), Origin: firewall.OriginRule,
	}
	if err := e.emit(&event{Timestamp: stamp(at), EventType: "start", Start: &startBody{Version: "v1", Backend: "nft", Interfaces: []string{"eth0"}, Rules: 14}}); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*engine.Alert{
		{Time: at, Rule: "Block SSH", Description: "d", Severity: engine.High, Tags: []string{"ssh"}, Record: record.TypeTCP, Src: attacker, Dst: victim,
			SrcPort: 4444, DstPort: 22, Proto: 6, Count: 10, Threshold: 10, Window: 5 * time.Minute, Fields: &record.TCP{SrcIP: "192.0.2.1"}, Packet: 1234},
		{Time: at, Rule: "hostile \x1b[31m name", Record: record.TypeICMPv4, Src: attacker, Dst: attacker, Proto: 1, Count: 1, Fields: &record.ICMPv4{}},
	} {
		if err := e.WriteAlert(a); err != nil {
			t.Fatal(err)
		}
	}
	created := engine.ActionEvent{Match: match, Prefix: block.Prefix, Duration: 2 * time.Hour, Result: firewall.Result{Outcome: firewall.Created, Block: block}}
	e.action(created, "/var/lib/netcap-guard/evidence/20260102T030405.678901Z_192.0.2.1_block-ssh.pcapng")
	e.action(engine.ActionEvent{Match: match, Kind: engine.ActionRateLimit, Prefix: netip.MustParsePrefix("2001:db8::/64"),
		Result: firewall.Result{Outcome: firewall.Failed}, Err: errors.New("not supported by this backend")}, "")
	limited := block
	limited.Action, limited.Limit = "RATE_LIMIT", backend.Limit{Rate: 10, Per: time.Second, Burst: 5}
	e.action(engine.ActionEvent{Match: match, Kind: engine.ActionRateLimit, Prefix: block.Prefix, Duration: time.Minute, Limit: limited.Limit,
		Result: firewall.Result{Outcome: firewall.Created, Block: limited}}, "")
	e.log(engine.LogEvent{Match: match, Prefix: "DNS_TUNNEL: "})
	e.log(engine.LogEvent{Match: match, Prefix: "DNS_TUNNEL: ", Kernel: true})
	e.log(engine.LogEvent{Match: match, Prefix: "DNS_TUNNEL: ", Err: errors.New("kernel log rule: set is full")})
	e.kernelLog(&nflog.Packet{Time: at, Prefix: "SSH: ", Src: attacker, Dst: victim, Proto: 17, SrcPort: 9, DstPort: 53}, "Block SSH")
	e.kernelLog(&nflog.Packet{Time: at, Prefix: "no packet: "}, "")
	e.block(firewall.Event{Kind: firewall.Expired, Block: limited, At: at.Add(2 * time.Hour)})
	logging := block
	logging.Action, logging.LogPrefix = "LOG", "SSH: "
	e.block(firewall.Event{Kind: firewall.Expired, Block: logging, At: at.Add(2 * time.Hour)})
	e.block(firewall.Event{Kind: firewall.Expired, Block: block, At: at.Add(2 * time.Hour)})
	block.ExpiresAt = time.Time{}
	e.block(firewall.Event{Kind: firewall.Unblocked, Block: block, By: firewall.ByManual, At: at})
	e.block(firewall.Event{Kind: firewall.Resynced, Reason: "table deleted by nft (77)", Restored: 100, At: at})
	stats := &statsBody{Packets: 3, Bytes: 200, Records: map[string]uint64{"TCP": 3}, Rules: map[string]ruleStats{"Block SSH": {Matches: 10, Alerts: 1, Unconfirmed: 2, Unpreceded: 1, Peak: &peakStats{9, "192.0.2.1", "192.0.2.2"}, Seconds: 0.5}, "quiet": {}},
		Firewall:  map[string]uint64{"active_blocks": 1, "blocks_created": 1, "blocks_removed": 0, "blocks_expired": 0, "duplicates_skip": 0, "whitelist_skip": 0, "errors": 0},
		Actions:   map[string]uint64{"actions_executed": 1, "actions_success": 1, "actions_failed": 0, "ips_blocked": 1},
		Drops:     map[string]familyDrops{"DROP": {IPv4: 7, IPv6: 8}, "REJECT": {}},
		KernelLog: kernelLogStats{Packets: 9, Suppressed: 1, Lost: 2, Unavailable: 3}, Escalation: escalationStats{Remembered: 1, Evicted: 2, Failed: 3}, Connections: connectionStats{Ended: 4, Failed: 5, Lost: 6},
		Capture:  captureStats{Received: 3, Dropped: 2, RingFull: 1},
		Evidence: evidenceStats{Files: 1, Bytes: 2, Written: 3, Evicted: 4, Lost: 5, Failed: 6, Missed: 7},
		Streams:  streamStats{Open: 1, Bytes: 2, Confirmed: 3, Records: 4, Evicted: 5, Shed: 6, Gaps: 7, Dropped: 8, Invalid: 9, Malformed: 10},
	}
	if err := e.emit(&event{Timestamp: stamp(at), EventType: "stats", Stats: stats}); err != nil {
		t.Fatal(err)
	}
}

func TestEventsGolden(t *testing.T) {
	for _, output := range []string{OutputHuman, OutputJSON} {
		t.Run(output, func(t *testing.T) {
			var out bytes.Buffer
			e, err := openEvents(Config{Output: output}, &out)
			if err != nil {
				t.Fatal(err)
			}
			e.backend = "nft"
			emitAll(t, e)
			golden := filepath.Join("testdata", "events."+output)
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", out.String(), want)
			}
		})
	}
}

// Every event must be what the schema that ships with the project says.
func TestEventsFollowTheSchema(t *testing.T) {
	schema := eventSchema(t)
	var out bytes.Buffer
	e, err := openEvents(Config{Output: OutputJSON}, &out)
	if err != nil {
		t.Fatal(err)
	}
	e.backend = "nft"
	emitAll(t, e)
	seen := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		checkEvent(t, schema, line)
		var head struct {
			Type string `json:"event_type"`
		}
		if err := json.Unmarshal([]byte(line), &head); err != nil {
			t.Fatal(err)
		}
		seen[head.Type] = true
	}
	if len(seen) != 8 {
		t.Errorf("only %v were tried", seen)
	}
	if err := validate(schema, `{"timestamp":"2026-01-02T03:04:05.678901Z","event_type":"alert"}`); err == nil {
		t.Error("the schema accepts an alert without a body")
	}
}

func eventSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "..", "configs", "events.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func validate(schema *jsonschema.Schema, line string) error {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

func checkEvent(t *testing.T, schema *jsonschema.Schema, line string) {
	t.Helper()
	if err := validate(schema, line); err != nil {
		t.Errorf("%s does not follow the schema: %v", line, err)
	}
}

func TestEventFileIsReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.json")
	e, err := openEvents(Config{Output: OutputHuman, Events: path}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	emitAll(t, e)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := e.reopen(); err != nil {
		t.Fatal(err)
	}
	emitAll(t, e)
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
	old, err1 := os.ReadFile(path + ".1")
	fresh, err2 := os.ReadFile(path)
	if err := errors.Join(err1, err2); err != nil || !bytes.Equal(old, fresh) || !json.Valid([]byte(strings.SplitN(string(old), "\n", 2)[0])) {
		t.Errorf("before the rotation %d bytes, after it %d (%v)", len(old), len(fresh), err)
	}
}

// A full disk must not end the guard; the loss is counted.
func TestLostEventsAreCounted(t *testing.T) {
	e, err := openEvents(Config{Output: OutputHuman, Events: "/dev/full"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	e.log(engine.LogEvent{Prefix: "X: "})
	if n, why := e.losses(); n != 1 || why == nil {
		t.Errorf("lost %d (%v), want 1", n, why)
	}
}
