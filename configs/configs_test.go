package configs

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/record"
)

// load loads the shipped rules, which must be without errors and native.
func load(t *testing.T) (*engine.RuleSet, engine.Report) {
	t.Helper()
	rs, report := engine.Load(engine.Bytes("firewall-rules.yml", FirewallRules()))
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	return rs, report
}

func TestShippedRules(t *testing.T) {
	rs, report := load(t)
	page := []string{"Block Port Scanner", "Block SSH Brute Force", "Block DNS Tunneling", "Block SQL Injection Attempts", "Block SYN Flood Source"}
	for _, r := range rs.Rules() {
		if !r.Native() {
			t.Errorf("%s runs in the slow VM", r.Name)
		}
		if len(r.Actions) == 0 || len(r.MITRE) == 0 || len(r.Tags) == 0 || r.Description == "" {
			t.Errorf("%s is not fully described", r.Name)
		}
		if r.Threshold < 2 {
			t.Errorf("%s blocks on a single match", r.Name)
		}
		for _, a := range r.Actions {
			if a.Kind != engine.ActionLog && (!a.HasDuration || a.Duration == 0) {
				t.Errorf("%s blocks forever, or for a default", r.Name)
			}
		}
		page = slices.DeleteFunc(page, func(name string) bool { return name == r.Name })
	}
	if len(page) > 0 {
		t.Errorf("the page's rules %q are missing", page)
	}
	for _, w := range report.Warnings {
		t.Errorf("warning %v", w)
	}
}

func TestCallerOwnsTheSlice(t *testing.T) {
	FirewallRules()[0] = 'X'
	if FirewallRules()[0] != '#' {
		t.Error("the embedded file was changed")
	}
}

// example is one record and whether the rule's expression is true for it.
type example struct {
	name  string
	fill  func(*record.Set)
	match bool
}

func tcp(r record.TCP) func(*record.Set)      { return func(s *record.Set) { s.TCP = r } }
func udp(r record.UDP) func(*record.Set)      { return func(s *record.Set) { s.UDP = r } }
func icmp(r record.ICMPv4) func(*record.Set)  { return func(s *record.Set) { s.ICMPv4 = r } }
func icmp6(r record.ICMPv6) func(*record.Set) { return func(s *record.Set) { s.ICMPv6 = r } }
func request(r record.HTTP) func(*record.Set) { return func(s *record.Set) { s.HTTP = r } }
func dns(r record.DNS) func(*record.Set)      { return func(s *record.Set) { s.DNS = r } }
func question(name string, typ int32) record.DNS {
	return record.DNS{Questions: []*record.DNSQuestion{{Name: name, Type: typ, Class: 1}}}
}

func answer(d record.DNS) record.DNS { d.QR = true; return d }

