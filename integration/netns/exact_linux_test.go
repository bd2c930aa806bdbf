package netns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// network is a prefix inside the outside network of newRoutedWorld and what a
// block of it does to single addresses.
type network struct {
	cidr, hole    string
	stopped, free []string
}

func networks() map[string]network {
	return map[string]network{
		"IPv4": {"192.0.2.64/27", "192.0.2.72/30", []string{"192.0.2.64", "192.0.2.71", "192.0.2.76", "192.0.2.80", "192.0.2.95"},
			[]string{"192.0.2.63", "192.0.2.72", "192.0.2.75", "192.0.2.96"}},
		"IPv6": {"2001:db8:2::40/123", "2001:db8:2::48/126",
			[]string{"2001:db8:2::40", "2001:db8:2::47", "2001:db8:2::4c", "2001:db8:2::50", "2001:db8:2::5f"},
			[]string{"2001:db8:2::3f", "2001:db8:2::48", "2001:db8:2::4b", "2001:db8:2::60"}},
	}
}

// TestForwardedPrefixIsExact: middle, both ends and one beside each end of a
// block with a hole, on the FORWARD path. (The same on INPUT and OUTPUT, and
// nested prefixes with their ends, are in the backends' contract suite.)
func TestForwardedPrefixIsExact(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w, router := newRoutedWorld(t)
		g := startGuard(t, f, router.NS, rules(t, "iptables_block", "duration: 10m"))
		for name, n := range networks() {
			to := w.victim.v4
			if strings.Contains(n.cidr, ":") {
				to = w.victim.v6
			}
			for _, a := range append(n.stopped, n.free...) {
				args := []string{"addr", "add", a + "/" + map[bool]string{true: "24", false: "64"}[to.Is4()], "dev", "eth0"}
				if to.Is6() {
					args = append(args, "nodad")
				}
				nstest.Run(t, w.attacker.NS, "ip", args...)
			}
			verb(t, f, router.NS, "whitelist", "add", n.hole).mustBe(t, 0)
			verb(t, f, router.NS, "block", n.cidr).mustBe(t, 0)
			for _, a := range n.free {
				eventually(t, name+": "+a+" passes", func() bool { return pingsFrom(t, w.attacker, a, to) })
			}
			for _, a := range n.stopped {
				if pingsFrom(t, w.attacker, a, to) {
					t.Errorf("%s: %s passes, inside the blocked %s", name, a, n.cidr)
				}
			}
			verb(t, f, router.NS, "unblock", n.cidr).mustBe(t, 0)
			for _, a := range n.stopped {
				eventually(t, name+": "+a+" passes after the unblock", func() bool { return pingsFrom(t, w.attacker, a, to) })
			}
		}
		g.end(t)
	})
}

// pingsFrom is pings with a source address, and less patience.
func pingsFrom(t *testing.T, from host, source string, to netip.Addr) bool {
	t.Helper()
	_, err := from.Exec(t.Context(), "ping", "-n", "-q", "-c", "1", "-W", "0.4", "-I", source, to.String())
	return err == nil
}

// TestDirections: a source block lets the guard's host send, a destination
// block lets it receive; that its own address is whitelisted changes neither.
func TestDirections(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		ns := w.victim.NS
		g := startGuard(t, f, ns, rules(t, "iptables_block", "duration: 10m"), "--whitelist", w.victim.v4.String()+","+w.victim.v6.String())
		for name, to := range families(w) {
			a := w.attacker.addr(to)
			in := startFlow(t, name+" to the victim", w.attacker, &w.victim, to)
			out := startFlow(t, name+" from the victim", w.victim, &w.attacker, a)
			in.mustPass(t, "before")
			out.mustPass(t, "before")
			verb(t, f, ns, "block", a.String()).mustBe(t, 0)
			in.mustStop(t, "under the source block")
			out.mustPass(t, "under the source block")
			verb(t, f, ns, "block", a.String(), "--target", "destination").mustBe(t, 0)
			in.mustStop(t, "under both blocks")
			out.mustStop(t, "under both blocks")
			verb(t, f, ns, "unblock", a.String()).mustBe(t, 0)
			verb(t, f, ns, "block", a.String(), "--target", "destination").mustBe(t, 0)
			in.mustPass(t, "under the destination block")
			out.mustStop(t, "under the destination block")
			// A network around both, and around the host itself.
			network := map[bool]string{true: "192.0.2.0/24", false: "2001:db8::/64"}[to.Is4()]
			verb(t, f, ns, "block", network).mustBe(t, 0)
			in.mustStop(t, "under the block of the network")
			mustReach(t, "the host itself", w.victim, to)
			verb(t, f, ns, "flush").mustBe(t, 0)
			in.mustPass(t, "after flush")
			out.mustPass(t, "after flush")
		}
		g.end(t)
	})
}

// TestNewAddressIsProtected: an address that this host gets while a guard runs
// is protected at once, and one that it loses is not any more.
func TestNewAddressIsProtected(t *testing.T) {
	each(t, func(t *testing.T, f flavour) {
		w := newWorld(t)
		ns := w.victim.NS
		g := startGuard(t, f, ns, rules(t, "iptables_block", "duration: 10m"))
		for name, a := range map[string]string{"IPv4": "198.51.100.77", "IPv6": "2001:db8:77::77"} {
			at := mustPrefix(a)
			verb(t, f, ns, "block", a).mustBe(t, 0)
			nstest.Run(t, ns, "ip", "addr", "add", at, "dev", "eth0")
			e := g.await(t, name+" unblock", func(e event) bool { return e.Type == "unblock" && e.Block.Prefix == at })
			if e.By != "whitelist" {
				t.Errorf("%s: unblock by %q, want whitelist", name, e.By)
			}
			if r := verb(t, f, ns, "block", a).mustBe(t, 1); !strings.Contains(r.stderr, "own address") {
				t.Errorf("%s: block of a new own address says %q", name, r.stderr)
			}
			verb(t, f, ns, "block", a, "--force").mustBe(t, 0)
			verb(t, f, ns, "unblock", a).mustBe(t, 0)
			nstest.Run(t, ns, "ip", "addr", "del", at, "dev", "eth0")
			eventually(t, a+" can be blocked again", func() bool { return verb(t, f, ns, "block", a).code == 0 })
		}
		if got := list(t, f, ns); len(got) != 2 {
			t.Errorf("list %+v, want two", got)
		}
		g.end(t)
	})
}
