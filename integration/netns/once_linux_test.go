package netns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

const (
	probes     = 20
	probePorts = "1-20"
)

// probe20 sends one SYN to each of twenty ports, once, and returns what nmap
// says of it.
func probe20(t *testing.T, from *netlab.NS, to netip.Addr) string {
	t.Helper()
	args := []string{"-sS", "-n", "-Pn", "-p", probePorts, "--max-retries", "0", to.String()}
	if to.Is6() {
		args = append([]string{"-6"}, args...)
	}
	return nstest.Run(t, from, "nmap", args...)
}

// stacked are two hosts, the guarded one of which has its address on the
// interface that the script makes over its end, p0, of their link.
func stacked(t *testing.T, script ...string) (guarded, other *netlab.NS) {
	t.Helper()
	lab := nstest.Lab(t)
	guarded, other = nstest.NS(t, lab, "guarded"), nstest.NS(t, lab, "other")
	err := lab.Link(t.Context(), netlab.End{NS: guarded, Iface: "p0"}, netlab.End{NS: other, Iface: "eth0", Addrs: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.66/24"), netip.MustParsePrefix("2001:db8::66/64"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	// An interface answers for its own addresses alone, not for those of the
	// one above it.
	if err := guarded.Sysctl("net/ipv4/conf/all/arp_ignore", "1"); err != nil {
		t.Fatal(err)
	}
	for _, line := range script {
		ns := guarded
		rest, there := strings.CutPrefix(line, "other: ")
		if there {
			ns = other
		}
		nstest.Run(t, ns, "ip", strings.Fields(rest)...)
	}
	return guarded, other
}

// TestRepeatedCopiesCountOnce: a packet that comes to this host through an
// interface of others is shown by each of them.
func TestRepeatedCopiesCountOnce(t *testing.T) {
	bridge := []string{
		"link add br0 type bridge", "link set p0 master br0", "link set br0 up",
		"addr add 192.0.2.10/24 dev br0", "addr add 2001:db8::10/64 dev br0 nodad",
	}
	vxlan := []string{
		"addr add 198.51.100.1/24 dev p0", "other: addr add 198.51.100.2/24 dev eth0",
		"other: addr flush dev eth0 to 192.0.2.0/24", "other: addr flush dev eth0 to 2001:db8::/64",
	}
	for _, end := range []string{"link add vx0 type vxlan id 7 local 198.51.100.1 remote 198.51.100.2 dstport 4789\nlink set vx0 up\naddr add 192.0.2.10/24 dev vx0\naddr add 2001:db8::10/64 dev vx0 nodad",
		"other: link add vx0 type vxlan id 7 local 198.51.100.2 remote 198.51.100.1 dstport 4789\nother: link set vx0 up\nother: addr add 192.0.2.66/24 dev vx0\nother: addr add 2001:db8::66/64 dev vx0 nodad"} {
		vxlan = append(vxlan, strings.Split(end, "\n")...)
	}
	for _, tt := range []struct {
		name     string
		script   []string
		captures []string // each the interfaces of one run
	}{
		{"bridge", bridge, []string{"any", "br0", "br0 p0", "p0 br0", "br0 br0", "any br0", "p0"}},
		{"MACVLAN", []string{
			"link add mv0 link p0 type macvlan mode bridge", "link set mv0 up",
			"addr add 192.0.2.10/24 dev mv0", "addr add 2001:db8::10/64 dev mv0 nodad",
		}, []string{"any", "mv0", "p0 mv0"}},
		{"VXLAN", vxlan, []string{"any", "vx0", "p0 vx0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFlavour(t, "nft")
			guarded, other := stacked(t, tt.script...)
			for _, interfaces := range tt.captures {
				var args []string
				for _, name := range strings.Fields(interfaces) {
					args = append(args, "-i", name)
				}
				for _, to := range []string{"192.0.2.10", "2001:db8::10"} {
					g := launch(t, f, guarded, f.command(t, guarded, guardBinary(), slices.Concat(args, []string{"--rules", rules(t, "iptables_block", "duration: 10m")})...))
					said := probe20(t, other, netip.MustParseAddr(to))
					if got := g.end(t).Stats.Rules[scanRule].Matches; got != probes {
						t.Errorf("-i %s, to %s: %d SYNs count as %d\n%s", interfaces, to, probes, got, said)
					}
				}
			}
		})
	}
}

// TestOuterPacketsCountOnce: what wraps a captured tunnel's packets is no
// packet of its own; a stranger's to the same port is.
func TestOuterPacketsCountOnce(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	guarded, other := stacked(t, "addr add 192.0.2.10/24 dev p0", "other: addr add 192.0.2.67/24 dev eth0",
		"link add vx0 type vxlan id 7 local 192.0.2.10 remote 192.0.2.66 dstport 4789", "link set vx0 up", "addr add 198.51.100.1/24 dev vx0",
		"other: link add vx0 type vxlan id 7 local 192.0.2.66 remote 192.0.2.10 dstport 4789", "other: link set vx0 up", "other: addr add 198.51.100.2/24 dev vx0")
	path := write(t, "udp.yml", "rules:\n  - {name: udp, type: UDP, expression: 'DstPort == 4789', threshold: 1000, threshold_window: 10, severity: low}\n")
	g := launch(t, f, guarded, f.command(t, guarded, guardBinary(), "-i", "any", "--rules", path))
	probe20(t, other, netip.MustParseAddr("198.51.100.1"))
	nstest.Run(t, other, "nmap", "-sU", "-n", "-Pn", "-S", "192.0.2.67", "-e", "eth0", "-p", "4789", "--max-retries", "0", "192.0.2.10")
	if got := g.end(t).Stats.Rules["udp"].Matches; got != 1 {
		t.Errorf("the tunnel's packets and one of a stranger count as %d", got)
	}
}

// TestStackingWhileGuarding: an interface that becomes a bridge's port is from
// then on seen through the bridge.
func TestStackingWhileGuarding(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	guarded, other := stacked(t, "addr add 192.0.2.10/24 dev p0")
	to := netip.MustParseAddr("192.0.2.10")
	g := launch(t, f, guarded, f.command(t, guarded, guardBinary(), "-i", "any", "--rules", rules(t, "iptables_block", "duration: 10m")))
	probe20(t, other, to)
	eventually(t, "the SYNs have counted once", func() bool { return g.matches(t) == probes })
	for _, line := range []string{
		"addr flush dev p0", "link add br0 type bridge", "link set p0 master br0", "link set br0 up", "addr add 192.0.2.10/24 dev br0",
	} {
		nstest.Run(t, guarded, "ip", strings.Fields(line)...)
	}
	eventually(t, "the host answers through its bridge", func() bool { return pings(t, host{NS: other}, to) })
	before := uint64(0)
	// The guard learns of it a moment later than the host's neighbours.
	eventually(t, "a SYN through the bridge counts once", func() bool {
		before = g.matches(t)
		nstest.Run(t, other, "nmap", "-sS", "-n", "-Pn", "-p", "9", "--max-retries", "0", to.String())
		return g.matches(t) == before+1
	})
	probe20(t, other, to)
	if got := g.end(t).Stats.Rules[scanRule].Matches - before - 1; got != probes {
		t.Errorf("%d SYNs count as %d", probes, got)
	}
}