// examples are what each rule must and must not match.
func examples() map[string][]example {
	long := string(slices.Repeat([]byte("a"), 101))
	syn := func(port int32) func(*record.Set) { return tcp(record.TCP{DstPort: port, SYN: true}) }
	synAck := func(port int32) func(*record.Set) { return tcp(record.TCP{DstPort: port, SYN: true, ACK: true}) }
	get := func(url string) func(*record.Set) { return request(record.HTTP{Method: "GET", URL: url}) }
	bareSYN := []example{
		{"a SYN", syn(80), true}, {"a SYN to port 0", syn(0), true}, {"a SYN-ACK", synAck(80), false},
		{"an ACK", tcp(record.TCP{ACK: true}), false}, {"a SYN with data", tcp(record.TCP{SYN: true, PayloadSize: 1}), false},
	}
	service := func(port int32) []example {
		return []example{{"a SYN", syn(port), true}, {"its answer", synAck(port), false}, {"the next port", syn(port + 1), false},
			{"from the port", tcp(record.TCP{SrcPort: port, SYN: true}), false}, {"a segment", tcp(record.TCP{DstPort: port, ACK: true}), false}}
	}
	return map[string][]example{
		"Block Port Scanner":       bareSYN,
		"Block SYN Flood Source":   bareSYN,
		"Block SSH Brute Force":    service(22),
		"Block FTP Brute Force":    service(21),
		"Block Telnet Brute Force": append(service(23), example{"the other port", syn(2323), true}),
		"Block RDP Brute Force":    service(3389),
		"Block Web Login Brute Force": {
			{"a login", request(record.HTTP{Method: "POST", URL: "/wp-login.php"}), true},
			{"another", request(record.HTTP{Method: "POST", URL: "/app/Login?next=/"}), true},
			{"the form", get("/login"), false},
			{"no login", request(record.HTTP{Method: "POST", URL: "/loginform.css"}), false},
			{"an answer", request(record.HTTP{Method: "POST", URL: "/login", IsResponse: true}), false},
		},
		"Block SQL Injection Attempts": {
			{"union", get("/?id=1%20UNION%20SELECT%20a"), true}, {"drop", get("/?q=;drop+table+users"), true},
			{"insert", get("/?q=insert+x+into+y"), true}, {"a trade union", get("/union/members"), false}, {"plain", get("/index.html"), false},
		},
		"Block Cross-Site Scripting": {
			{"script", get("/?q=<script>alert(1)</script>"), true}, {"encoded", get("/?q=%3CScript%3E"), true},
			{"event", get("/?q=%3Cimg%20src=x%20onerror=alert(1)>"), true}, {"link", get("/?u=javascript:alert(1)"), true},
			{"a description", get("/manuscript/javascript-basics"), false}, {"plain", get("/?online=1"), false},
		},
		"Block Path Traversal": {
			{"plain", get("/../../etc/hosts"), true}, {"encoded", get("/%2e%2e%2fx"), true}, {"twice encoded", get("/%252e%252e%252fx"), true},
			{"windows", get("/..\\..\\boot.ini"), true}, {"the file", get("/?f=/etc/passwd"), true},
			{"dots", get("/a..b/c...d"), false}, {"an ellipsis", get("/wait..."), false},
		},
		"Block Exploit Tools": {
			{"sqlmap", request(record.HTTP{UserAgent: "sqlmap/1.7#stable"}), true}, {"case", request(record.HTTP{UserAgent: "Mozilla/5.0 (Nikto/2.1.6)"}), true},
			{"a browser", request(record.HTTP{UserAgent: "Mozilla/5.0 (X11; Linux x86_64)"}), false}, {"none", request(record.HTTP{}), false},
		},
		"Block DNS Tunneling": {
			{"a long query", dns(question(long, 16)), true}, {"its answer", dns(answer(question(long, 16))), false},
			{"100 characters", dns(question(long[:100], 16)), false}, {"no question", dns(record.DNS{}), false},
		},
		"Block DNS Amplification": {
			{"ANY", dns(question("a", 255)), true}, {"a transfer", dns(question("a", 252)), true},
			{"the answer", dns(answer(question("a", 255))), false}, {"an address", dns(question("a", 1)), false}, {"no question", dns(record.DNS{}), false},
		},
		"Block UDP Flood Source": {
			{"some port", udp(record.UDP{SrcPort: 4000, DstPort: 9}), true}, {"a DNS answer", udp(record.UDP{SrcPort: 53, DstPort: 4000}), false},
			{"a DNS query", udp(record.UDP{SrcPort: 4000, DstPort: 53}), true}, {"QUIC", udp(record.UDP{SrcPort: 4000, DstPort: 443}), false},
			{"WireGuard", udp(record.UDP{SrcPort: 51820, DstPort: 9}), false},
		},
		"Block ICMP Tunneling": {
			{"a large ping", icmp(record.ICMPv4{IsEchoRequest: true, PayloadSize: 257}), true}, {"a large IPv6 ping", icmp6(record.ICMPv6{IsEchoRequest: true, PayloadSize: 257}), true},
			{"a ping", icmp(record.ICMPv4{IsEchoRequest: true, PayloadSize: 56}), false}, {"an error", icmp(record.ICMPv4{IsDestUnreachable: true, PayloadSize: 500}), false},
		},
	}
}

// TestExamples gives each rule its examples, every rule with at least one
// record that matches and one that does not.
func TestExamples(t *testing.T) {
	rs, _ := load(t)
	all := examples()
	for _, r := range rs.Rules() {
		list := all[r.Name]
		delete(all, r.Name)
		kinds := map[bool]int{}
		for _, ex := range list {
			kinds[ex.match]++
			t.Run(r.Name+"/"+ex.name, func(t *testing.T) {
				if got := matches(t, r, ex); got != ex.match {
					t.Errorf("matches %v, want %v", got, ex.match)
				}
			})
		}
		if kinds[true] == 0 || kinds[false] == 0 {
			t.Errorf("%s has %d matching and %d other examples", r.Name, kinds[true], kinds[false])
		}
	}
	for name := range all {
		t.Errorf("examples for %s, which is no rule", name)
	}
}

// matches evaluates a rule on an example. The record's type is the one of the
// rule's types that the example fills.
func matches(t *testing.T, r *engine.Rule, ex example) bool {
	t.Helper()
	set := &record.Set{Header: record.Header{Src: netip.MustParseAddr("203.0.113.1"), Dst: netip.MustParseAddr("198.51.100.1")}}
	ex.fill(set)
	hit := false
	for _, typ := range r.Types {
		ok, err := r.Match(typ, set)
		if err != nil {
			t.Fatal(err)
		}
		hit = hit || ok
	}
	return hit
}
