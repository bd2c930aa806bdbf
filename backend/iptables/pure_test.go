package iptables

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		says string // "": no error
	}{
		{"zero", Config{}, ""},
		{"all letters", Config{Chain: "Az_09-x"}, ""},
		{"28 characters", Config{Chain: strings.Repeat("x", 28)}, ""},
		{"29 characters", Config{Chain: strings.Repeat("x", 29)}, "1 to 28"},
		{"space", Config{Chain: "NET CAP"}, "A-Z"},
		{"umlaut", Config{Chain: "NÄTCAP"}, "A-Z"},
		{"option", Config{Chain: "-j"}, "leading -"},
		{"built-in", Config{Chain: "INPUT"}, "built-in"},
		{"built-in, other case", Config{Chain: "Forward"}, "built-in"},
		{"verdict", Config{Chain: "RETURN"}, "built-in"},
		{"variant", Config{Variant: "nft"}, ""},
		{"unknown variant", Config{Variant: "ebtables"}, "variant"},
		{"lock timeout", Config{LockTimeout: -1}, "negative"},
		{"check interval", Config{CheckInterval: -1}, "negative"},
		{"reject rate", Config{RejectRate: 1_000_001}, "1000000"},
		{"no reject rate", Config{RejectRate: -1}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.cfg.complete()
			if c.says != "" {
				if !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want ErrInvalid that says %q", err, c.says)
				}
				return
			}
			if err != nil || got.Chain == "" || !got.IPv4 && !got.IPv6 || got.Logger == nil || got.lockSeconds() < 1 || got.RejectRate == 0 || got.CheckInterval != 10*time.Second {
				t.Errorf("completed to %+v, %v", got, err)
			}
		})
	}
	one, err := Config{IPv6: true, LockTimeout: 1500 * time.Millisecond}.complete()
	if err != nil || one.IPv4 || !one.IPv6 || one.lockSeconds() != 2 {
		t.Errorf("completed to %+v (%d s), %v", one, one.lockSeconds(), err)
	}
}

func TestHoles(t *testing.T) {
	for _, c := range []struct {
		name, prefix string
		allow        []string
		want         string
		covered      bool
	}{
		{"none", "10.0.0.0/8", nil, "", false},
		{"outside and other family", "10.0.0.0/8", []string{"11.0.0.0/8", "::/0", "9.255.255.255/32"}, "", false},
		{"nested", "10.0.0.0/8", []string{"10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32"}, "10.1.0.0-10.1.255.255", false},
		{"edges", "10.0.0.0/8", []string{"10.255.255.255/32", "10.0.0.0/32"}, "10.0.0.0-10.0.0.0 10.255.255.255-10.255.255.255", false},
		{"touching", "10.0.0.0/24", []string{"10.0.0.2/31", "10.0.0.4/32"}, "10.0.0.2-10.0.0.4", false},
		{"equal", "10.0.0.0/8", []string{"10.0.0.0/8"}, "", true},
		{"wider", "10.0.0.0/8", []string{"0.0.0.0/0"}, "", true},
		{"two halves", "10.0.0.0/8", []string{"10.128.0.0/9", "10.0.0.0/9"}, "10.0.0.0-10.255.255.255", true},
		{"the very last address", "ffff::/16", []string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "ffff:8000::/17"},
			"ffff:8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false},
		{"a host", "192.0.2.1/32", []string{"192.0.2.0/24"}, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			hs, covered := holes(netip.MustParsePrefix(c.prefix), prefixes(c.allow...))
			var text []string
			for _, h := range hs {
				text = append(text, h.String())
			}
			if got := strings.Join(text, " "); got != c.want || covered != c.covered {
				t.Errorf("holes %q, covered %t; want %q, %t", got, covered, c.want, c.covered)
			}
		})
	}
}

// TestParts: the parts of a prefix with many holes cover it once and no more.
func TestParts(t *testing.T) {
	p := netip.MustParsePrefix("10.0.0.0/8")
	var allow []netip.Prefix
	for i := range 100 {
		allow = append(allow, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 1}), 32))
	}
	for n, want := range map[int]int{0: 1, 1: 1, maxHoles: 1, maxHoles + 1: 2, 100: 4} {
		hs, _ := holes(p, allow[:n])
		got := parts(p, hs)
		if len(got) != want {
			t.Fatalf("%d holes make %d parts, want %d", n, len(got), want)
		}
		if want == 1 {
			continue
		}
		next := p.Addr()
		for _, part := range got {
			if part.from != next {
				t.Fatalf("%d holes: a part begins at %s, want %s", n, part.from, next)
			}
			next = part.to.Next()
		}
		if end := spanOf(p).to.Next(); next != end {
			t.Errorf("%d holes: the parts end before %s, want %s", n, next, end)
		}
	}
}

