package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEscalation: what an earlier guard remembers makes the next block longer;
// a file that is broken is kept aside, said once, and begun anew.
func TestEscalation(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWorld(t)
	state := t.TempDir()
	f.config = "state_dir: " + state + "\n"
	file := alarmRules(t, "iptables_block, config: {escalation: [1s, 10m]}")
	aside := func() []string {
		found, err := filepath.Glob(filepath.Join(state, "escalation-NETCAP.broken*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if err := os.WriteFile(filepath.Join(state, "escalation-NETCAP"), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGuard(t, f, w.victim.NS, file)
	if n := g.warnings("the escalation begins anew"); n != 1 || len(aside()) != 1 {
		t.Errorf("%d warnings and %q kept aside, want one of each", n, aside())
	}
	blocked := func(g *guard, duration string) {
		t.Helper()
		alarm(t, w.attacker, w.victim.v4)
		e := g.await(t, "block for "+duration, func(e event) bool { return e.Type == "action" && e.Action.Result == "created" })
		if e.Action.Duration != duration || e.Action.IP != w.attacker.v4.String() {
			t.Errorf("action %+v, want a block for %s", e.Action, duration)
		}
	}
	blocked(g, "1s")
	g.await(t, "end of the block", func(e event) bool { return e.Type == "expire" })
	if stats := g.end(t).Stats; stats.Escalation["remembered"] != 1 || stats.Escalation["failed"] != 0 {
		t.Errorf("statistics %v", stats.Escalation)
	}
	g = startGuard(t, f, w.victim.NS, file)
	blocked(g, "10m0s")
	type history struct {
		Escalation []struct {
			Prefix  string   `json:"prefix"`
			Blocked []string `json:"blocked"`
		} `json:"escalation"`
	}
	s := decode[history](t, verb(t, f, w.victim.NS, "show", w.attacker.v4.String(), "-o", "json").mustBe(t, 0).stdout)
	if len(s.Escalation) != 1 || s.Escalation[0].Prefix != "192.0.2.66/32" || len(s.Escalation[0].Blocked) != 2 {
		t.Errorf("show says %+v, want two blocks", s.Escalation)
	}
	if n := g.warnings("begins anew"); n != 0 || len(aside()) != 1 {
		t.Errorf("%d warnings at the second start, %q kept aside", n, aside())
	}
	g.end(t)
}

// TestKilledGuardsLimitsAndLogs: a rate limit and a log rule outlive a killed
// guard, and the next one takes them over as they are.
func TestKilledGuardsLimitsAndLogs(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		ns := w.victim.NS
		g := startGuard(t, f, ns, alarmRules(t, "iptables_rate_limit, config: {rate: 1/minute, burst: 3, duration: 10m}",
			"iptables_log, config: {prefix: 'SEEN: ', kernel: true, duration: 10m}"))
		for _, to := range families(w) {
			alarm(t, w.attacker, to)
		}
		eventually(t, "all four are listed", func() bool { return len(list(t, f, ns)) == 4 })
		before := list(t, f, ns)
		murder(t, g)
		inKernel := list(t, f, ns)
		sameLimits(t, before, inKernel, "kernel")
		// No rule of the next guard logs: what it adopts does.
		g = startGuard(t, f, ns, rules(t, "iptables_block", "duration: 10m"))
		sameLimits(t, before, list(t, f, ns), "adopted")
		counted := count(t, w.victim)
		for name, to := range families(w) {
			a := w.attacker.addr(to)
			mustBeLogged(t, g, w.attacker, to)
			pace(dial(t, w.attacker, to, countPort), 50, time.Millisecond)
			if n := counted.settled(t, a); n > 5 { // three at once, and one a minute
				t.Errorf("%s: %d of 51 datagrams pass the adopted limit", name, n)
			}
			mustReach(t, "bystander", w.bystander, to)
		}
		g.end(t)
	})
}

// sameLimits compares listings of rate limits and log rules.
func sameLimits(t *testing.T, want, got []listedBlock, origin string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %+v, want %+v", origin, got, want)
	}
	for _, b := range want {
		i := slices.IndexFunc(got, func(a listedBlock) bool { return a.Prefix == b.Prefix && a.Action == b.Action })
		if i < 0 {
			t.Errorf("%s: %s of %s is missing: %+v", origin, b.Action, b.Prefix, got)
			continue
		}
		a := got[i]
		if a.Limit != b.Limit || a.LogPrefix != b.LogPrefix || a.Rule != b.Rule || a.Reason != b.Reason || a.Origin != origin {
			t.Errorf("%s: %+v, want %+v", origin, a, b)
		}
		if a.Expires == nil || b.Expires == nil || moment(t, *a.Expires).Sub(moment(t, *b.Expires)).Abs() > 1100*time.Millisecond {
			t.Errorf("%s: %s ends %v, want %v", origin, a.Prefix, a.Expires, b.Expires)
		}
		if a.Packets == nil && (a.Action != "LOG" || origin != "kernel") { // nft without a guard does not say it of log rules
			t.Errorf("%s: no packets are known of %+v", origin, a)
		}
	}
}

