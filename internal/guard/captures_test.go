package guard

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// capturesVariable names the folder of captures with the truth beside them.
const capturesVariable = "NETCAP_GUARD_CAPTURES"

// expectations are the manifest's columns and the rules of testdata/page.yml
// that they speak of.
func expectations() map[string]string {
	return map[string]string{
		"expect_portscan":                   "Block Port Scanner",
		"expect_synflood":                   "Block SYN Flood Source",
		"expect_ssh":                        "Block SSH Brute Force",
		"expect_dns_queries_only":           "DNS Tunneling, queries only",
		"expect_dns_literal_with_responses": "Block DNS Tunneling",
		"expect_sqli":                       "Block SQL Injection Attempts",
	}
}

// deviations are the cells in which the guard rightly finds something else than
// the manifest says, and why.
func deviations() map[[2]string]deviation {
	sorted := "at packet 9866 the capture's clock steps back 44.6 s, and the manifest has sorted the packets by time"
	return map[[2]string]deviation{
		{"other-attacks/markofu-pcaps__ftp-crack.pcap", "expect_portscan"}: {"10.234.125.254=358@664", sorted},
		{"other-attacks/markofu-pcaps__ftp-crack.pcap", "expect_synflood"}: {"10.234.125.254=192@9990", sorted},
	}
}

type deviation struct{ want, why string }

// TestCaptures replays every real capture with the page's rules: the first
// alert of each (rule, source) must fall on the very packet that the manifest
// names, and no rule may fire where it says that none does.
func TestCaptures(t *testing.T) {
	dir := os.Getenv(capturesVariable)
	if dir == "" {
		t.Skipf("%s is not set: no captures to replay", capturesVariable)
	}
	cells, wrong, captures := 0, 0, 0
	for _, row := range manifest(t, dir) {
		captures++
		name := row["category"] + "/" + row["file"]
		got := firstAlerts(t, filepath.Join(dir, filepath.FromSlash(name)))
		for column, rule := range expectations() {
			cells++
			want := row[column]
			if d, ok := deviations()[[2]string{name, column}]; ok {
				t.Logf("%s: %s fires for %s, the manifest says %s: %s", name, rule, d.want, want, d.why)
				want = d.want
			}
			if !sameAlerts(want, got[rule]) {
				wrong++
				t.Errorf("%s (%s): %s fired for %v, want %s", name, row["link_type"], rule, got[rule], want)
			}
		}
	}
	t.Logf("%d captures, %d of %d (rule, capture) pairs right, %d of them against the manifest", captures, cells-wrong, cells, len(deviations()))
	if captures < 800 {
		t.Errorf("only %d captures", captures)
	}
}

func manifest(t *testing.T, dir string) []map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "manifest.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes = '\t', true
	lines, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]string
	for _, l := range lines[1:] {
		row := map[string]string{}
		for i, name := range lines[0] {
			row[name] = l[i]
		}
		rows = append(rows, row)
	}
	return rows
}

// firstAlerts replays a capture and returns, by rule and source, the number
// of the packet that raised the first alert.
func firstAlerts(t *testing.T, path string) map[string]map[string]uint64 {
	t.Helper()
	var out bytes.Buffer
	err := Run(t.Context(), Config{
		Read: []string{path}, Rules: []string{"testdata/page.yml"}, Output: OutputJSON, Quiet: true,
	}, Environment{Streams: Streams{Out: &out, Err: io.Discard}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Logf("%s: %v", path, err)
	}
	got := map[string]map[string]uint64{}
	for dec := json.NewDecoder(&out); ; {
		var ev event
		if err := dec.Decode(&ev); errors.Is(err, io.EOF) {
			return got
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if ev.EventType != "alert" {
			continue
		}
		if got[ev.Alert.Signature] == nil {
			got[ev.Alert.Signature] = map[string]uint64{}
		}
		if _, seen := got[ev.Alert.Signature][ev.SrcIP]; !seen {
			got[ev.Alert.Signature][ev.SrcIP] = ev.Packet
		}
	}
}

// sameAlerts compares "source=most@packet,…", or "-", with what was found.
func sameAlerts(want string, got map[string]uint64) bool {
	wanted := map[string]uint64{}
	if want != "-" {
		for _, w := range strings.Split(want, ",") {
			source, rest, _ := strings.Cut(w, "=")
			var most, packet uint64
			if _, err := fmt.Sscanf(rest, "%d@%d", &most, &packet); err != nil {
				return false
			}
			wanted[source] = packet
		}
	}
	return maps.Equal(wanted, got)
}