func TestTranslate(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		text   string
		want   error
		says   string
	}{
		{"lock, legacy", 4, "Can't lock /run/xtables.lock: Resource temporarily unavailable\nAnother app is currently holding the xtables lock. Stopped waiting after 1s.\n", backend.ErrLocked, "Stopped waiting"},
		{"lock, iptables 1.6", 4, "Another app is currently holding the xtables lock. Perhaps you want to use the -w option?\n", backend.ErrLocked, ""},
		{"lock file, user", 4, "Fatal: can't open lock file /run/xtables.lock: Permission denied\n", backend.ErrPermission, "/run/xtables.lock"},
		{"user, nft", 4, "iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)\n", backend.ErrPermission, ""},
		{"no table, legacy", 3, "iptables v1.8.9 (legacy): can't initialize iptables table `filter': Table does not exist (do you need to insmod?)\nPerhaps iptables or your kernel needs to be upgraded.\n", backend.ErrUnavailable, "insmod"},
		{"no nf_tables", 1, "iptables: Failed to initialize nft: Protocol not supported\n", backend.ErrUnavailable, ""},
		{"module, legacy", 1, "Warning: Extension time revision 0 not supported, missing kernel module?\niptables: No chain/target/match by that name.\n", backend.ErrUnavailable, "xt_time"},
		{"module, nft", 4, "Warning: Extension comment revision 0 not supported, missing kernel module?\niptables v1.8.9 (nf_tables):  RULE_APPEND failed (No such file or directory): rule in chain NETCAP\n", backend.ErrUnavailable, "xt_comment"},
		{"extension", 2, "iptables v1.8.9 (legacy): Couldn't load match `time':No such file or directory\n\nTry `iptables -h' or 'iptables --help' for more information.\n", backend.ErrUnavailable, "time"},
		{"chain gone, legacy", 1, "iptables: No chain/target/match by that name.\n", errMissing, ""},
		{"chain gone, nft", 1, "iptables v1.8.9 (nf_tables): chain `NETCAP' in table `filter' is incompatible, use 'nft' tool.\n", errMissing, ""},
		{"rule gone", 1, "iptables: Bad rule (does a matching rule exist in that chain?).\n", errMissing, ""},
		{"match gone, nft", 4, "iptables v1.8.9 (nf_tables):  RULE_APPEND failed (No such file or directory): rule in chain NETCAP\n", errMissing, ""},
		{"jump to nowhere, legacy", 2, "iptables-restore v1.8.9 (legacy): Couldn't load target `NETCAP':No such file or directory\n\nError occurred at line: 2\n", errNoTarget, ""},
		{"jump to nowhere, nft", 2, "iptables v1.8.9 (nf_tables): Chain 'NETCAP' does not exist\nTry `iptables -h' or 'iptables --help' for more information.\n", errNoTarget, ""},
		{"REJECT is missing", 2, "iptables v1.8.9 (legacy): Couldn't load target `REJECT':No such file or directory\n", backend.ErrUnavailable, "REJECT"},
		{"in use, legacy", 1, "iptables: Too many links.\n", errInUse, ""},
		{"in use, nft", 4, "iptables v1.8.9 (nf_tables):  CHAIN_DEL failed (Device or resource busy): chain NETCAP\n", errInUse, ""},
		{"full", 1, "iptables: Memory allocation problem.\n", backend.ErrFull, ""},
		{"silent", 7, "", nil, "exit status 7"},
		{"unknown", 1, "iptables-restore: line 2 failed\n", nil, "line 2 failed (exit status 1)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := translate(c.status, c.text)
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "--help") {
				t.Errorf("error says %q, want one line with %q", err, c.says)
			}
		})
	}
	if opError("x", nil) != nil {
		t.Error("an operation without an error has one")
	}
}

// chainOf numbers entries along a chain and reads their lines into a state.
func chainOf(t *testing.T, blocks ...backend.Block) (*state, []line) {
	t.Helper()
	var lines []line
	for _, b := range blocks {
		e := newEntry(b)
		if err := e.render(nil, features{rejectRate: 1000}); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, e.lines...)
	}
	s := &state{entries: map[backend.Slot]*entry{}}
	s.reload(lines)
	return s, lines
}

