package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture"
)

// actions replays a capture and returns the bodies of its action events and of
// its statistics.
func actions(t *testing.T, cfg Config) ([]actionBody, *statsBody) {
	t.Helper()
	var out bytes.Buffer
	cfg.Output, cfg.Quiet = OutputJSON, true
	err := Run(t.Context(), cfg, Environment{Streams: Streams{Out: &out, Err: io.Discard}, Log: slog.New(slog.DiscardHandler), Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	schema := eventSchema(t)
	var all []actionBody
	var stats *statsBody
	for line := range strings.Lines(out.String()) {
		checkEvent(t, schema, line)
		var ev struct {
			Action *actionBody `json:"action"`
			Stats  *statsBody  `json:"stats"`
		}
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatal(err)
		}
		if ev.Action != nil {
			all = append(all, *ev.Action)
		}
		if ev.Stats != nil {
			stats = ev.Stats
		}
	}
	return all, stats
}

// numbers are the packets of a file by their numbers in the capture.
func numbers(t *testing.T, s *scene, file string) string {
	t.Helper()
	src, err := capture.OpenFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	var out []int
	var p capture.Packet
	for {
		if err := src.Next(&p); errors.Is(err, io.EOF) {
			return fmt.Sprint(out)
		} else if err != nil {
			t.Fatal(err)
		}
		for i, data := range s.packets {
			if bytes.Equal(data, p.Data) && s.times[i].UnixNano() == p.Time && p.Link == capture.LinkEthernet {
				out = append(out, i+1)
			}
		}
	}
}

// A replay writes the packets that would have led to blocks: those of the
// blocked address up to the one that crossed the threshold, also where a stream
// did, and names the file in the action event.
func TestEvidenceOfAReplay(t *testing.T) {
	s := newScene(t)
	for i := range 5 {
		s.tcp("192.0.2.66", "198.51.100.1", 4000, uint16(1000+i), "S", nil) // 1, 3, 5, 7, 9
		s.udp("192.0.2.7", "198.51.100.1", 5000, 9, []byte{byte(i)})        // 2, 4, 6, 8, 10
	}
	s.udp("192.0.2.66", "198.51.100.1", 5000, 9, nil)                                                         // 11
	s.stream("192.0.2.67", "198.51.100.1", 4001, 80, "GET /?id=1 UNION SELECT 2 HTTP/1.1\r\nHost: x\r\n\r\n") // 12 to 15
	s.tcp("192.0.2.67", "198.51.100.1", 4001, 80, "A", nil)                                                   // 16
	dir := t.TempDir()
	path, rules := filepath.Join(dir, "scene.pcap"), filepath.Join(dir, "rules.yml")
	s.write(path)
	text := "- {name: Scan, type: TCP, expression: 'SYN && !ACK && DstPort >= 1000', threshold: 4, actions: [{type: iptables_block}]}\n" +
		"- {name: To a host, type: TCP, expression: 'SYN && !ACK && DstPort >= 1000', threshold: 2, actions: [{type: iptables_block, config: {target: destination}}]}\n" +
		"- {name: SQL, type: HTTP, expression: 'URL contains \"UNION\"', actions: [{type: iptables_reject}]}\n"
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Read: []string{path}, Rules: []string{rules}}
	cfg.Evidence = Evidence{Directory: filepath.Join(dir, "evidence"), Packets: 3}
	all, stats := actions(t, cfg)
	got := map[string]string{}
	for _, a := range all {
		if a.Result == "created" {
			got[a.Rule] = numbers(t, s, a.Evidence)
		} else if a.Evidence != "" {
			t.Errorf("%+v names evidence", a)
		}
	}
	want := map[string]string{"Scan": "[3 5 7]", "To a host": "[1 2 3]", "SQL": "[12 14 15]"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if e := stats.Evidence; e.Files != 3 || e.Written != 3 || e.Failed+e.Lost+e.Missed != 0 {
		t.Errorf("%+v", e)
	}
	cfg.Evidence = Evidence{}
	if all, stats = actions(t, cfg); len(all) == 0 || all[0].Evidence != "" || stats.Evidence != (evidenceStats{}) {
		t.Errorf("without a directory: %+v, %+v", all, stats.Evidence)
	}
}

// Whoever cannot write evidence does not start.
func TestEvidenceDirectoryMustBe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "scene.pcap")
	newScene(t).write(path)
	err := Run(context.Background(), Config{Read: []string{path}, Evidence: Evidence{Directory: "/dev/null/x"}, Quiet: true},
		Environment{Streams: Streams{Out: io.Discard, Err: io.Discard}, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "evidence: ") {
		t.Errorf("%v", err)
	}
}
