package iptables

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
)

// tableOf is what `iptables -S` prints of a table that is in order, with rules
// of somebody else around ours.
func tableOf(f family) []string {
	out := []string{"-P INPUT ACCEPT", "-P FORWARD ACCEPT", "-P OUTPUT ACCEPT", "-N NETCAP", "-N OTHER"}
	for _, from := range builtins() {
		out = append(out, "-A "+from+" -j NETCAP", "-A "+from+" -j OTHER")
	}
	for _, n := range f.guards {
		out = append(out, "-A NETCAP "+quoteArgs(guard(n)))
	}
	return append(out, "-A OTHER -j DROP", "-A NETCAP -p tcp -j ACCEPT", "")
}

// TestFaults: each kind of damage is told in words, and mended by commands
// that leave nothing to tell.
func TestFaults(t *testing.T) {
	without := func(lines ...string) func([]string) []string {
		return func(text []string) []string {
			return slices.DeleteFunc(text, func(l string) bool { return slices.Contains(lines, l) })
		}
	}
	four, six := families()[0], families()[1]
	guard3 := "-A NETCAP " + quoteArgs(guard(135))
	for _, c := range []struct {
		name   string
		family family
		damage func([]string) []string
		says   string
		mend   []string
	}{
		{"nothing", four, without(), "", nil},
		{"nothing, IPv6", six, without(), "", nil},
		{"jump", four, without("-A FORWARD -j NETCAP"), "jump from FORWARD is missing", []string{"-I FORWARD 1 -j NETCAP"}},
		{"two jumps", six, without("-A FORWARD -j NETCAP", "-A OUTPUT -j NETCAP"),
			"jump from FORWARD is missing; jump from OUTPUT is missing", []string{"-I FORWARD 1 -j NETCAP", "-I OUTPUT 1 -j NETCAP"}},
		{"not first", four, func(text []string) []string { return append([]string{"-A INPUT -j DOCKER-USER"}, text...) },
			"jump from INPUT is no longer first", []string{"-D INPUT -j NETCAP", "-I INPUT 1 -j NETCAP"}},
		{"a jump with a comment is somebody else's", four, func(text []string) []string {
			return append([]string{`-A OUTPUT -m comment --comment "mine" -j NETCAP`}, text...)
		}, "jump from OUTPUT is no longer first", []string{"-D OUTPUT -j NETCAP", "-I OUTPUT 1 -j NETCAP"}},
		{"twice", four, func(text []string) []string { return append(text, "-A INPUT -j NETCAP") },
			"2 jumps from INPUT", []string{"-D INPUT -j NETCAP", "-D INPUT -j NETCAP", "-I INPUT 1 -j NETCAP"}},
		{"neighbour discovery", six, without(guard3), "rules for neighbour discovery are missing", []string{
			"-D NETCAP " + quoteArgs(guard(133)), "-D NETCAP " + quoteArgs(guard(134)), "-D NETCAP " + quoteArgs(guard(136)), "-D NETCAP " + quoteArgs(guard(137)),
			"-I NETCAP 1 " + quoteArgs(guard(133)), "-I NETCAP 2 " + quoteArgs(guard(134)), "-I NETCAP 3 " + quoteArgs(guard(135)),
			"-I NETCAP 4 " + quoteArgs(guard(136)), "-I NETCAP 5 " + quoteArgs(guard(137)),
		}},
		{"chain", four, func([]string) []string { return []string{"-P INPUT ACCEPT"} }, "chain NETCAP is missing", []string{
			"-N NETCAP", "-I INPUT 1 -j NETCAP", "-I FORWARD 1 -j NETCAP", "-I OUTPUT 1 -j NETCAP",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := readStructure(c.family, "NETCAP", c.damage(tableOf(c.family)))
			if got := strings.Join(s.faults(), "; "); got != c.says {
				t.Errorf("says %q, want %q", got, c.says)
			}
			if got := s.mend(); !slices.Equal(got, c.mend) {
				t.Errorf("mends by\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.mend, "\n"))
			}
		})
	}
}

// TestProbesGo: what a killed process tried is taken out, with the rate that
// the listing rounded.
func TestProbesGo(t *testing.T) {
	f := families()[0]
	probe := "-s 255.255.255.255/32 -d 255.255.255.255/32 -m hashlimit --hashlimit-above 3610/sec --hashlimit-burst 3600 --hashlimit-name NETCAP-3600"
	s := readStructure(f, "NETCAP", append(tableOf(f), "-A NETCAP "+probe))
	want := []string{"-D NETCAP " + strings.Replace(probe, "3610", "3600", 1)}
	if got := s.mend(); !slices.Equal(got, want) || len(s.faults()) != 0 {
		t.Errorf("mends by %q (%q), want %q", got, s.faults(), want)
	}
}

// TestFault: what is wrong with one family is damage, and gone is what no
// family has.
func TestFault(t *testing.T) {
	whole := func(i int) *structure {
		s := readStructure(families()[i], "NETCAP", tableOf(families()[i]))
		return &s
	}
	gone := func(i int) *structure {
		s := readStructure(families()[i], "NETCAP", nil)
		return &s
	}
	hidden := whole(0)
	hidden.hidden = true
	for _, c := range []struct {
		name      string
		four, six *structure
		want      error
		says      string
	}{
		{"well", whole(0), whole(1), nil, ""},
		{"one family", nil, whole(1), nil, ""},
		{"one missing", gone(0), whole(1), backend.ErrDamaged, "chain NETCAP is missing (IPv4)"},
		{"both missing", gone(0), gone(1), backend.ErrGone, ""},
		{"the only one missing", nil, gone(1), backend.ErrGone, ""},
		{"hidden", hidden, whole(1), backend.ErrDamaged, "only nft can show (IPv4)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := reading{structures: [numFamilies]*structure{c.four, c.six}}.fault()
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Fatalf("fault %v, want %v", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("fault %q, want one that says %q", err, c.says)
			}
		})
	}
}

func TestCutCounters(t *testing.T) {
	for _, c := range []struct {
		name, rule, want string
		packets          uint64
	}{
		{"before the target", "-s 192.0.2.1/32 -c 12 1008 -j DROP", "-s 192.0.2.1/32 -j DROP", 12},
		{"at the end", "-s 192.0.2.1/32 -j DROP -c 18446744073709551615 1", "-s 192.0.2.1/32 -j DROP", 1<<64 - 1},
		{"none", "-s 192.0.2.1/32 -j DROP", "-s 192.0.2.1/32 -j DROP", 0},
		{"a comment that looks like them", "-m comment --comment -c -c 3 4 -j DROP", "-m comment --comment -c -j DROP", 3},
		{"a log prefix that looks like them", "-j NFLOG --nflog-prefix -c -c 3 4", "-j NFLOG --nflog-prefix -c", 3},
		{"no bytes", "-c 5 x -j DROP", "-c 5 x -j DROP", 0},
		{"a chain of that name", "-c 5 6 -j -c", "-j -c", 5},
		{"not a number", "-c x 6 -j DROP", "-c x 6 -j DROP", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, n := cutCounters(strings.Fields(c.rule))
			if strings.Join(got, " ") != c.want || n.packets != c.packets {
				t.Errorf("%q and %d packets, want %q and %d", got, n.packets, c.want, c.packets)
			}
		})
	}
}