// TestKillConnections: an established connection does not live again when the
// block of its address is lifted, one of a bystander never notices.
func TestKillConnections(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		f.config = "kill_connections: true\n"
		track(t, f, w.victim)
		g := startGuard(t, f, w.victim.NS, rules(t, "iptables_block", "duration: 10m"))
		for name, to := range families(w) {
			ends, bystander := establish(t, w.attacker, w.victim, to), establish(t, w.bystander, w.victim, to)
			a := w.attacker.addr(to).String()
			before := ended(t, f, w)
			verb(t, f, w.victim.NS, "block", a, "--for", "10m").mustBe(t, 0)
			eventually(t, "the connection is ended", func() bool { return ended(t, f, w) > before })
			verb(t, f, w.victim.NS, "unblock", a).mustBe(t, 0)
			mustReach(t, "the attacker anew", w.attacker, to)
			if ends.lives(t, time.Second) {
				t.Errorf("%s: the attacker's connection lives again", name)
			}
			if !bystander.lives(t, patience) {
				t.Errorf("%s: the bystander's connection is dead", name)
			}
		}
		g.end(t)
	})
}

// ended is how many connections the guard has ended.
func ended(t *testing.T, f flavour, w world) uint64 {
	t.Helper()
	type stats struct {
		Connections map[string]uint64 `json:"connections"`
	}
	return decode[stats](t, verb(t, f, w.victim.NS, "stats", "-o", "json").mustBe(t, 0).stdout).Connections["ended"]
}

// track has the victim's kernel follow connections, and drop what belongs to
// none that it knows.
func track(t *testing.T, f flavour, h host) {
	t.Helper()
	if f.backend == "nft" {
		f.run(t, h.NS, "nft", "-f", write(t, "track.nft", "table inet track { chain in { type filter hook input priority 0; ct state invalid drop; }; }\n"))
	} else {
		for _, program := range []string{"iptables", "ip6tables"} {
			f.run(t, h.NS, program, "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
		}
	}
	if err := h.Sysctl("net/netfilter/nf_conntrack_tcp_loose", "0"); err != nil {
		t.Fatal(err)
	}
}

// established is a TCP connection that stays open.
type established struct{ client, server net.Conn }

func establish(t *testing.T, from, at host, to netip.Addr) established {
	t.Helper()
	var e established
	var ln net.Listener
	err := at.Do(func() (err error) {
		ln, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(to, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = from.Do(func() (err error) {
		e.client, err = (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", ln.Addr().String())
		return err
	})
	if err == nil {
		e.server, err = ln.Accept()
	}
	if err = errors.Join(err, ln.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = e.client.Close(), e.server.Close() // nothing is to be said any more
	})
	if !e.lives(t, patience) {
		t.Fatal("a new connection is dead")
	}
	return e
}

// lives reports whether what the client writes arrives in time.
func (e established) lives(t *testing.T, wait time.Duration) bool {
	t.Helper()
	if _, err := e.client.Write([]byte("x")); err != nil {
		return false
	}
	if err := e.server.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	_, err := e.server.Read(make([]byte, 1))
	return err == nil
}

// TestLimitsAreCheckedForTheBackend: what the chosen backend cannot express is
// said with its place before anything is touched; where none is chosen it is a
// warning.
func TestLimitsAreCheckedForTheBackend(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		file := alarmRules(t, "iptables_rate_limit, config: {rate: 1/day, burst: 5}")
		code := 0
		if f.backend == "iptables" {
			code = 78
		}
		r := verb(t, f, w.victim.NS, "check", file).mustBe(t, code)
		if f.backend == "iptables" && (!strings.Contains(r.stderr, file+":7:") || !strings.Contains(r.stderr, "1/day burst 5") || !strings.Contains(r.stderr, "iptables")) {
			t.Errorf("check says %q", r.stderr)
		}
		if f.backend == "iptables" {
			verb(t, f, w.victim.NS, "-i", "eth0", "--rules", file).mustBe(t, 78)
			f.mustBeClean(t, w.victim.NS)
		}
		f.backend = "auto"
		if r := verb(t, f, w.victim.NS, "check", file).mustBe(t, 0); !strings.Contains(r.stderr, "warning: "+file+":7:") {
			t.Errorf("check for any backend says %q", r.stderr)
		}
	})
}
