package guard

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/configs"
	"github.com/netcap-guard/netcap-guard/engine"
)

const (
	stranger = "203.0.113.66"
	server   = "198.51.100.10"
)

// conduct is what a rule is to be shown: the i-th act of an attacker that it
// counts, and of somebody whom it must not count.
type conduct struct {
	attack, innocent func(s *scene, i int)
}

// conducts has an entry for every shipped rule.
func conducts() map[string]conduct {
	long := strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".example"
	syn := func(port uint16) func(*scene, int) {
		return func(s *scene, i int) { s.tcp(stranger, server, uint16(10000+i), port, "S", nil) }
	}
	ack := func(port uint16) func(*scene, int) {
		return func(s *scene, i int) { s.tcp(stranger, server, uint16(10000+i), port, "A", nil) }
	}
	request := func(head string) func(*scene, int) {
		return func(s *scene, i int) {
			s.stream(stranger, server, uint16(10000+i), 80, head+"\r\nHost: www.example\r\n\r\n")
		}
	}
	query := func(name string, kind layers.DNSType, answer bool) func(*scene, int) {
		return func(s *scene, _ int) { s.dns(stranger, server, name, kind, answer) }
	}
	datagram := func(port uint16) func(*scene, int) {
		return func(s *scene, i int) {
			s.udp(stranger, server, 40000, port, []byte{1, 2, 3, 4})
			s.wait(-9999 * 1000) // thousands of them are to fit into the window
		}
	}
	ping := func(kind uint8, size int) func(*scene, int) {
		return func(s *scene, _ int) { s.ping(stranger, server, kind, size) }
	}
	return map[string]conduct{
		"Block Port Scanner": {func(s *scene, i int) { syn(uint16(1+i))(s, i) }, ack(80)},
		"Block SYN Flood Source": {syn(80), func(s *scene, i int) {
			s.tcp(stranger, server, uint16(10000+i), 80, "SA", nil)
		}},
		"Block SSH Brute Force":        {syn(22), syn(2222)},
		"Block FTP Brute Force":        {syn(21), syn(2121)},
		"Block Telnet Brute Force":     {syn(2323), syn(24)},
		"Block RDP Brute Force":        {syn(3389), ack(3389)},
		"Block Web Login Brute Force":  {request("POST /wp-login.php HTTP/1.1"), request("GET /wp-login.php HTTP/1.1")},
		"Block SQL Injection Attempts": {request("GET /?id=1%20UNION%20SELECT%20a HTTP/1.1"), request("GET /union/members HTTP/1.1")},
		"Block Cross-Site Scripting":   {request("GET /?q=%3Cscript%3Ealert(1) HTTP/1.1"), request("GET /manuscript HTTP/1.1")},
		"Block Path Traversal":         {request("GET /../../etc/passwd HTTP/1.1"), request("GET /a..b/passwd HTTP/1.1")},
		"Block Exploit Tools":          {request("GET / HTTP/1.1\r\nUser-Agent: sqlmap/1.7#stable"), request("GET / HTTP/1.1\r\nUser-Agent: Mozilla/5.0")},
		"Block DNS Tunneling":          {query(long, layers.DNSTypeTXT, false), query(long, layers.DNSTypeTXT, true)},
		"Block DNS Amplification":      {query("example", 255, false), query("example", layers.DNSTypeA, false)},
		"Block UDP Flood Source":       {datagram(9), datagram(443)},
		"Block ICMP Tunneling":         {ping(layers.ICMPv4TypeEchoRequest, 300), ping(layers.ICMPv4TypeEchoRequest, 56)},
	}
}

// TestShippedRulesOnCaptures gives every shipped rule two captures: as many
// acts as it takes, for which it must fire once, and a near miss, one act less
// and any number of others, for which it must not. Rules that are off are
// turned on.
func TestShippedRulesOnCaptures(t *testing.T) {
	text := strings.ReplaceAll(string(configs.FirewallRules()), "enabled: false", "enabled: true")
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.yml")
	writeText(t, rules, text)
	rs, report := engine.Load(engine.Path(rules))
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	all := conducts()
	for _, r := range rs.Rules() {
		c, ok := all[r.Name]
		if !ok {
			t.Errorf("%s has no captures", r.Name)
			continue
		}
		if !r.Native() {
			t.Errorf("%s is not native", r.Name)
		}
		t.Run(r.Name, func(t *testing.T) {
			needed := max(1, r.Threshold, r.DistinctThreshold)
			attack, miss := newScene(t), newScene(t)
			for i := range needed {
				attack.act(c.attack, i)
				if i+1 < needed {
					miss.act(c.attack, i)
				}
			}
			for i := range min(2*needed, 300) {
				miss.act(c.innocent, needed+i)
			}
			path := filepath.Join(t.TempDir(), "capture.pcap")
			attack.write(path)
			expectation(t, rules, path, fmt.Sprintf("alerts: [{rule: %q, source: %s, times: 1}]", r.Name, stranger))
			miss.write(path)
			expectation(t, rules, path, fmt.Sprintf("no_alerts: [{rule: %q}]", r.Name))
		})
		delete(all, r.Name)
	}
	for name := range all {
		t.Errorf("captures for %s, which is no rule", name)
	}
}

func (s *scene) act(act func(*scene, int), i int) { act(s, i) }

// expectation runs the verb.
func expectation(t *testing.T, rules, capture, expect string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "expect.yml")
	writeText(t, file, expect)
	var out bytes.Buffer
	if err := TestRules(t.Context(), Config{Rules: []string{rules}}, capture, file,
		Environment{Streams: Streams{Out: &out, Err: io.Discard}, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}
