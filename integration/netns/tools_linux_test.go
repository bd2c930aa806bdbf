package netns

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// shipped is the path of the rules that ship.
func shipped(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../configs/firewall-rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// mustBlock waits until the guard has blocked the address, and checks that it
// was for the rule, that an alert says so and that the kernel lists it.
func (g *guard) mustBlock(t *testing.T, a netip.Addr, rule string) {
	t.Helper()
	e := g.await(t, "action on "+a.String(), func(e event) bool { return e.Type == "action" && e.Action.IP == a.String() })
	if e.Action.Result != "created" || e.Action.Rule != rule {
		t.Errorf("action %+v, want %s blocked by %q", e.Action, a, rule)
	}
	g.await(t, "alert on "+a.String(), func(e event) bool {
		return e.Type == "alert" && e.SrcIP == a.String() && e.Alert.Signature == rule
	})
	// A rule whose block lasts longer takes the block over.
	listed := func(e event) bool {
		return e.Action.IP == a.String() && g.f.lists(t, g.ns, a, "DROP", e.Action.Rule)
	}
	eventually(t, "the kernel lists the block of "+a.String(), func() bool { return slices.ContainsFunc(g.said(t, "action"), listed) })
}

// mustAccuse checks that the guard's alerts and blocks so far are all of the
// addresses.
func (g *guard) mustAccuse(t *testing.T, only ...netip.Addr) {
	t.Helper()
	guilty := func(text string) bool {
		return slices.ContainsFunc(only, func(a netip.Addr) bool { return a.String() == text || mustPrefix(a.String()) == text })
	}
	for _, e := range g.said(t, "alert") {
		if !guilty(e.SrcIP) {
			t.Errorf("alert of %s: %q", e.SrcIP, e.Alert.Signature)
		}
	}
	for _, b := range list(t, g.f, g.ns) {
		if !guilty(b.Prefix) {
			t.Errorf("%s is blocked by %q", b.Prefix, b.Rule)
		}
	}
}

// run starts a program in a host, which ends with the test at the latest.
func (h host) run(t *testing.T, name string, args ...string) *netlab.Process {
	t.Helper()
	nstest.Tool(t, name)
	cmd := h.Command(t.Context(), name, args...)
	cmd.Dir = t.TempDir()
	p, err := netlab.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if lines := p.Lines(); t.Failed() {
			for _, l := range lines[max(len(lines)-20, 0):] {
				t.Logf("%s: %.300s", name, l.Text)
			}
		}
	})
	return p
}

// webServer serves pages at port 80 of a host's IPv4 address: a catalogue that
// puts what it is asked for into its SQL query, as its errors show, and files
// to download.
func webServer(t *testing.T, h host) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/item", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, catalogue(r.FormValue("id"))) // the client may be gone already
	})
	mux.HandleFunc("/pool/", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 200_000))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience}
	err := h.Do(func() error {
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(h.v4, 80).String())
		if err == nil {
			go func() { _ = server.Serve(ln) }() // ends with Close
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() }) // open connections end with it
}

// catalogue answers as a database would that looks an item up in a table of
// three columns, the item's number put into the query as it came.
func catalogue(id string) string {
	if strings.ContainsAny(id, `'"`) {
		return "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version"
	}
	var column int
	if _, order, there := strings.Cut(strings.ToUpper(id), "ORDER BY "); there {
		if _, err := fmt.Sscan(order, &column); err == nil && column > 3 {
			return fmt.Sprintf("Unknown column '%d' in 'order clause'", column)
		}
	}
	return "<html><body>one item</body></html>"
}

// TestInjectorIsBlocked: sqlmap against a web server with shipped rules. As it
// comes it says what it is; under another name it is known by what it asks
// for.
func TestInjectorIsBlocked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, rule string
		args       []string
	}{
		{"as it comes", "Block Exploit Tools", nil},
		{"disguised", "Block SQL Injection Attempts", []string{"--random-agent", "--technique=U", "--keep-alive"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFlavour(t, "nft")
			w := newWorld(t)
			webServer(t, w.victim)
			g := startGuard(t, f, w.victim.NS, shipped(t))
			url := fmt.Sprintf("http://%s/item?id=1", w.victim.v4)
			args := append([]string{"--batch", "--disable-coloring", "--output-dir", t.TempDir(), "-u", url}, tt.args...)
			sqlmap := w.attacker.run(t, "sqlmap", args...)
			for range 5 {
				curl(t, w.bystander, url+"&page=union")
			}
			g.mustBlock(t, w.attacker.v4, tt.rule)
			sqlmap.Kill()
			mustNotReach(t, "attacker", w.attacker, w.victim.v4)
			curl(t, w.bystander, url)
			g.mustAccuse(t, w.attacker.v4)
			g.end(t)
		})
	}
}

// curl fetches pages, which must succeed.
func curl(t *testing.T, from host, args ...string) {
	t.Helper()
	nstest.Tool(t, "curl")
	wait := fmt.Sprint(int(patience / time.Second))
	nstest.Run(t, from.NS, "curl", append([]string{"-sS", "--fail", "-o", "/dev/null", "--retry", "2", "--max-time", wait}, args...)...)
}

// TestScannerInATunnel: nmap through a VXLAN, over both families. The guard
// watches the interface below the tunnel and was told to look inside.
func TestScannerInATunnel(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		inner := w
		for _, h := range []*host{&inner.victim, &inner.attacker, &inner.bystander} {
			others := []netip.Addr{w.victim.v4}
			if h.NS == w.victim.NS {
				others = []netip.Addr{w.attacker.v4, w.bystander.v4}
			}
			*h = overlay(t, *h, others...)
		}
		serve(t, inner.victim, 8080)
		g := startGuard(t, f, w.victim.NS, shipped(t), "--decap")
		for name, to := range families(inner) {
			mustReach(t, "attacker before "+name, inner.attacker, to)
			scan(t, inner.attacker, to)
			g.mustBlock(t, inner.attacker.addr(to), scanRule)
			mustNotReach(t, "attacker after "+name, inner.attacker, to)
			mustReach(t, "bystander "+name, inner.bystander, to)
		}
		mustReach(t, "who carries the tunnel", w.attacker, w.victim.v4)
		g.mustAccuse(t, inner.attacker.v4, inner.attacker.v6)
		g.end(t)
	})
}

// overlay gives a host an interface in a VXLAN with the others. Its addresses
// there end as its own do.
func overlay(t *testing.T, h host, others ...netip.Addr) host {
	t.Helper()
	last := h.v4.As4()[3]
	inner := host{h.NS, netip.AddrFrom4([4]byte{203, 0, 113, last}), netip.MustParseAddr(fmt.Sprintf("2001:db8:77::%d", last))}
	script := []string{
		fmt.Sprintf("ip link add vx0 type vxlan id 7 local %s dstport 4789 nolearning", h.v4), "ip link set vx0 up",
		fmt.Sprintf("ip addr add %s/24 dev vx0", inner.v4), fmt.Sprintf("ip addr add %s/64 dev vx0 nodad", inner.v6),
	}
	for _, other := range others {
		script = append(script, fmt.Sprintf("bridge fdb append 00:00:00:00:00:00 dev vx0 dst %s", other))
	}
	for _, line := range script {
		words := strings.Fields(line)
		nstest.Run(t, h.NS, words[0], words[1:]...)
	}
	return inner
}