func TestTidy(t *testing.T) {
	can := [numFamilies]features{{rejectRate: 1000}, {rejectRate: 1000}}
	ended := sample("192.0.2.9", backend.Drop)
	ended.ExpiresAt = created.Add(-time.Minute)
	first, second := sample("192.0.2.1", backend.Drop), sample("192.0.2.1", backend.Drop)
	second.ExpiresAt = created.Add(2 * time.Hour)
	reject := sample("192.0.2.5", backend.RejectReset)
	for _, c := range []struct {
		name     string
		blocks   []backend.Block
		cut      int // how many lines from the front are missing
		del, add int
		left     int
	}{
		{"nothing to do", []backend.Block{first, reject}, 0, 0, 0, 2},
		{"ended", []backend.Block{ended, reject}, 0, 1, 0, 1},
		{"the same block twice, the later end stays", []backend.Block{second, first}, 0, 1, 0, 1},
		{"the same block twice, in the other order", []backend.Block{first, second}, 0, 1, 0, 1},
		{"taken apart: the bound is missing", []backend.Block{reject}, 1, 2, 3, 1},
		{"taken apart: the reset is missing, so it is a reject", []backend.Block{reject}, 2, 1, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, lines := chainOf(t, c.blocks...)
			s := &state{entries: map[backend.Slot]*entry{}}
			s.reload(lines[c.cut:])
			p, err := s.planTidy(created, can)
			if err != nil {
				t.Fatal(err)
			}
			if e := p.edits[0]; len(e.del) != c.del || len(e.add) != c.add {
				t.Errorf("deletes %d and adds %d, want %d and %d", len(e.del), len(e.add), c.del, c.add)
			}
			s.accept(p)
			if len(s.entries) != c.left {
				t.Errorf("%d blocks left, want %d", len(s.entries), c.left)
			}
			p, _ = s.planTidy(created, can)
			if !p.edits[0].empty() {
				t.Errorf("a second look finds more to do: %+v", p.edits[0])
			}
		})
	}
	t.Run("the rest of a reject without its REJECT", func(t *testing.T) {
		_, lines := chainOf(t, reject)
		s := &state{entries: map[backend.Slot]*entry{}}
		s.reload(lines[:2])
		p, _ := s.planTidy(created, can)
		if len(s.entries) != 0 || len(p.edits[0].del) != 2 {
			t.Errorf("%d blocks, %d deletions", len(s.entries), len(p.edits[0].del))
		}
	})
}

// TestReloadKeepsWhatIsKnown: reading the chain again does not lose the exact
// end, and a covered block stays known though it has no rule.
func TestReloadKeepsWhatIsKnown(t *testing.T) {
	s := &state{entries: map[backend.Slot]*entry{}}
	exact := sample("192.0.2.0/24", backend.Drop)
	exact.ExpiresAt = exact.ExpiresAt.Add(123 * time.Millisecond)
	covered := sample("198.51.100.1", backend.Drop)
	allow := prefixes("198.51.100.0/24", "192.0.2.7/32")
	p, err := s.plan(backend.Change{Add: []backend.Block{exact, covered}, Allow: &allow}, created, [numFamilies]features{})
	if err != nil {
		t.Fatal(err)
	}
	s.accept(p)
	lines := values(p.edits[0].add)
	if len(lines) != 1 {
		t.Fatalf("%d rules, want 1", len(lines))
	}
	if s.reload(lines) {
		t.Error("an unchanged chain counts as changed")
	}
	if got := s.entries[exact.Slot()].block.ExpiresAt; !got.Equal(exact.ExpiresAt) {
		t.Errorf("ends %s, want %s", got, exact.ExpiresAt)
	}
	if s.entries[covered.Slot()] == nil {
		t.Error("the covered block is forgotten")
	}
	if !s.reload(nil) || s.entries[exact.Slot()] != nil || s.entries[covered.Slot()] == nil {
		t.Error("a removed rule is still known, or the covered block is not")
	}
	none := prefixes()
	p, err = s.plan(backend.Change{Allow: &none}, created, [numFamilies]features{})
	if err != nil || len(p.edits[0].add) != 1 {
		t.Errorf("withdrawing the allow list adds %d rules, want 1 (%v)", len(p.edits[0].add), err)
	}
}

func TestCannotExpress(t *testing.T) {
	far := sample("192.0.2.1", backend.Drop)
	far.ExpiresAt = lastStop().Add(time.Second)
	last := far
	last.ExpiresAt = lastStop()
	allow := prefixes("192.0.2.9/32")
	for _, c := range []struct {
		name  string
		block backend.Block
		can   features
		says  string
	}{
		{"the last end", last, features{}, ""},
		{"after the last end", far, features{}, "permanent"},
		{"the timer alone ends it", far, features{noTime: true}, ""},
		{"holes", sample("192.0.2.0/24", backend.Drop), features{noRange: true}, "xt_iprange"},
		{"every address", sample("0.0.0.0/0", backend.Drop), features{noRange: true}, "xt_iprange"},
		{"no holes", sample("198.51.100.0/24", backend.Drop), features{noRange: true}, ""},
		{"reject", sample("192.0.2.1", backend.Reject), features{noReject: true}, "ipt_REJECT"},
		{"bounded reject", sample("192.0.2.1", backend.Reject), features{noHashlimit: true, rejectRate: 1}, "xt_hashlimit"},
		{"unbounded reject", sample("192.0.2.1", backend.Reject), features{noHashlimit: true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &state{entries: map[backend.Slot]*entry{}}
			_, err := s.plan(backend.Change{Add: []backend.Block{c.block}, Allow: &allow}, created, [numFamilies]features{c.can, c.can})
			if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
		})
	}
}

// values copies the lines of an edit.
func values(ls []*line) []line {
	out := make([]line, 0, len(ls))
	for _, l := range ls {
		out = append(out, *l)
	}
	return out
}
