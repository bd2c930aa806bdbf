package netns

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestForeignUser: the socket's mode keeps others out, and where somebody
// widened it the guard asks the kernel who is there.
func TestForeignUser(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWorld(t)
	g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
	asNobody := func(args ...string) result {
		return finish(t, asNobody(t, f, w, slices.Concat(args, []string{"-q"}, common(t, f, w.victim.NS))...))
	}
	verbs := [][]string{{"block", w.bystander.v4.String()}, {"unblock", "--all"}, {"list"}, {"show", w.bystander.v4.String()},
		{"whitelist", "add", w.attacker.v4.String()}, {"whitelist", "list"}, {"flush"}, {"stats"}, {"reload"}, {"cleanup"}}
	for _, mode := range []struct {
		bits os.FileMode
		says string
	}{{0o660, "permission denied (root, or the guard's group)"}, {0o666, "user 65534 may not control the guard: permission denied"}} {
		if err := os.Chmod(socket(w.victim.NS), mode.bits); err != nil {
			t.Fatal(err)
		}
		for _, args := range verbs {
			oneLine(t, asNobody(args...), 1, mode.says)
		}
	}
	mustReach(t, "bystander", w.bystander, w.victim.v4)
	scan(t, w.attacker, w.victim.v4)
	g.action(t, w.attacker.v4.String(), "created")
	mustNotReach(t, "attacker", w.attacker, w.victim.v4)
	g.end(t)
}

// send writes text to a control socket and returns the status line of the
// answer, empty where there was none.
func send(t *testing.T, path, text string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the answer is read
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, text) // a guard that has read enough closes
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

// TestSocketUnderAttack: garbage, oversized and slow requests are answered
// with an error or cut off, nothing is blocked by them, packets go on being
// watched, and the administrator is served.
func TestSocketUnderAttack(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWorld(t)
	g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
	path, before := socket(w.victim.NS), resident(t, g.PID())
	request := func(verb, body string) string {
		return fmt.Sprintf("POST /v1/%s HTTP/1.1\r\nHost: guard\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", verb, len(body), body)
	}
	for _, tc := range []struct{ name, text, status string }{
		{"garbage", strings.Repeat("\x16\x03\x01\x00", 1000) + "\r\n\r\n", "400"},
		{"oversized header", "GET /v1/list HTTP/1.1\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431"},
		{"oversized body", request("block", `["`+strings.Repeat("x", 40<<20)+`"]`), "400"},
		{"unknown field", request("block", `[{"prefix":"192.0.2.20/32","evil":true}]`), "400"},
		{"wrong method", "DELETE /v1/block HTTP/1.1\r\nHost: guard\r\nConnection: close\r\n\r\n", "405"},
		{"no such request", request("shutdown", "{}"), "404"},
		{"names instead of addresses", request("block", `[{"prefix":"bystander"}]`), "400"},
		{"shell in the prefix", request("block", `[{"prefix":"192.0.2.20/32; reboot"}]`), "400"},
		{"everybody", request("block", `[{"prefix":"0.0.0.0/0"},{"prefix":"::/0"}]`), "200"},
	} {
		if got := send(t, path, tc.text); !strings.Contains(got, " "+tc.status+" ") {
			t.Errorf("%s: the answer is %q, want %s", tc.name, got, tc.status)
		}
	}
	if got := list(t, f, w.victim.NS); len(got) > 0 {
		t.Errorf("it blocked %+v", got)
	}
	slow(t, w, g, path)
	if grown := resident(t, g.PID()) - before; grown > 120_000 {
		t.Errorf("the guard has grown by %d kB", grown)
	}
	g.end(t)
}

// slow holds more connections open than the guard serves, without an end to
// their requests.
func slow(t *testing.T, w world, g *guard, path string) {
	t.Helper()
	for n := range 100 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("connection %d: %v", n, err)
		}
		defer func() { _ = conn.Close() }()              // it was given up
		_, _ = io.WriteString(conn, "POST /v1/block HT") // one too many is closed at once
	}
	descriptors, err := os.ReadDir("/proc/" + strconv.Itoa(g.PID()) + "/fd")
	if err != nil || len(descriptors) > 100 {
		t.Errorf("100 slow clients have the guard hold %d descriptors (%v)", len(descriptors), err)
	}
	scan(t, w.attacker, w.victim.v4)
	g.action(t, w.attacker.v4.String(), "created")
	mustNotReach(t, "attacker", w.attacker, w.victim.v4)
	// The slow ones are given up; until then a verb fails, and says so.
	eventually(t, "the administrator is served", func() bool {
		r := verb(t, g.f, g.ns, "unblock", w.attacker.v4.String())
		if r.code != 0 && (r.code != 1 || !strings.Contains(r.stderr, "ask the guard at "+path)) {
			t.Errorf("behind slow clients: exit code %d, %q", r.code, r.stderr)
		}
		return r.code == 0
	})
	mustReach(t, "attacker", w.attacker, w.victim.v4)
}

// TestSocketOfAKilledGuard: verbs work on the kernel, and the next start
// replaces what was left.
func TestSocketOfAKilledGuard(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		file := rules(t, "iptables_block", "duration: 10m")
		g := startGuard(t, f, w.victim.NS, file)
		murder(t, g)
		if info, err := os.Stat(socket(w.victim.NS)); err != nil || info.Mode().Type() != os.ModeSocket {
			t.Fatalf("the killed guard's socket: %v, %v", info, err)
		}
		verb(t, f, w.victim.NS, "block", w.attacker.v4.String(), "--for", "1h").mustBe(t, 0)
		mustNotReach(t, "attacker", w.attacker, w.victim.v4)
		if got := list(t, f, w.victim.NS); len(got) != 1 || got[0].Origin != "kernel" {
			t.Errorf("without a guard the list is %+v", got)
		}
		g = startGuard(t, f, w.victim.NS, file)
		if got := list(t, f, w.victim.NS); len(got) != 1 || got[0].Origin != "adopted" || got[0].Rule != "manual-block" {
			t.Errorf("the next guard lists %+v", got)
		}
		// A second guard is told whose the chain is, and the first goes on.
		r := verb(t, f, w.victim.NS, "-i", "eth0", "--rules", file).mustBe(t, 1)
		if want := "chain NETCAP is in use by process " + strconv.Itoa(g.PID()); !strings.Contains(r.stderr, want) {
			t.Errorf("a second guard says %q, want %q", r.stderr, want)
		}
		verb(t, f, w.victim.NS, "unblock", w.attacker.v4.String()).mustBe(t, 0)
		mustReach(t, "attacker", w.attacker, w.victim.v4)
		if err := g.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("the guard: %v", err)
		}
		g.end(t)
	})
}
