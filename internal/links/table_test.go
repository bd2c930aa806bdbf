package links

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var five = Tag{0x8100, 5}

// stack reads links a line each: "2 eth0 KIND master=9 parent=3 tag=5 down".
// A kind of - is none.
func stack(t testing.TB, text string) []Link {
	t.Helper()
	var all []Link
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		l := Link{Names: []string{f[1]}, Up: true, Kind: strings.TrimPrefix(f[2], "-")}
		number := func(text string) int {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			return n
		}
		l.Index = number(f[0])
		for _, word := range f[3:] {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "master":
				l.Master = number(value)
			case "parent":
				l.Parent = number(value)
			case "tag":
				l.VLAN = Tag{0x8100, uint16(number(value))}
			case "down":
				l.Up = false
			default:
				t.Fatalf("%q in %q", word, line)
			}
		}
		all = append(all, l)
	}
	return all
}

func TestRepeats(t *testing.T) {
	const bridge = "2 p0 veth master=9\n3 p1 veth master=9\n9 br0 bridge\n"
	const vlan = "2 eth0 -\n3 eth0.5 vlan parent=2 tag=5\n"
	for _, tt := range []struct {
		name, stack, captured string // captured: names, or any
		// again are the copies that are repetitions: interface, with > for
		// outgoing ones alone, < for incoming ones, :5 for frames of a VLAN.
		again string
	}{
		{"nothing stacked", "1 lo -\n2 eth0 -\n3 eth1 veth", "any", ""},
		{"bridge", bridge, "any", "p0 p1"},
		{"bridge and one port", bridge, "br0 p0", "p0 p1"},
		{"ports alone", bridge, "p0 p1", ""},
		{"bridge alone", bridge, "br0", "p0 p1"},
		{"bridge that is down", "2 p0 veth master=9\n9 br0 bridge down", "any", ""},
		{"bridge in another list", "2 p0 veth master=9", "any", ""},
		{"bond", "2 eth0 - master=9\n9 bond0 bond", "any", "eth0"},
		{"team", "2 eth0 - master=9\n9 team0 team", "any", "eth0"},
		{"virtual function of a driver's own master", "2 eth1 - master=3\n3 eth0 -", "any", "eth1"},
		{"VRF", "2 eth0 - master=9\n9 red vrf", "any", ""},
		{"bond below a bridge", "2 eth0 - master=8\n8 bond0 bond master=9\n9 br0 bridge", "eth0 br0", "eth0 bond0"},
		{"VLAN", vlan, "any", "eth0:5"},
		{"VLAN alone", vlan, "eth0.5", "eth0:5"},
		{"parent alone", vlan, "eth0", ""},
		{"VLAN that is down", "2 eth0 -\n3 eth0.5 vlan parent=2 tag=5 down", "any", ""},
		{"VLAN of which the parent is in another namespace", "3 eth0.5 vlan tag=5", "any", ""},
		{"VLAN as a port", vlan[:len(vlan)-1] + " master=9\n9 br5 bridge", "any", "eth0:5 eth0.5"},
		{"VLAN as a port, not captured itself", vlan[:len(vlan)-1] + " master=9\n9 br5 bridge", "eth0 br5", "eth0:5 eth0.5"},
		{"VLAN of a bridge", bridge + "4 br0.5 vlan parent=9 tag=5", "any", "p0 p1 br0:5"},
		{"VLAN of a bridge and a port", bridge + "4 br0.5 vlan parent=9 tag=5", "p0 br0.5", "p0:5 p1:5 br0:5"},
		{"MACVLAN", "2 eth0 -\n3 mv0 macvlan parent=2", "any", "mv0"},
		{"MACVLAN alone", "2 eth0 -\n3 mv0 macvlan parent=2", "mv0", ""},
		{"IPVLAN", "2 eth0 -\n3 iv0 ipvlan parent=2", "any", "iv0"},
		{"VLAN of a MACVLAN", "2 eth0 -\n3 mv0 macvlan parent=2\n4 mv0.5 vlan parent=3 tag=5", "any", "mv0 mv0.5"},
		{"MACVLAN of a VLAN", vlan + "4 mv0 macvlan parent=3", "any", "eth0:5 mv0"},
		{"MACVLAN of a VLAN that is not captured", vlan + "4 mv0 macvlan parent=3", "eth0 mv0", "mv0"},
		{"veth pair", "2 a veth parent=3\n3 b veth parent=2", "any", ""},
		{"Open vSwitch", "2 eth0 - master=8\n8 ovs-system openvswitch down\n9 br0 openvswitch", "any", "<br0 <ovs-system"},
		{"Open vSwitch, not all ports", "2 eth0 - master=8\n3 tap0 tun master=8\n8 ovs-system openvswitch down\n9 br0 openvswitch", "eth0 br0", ""},
		{"circle", "2 a bridge master=3 parent=3\n3 b bridge master=2 parent=2\n4 c vlan parent=4 tag=5", "a", "a b"},
		{"circle of MACVLANs", "2 a macvlan parent=3\n3 b macvlan parent=2", "c", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := stack(t, tt.stack)
			captured := Captured{All: tt.captured == "any"}
			for _, name := range strings.Fields(tt.captured) {
				captured.Indexes = append(captured.Indexes, Index(all, name))
			}
			table := Build(all, captured)
			var again []string
			for _, l := range all {
				in, out := table.Repeats(l.Index, false, Tag{}), table.Repeats(l.Index, true, Tag{})
				switch tagged := table.Repeats(l.Index, true, five); {
				case in && out:
					again = append(again, l.Names[0])
				case in:
					again = append(again, "<"+l.Names[0])
				case out:
					again = append(again, ">"+l.Names[0])
				case tagged:
					again = append(again, l.Names[0]+":5")
				}
				if other := (Tag{0x88a8, 5}); !in && table.Repeats(l.Index, false, other) {
					t.Errorf("%s: another protocol's tag", l.Names[0])
				}
			}
			slices.Sort(again)
			want := strings.Fields(tt.again)
			slices.Sort(want)
			if !slices.Equal(again, want) {
				t.Errorf("repetitions on %v, want %v", again, want)
			}
		})
	}
}

func TestCapturedFollows(t *testing.T) {
	c := Captured{Indexes: []int{2, 3}, Names: []string{"eth0", "tun0"}}
	for _, step := range []struct {
		links string
		want  []int
	}{
		{"2 eth0 -\n3 tun0 tun", []int{2, 3}},
		{"2 renamed -\n3 tun0 tun", []int{2, 3}},
		{"2 renamed -", []int{2, 0}},
		{"2 renamed -\n5 tun0 tun", []int{2, 5}},
		{"5 tun0 tun\n6 eth0 -", []int{6, 5}},
	} {
		if c.Follow(stack(t, step.links)); !slices.Equal(c.Indexes, step.want) {
			t.Errorf("%q: %v, want %v", step.links, c.Indexes, step.want)
		}
	}
	if table := Build(stack(t, "2 a -"), Captured{Indexes: []int{0}}); table.Repeats(0, false, Tag{}) {
		t.Error("an interface that is not there shows repetitions")
	}
}

func TestUnderlay(t *testing.T) {
	a := netip.MustParseAddr
	here, peer, other := a("192.0.2.1"), a("192.0.2.2"), a("192.0.2.3")
	gre := Tunnel{Remote: peer, Local: here, Protocols: []uint8{47}}
	vxlan := Tunnel{Remote: peer, Protocols: []uint8{17}, Port: 4789}
	for _, tt := range []struct {
		name     string
		tunnel   Tunnel
		src, dst netip.Addr
		protocol uint8
		port     uint16
		outgoing bool
		want     bool
	}{
		{"GRE in", gre, peer, here, 47, 0, false, true},
		{"GRE out", gre, here, peer, 47, 0, true, true},
		{"GRE of a stranger", gre, other, here, 47, 0, false, false},
		{"GRE to another address", gre, peer, other, 47, 0, false, false},
		{"GRE the wrong way", gre, here, peer, 47, 0, false, false},
		{"something else of the peer", gre, peer, here, 6, 443, false, false},
		{"VXLAN in", vxlan, peer, here, 17, 4789, false, true},
		{"VXLAN out", vxlan, other, peer, 17, 4789, true, true},
		{"other UDP", vxlan, peer, here, 17, 53, false, false},
		{"VXLAN of a stranger", vxlan, other, here, 17, 4789, false, false},
		{"no one peer", Tunnel{Protocols: []uint8{17}, Port: 4789}, peer, here, 17, 4789, false, false},
		{"multicast group", Tunnel{Remote: a("239.1.1.1"), Protocols: []uint8{17}, Port: 4789}, here, a("239.1.1.1"), 17, 4789, true, false},
		{"IPv6", Tunnel{Remote: a("2001:db8::2"), Protocols: []uint8{4, 41}}, a("2001:db8::2"), a("2001:db8::1"), 41, 0, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			link := Link{Index: 7, Up: true, Names: []string{"t0"}, Tunnel: tt.tunnel}
			table := Build([]Link{link}, Captured{All: true})
			if got := table.Underlay(tt.src, tt.dst, tt.protocol, tt.port, tt.outgoing); got != tt.want {
				t.Errorf("captured: %v, want %v", got, tt.want)
			}
			link.Up = false
			for name, table := range map[string]*Table{
				"not captured": Build([]Link{link}, Captured{Indexes: []int{8}}), "down": Build([]Link{link}, Captured{All: true}), "zero": {},
			} {
				if table.Underlay(tt.src, tt.dst, tt.protocol, tt.port, tt.outgoing) {
					t.Errorf("%s: an underlay", name)
				}
			}
		})
	}
}

// TestAskingDoesNotAllocate: the tables are asked for every packet.
func TestAskingDoesNotAllocate(t *testing.T) {
	all := stack(t, "2 p0 veth master=9\n3 eth0 -\n4 eth0.5 vlan parent=3 tag=5\n9 br0 bridge")
	peer := netip.MustParseAddr("192.0.2.2")
	all[0].Tunnel = Tunnel{Remote: peer, Protocols: []uint8{47}}
	table := Build(all, Captured{All: true})
	if n := testing.AllocsPerRun(100, func() {
		if !table.Repeats(2, false, Tag{}) || !table.Repeats(3, true, five) || !table.Underlay(peer, peer, 47, 0, false) {
			t.Error("not a repetition")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
