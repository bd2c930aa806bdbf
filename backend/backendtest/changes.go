package backendtest

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// hostile are rule names and reasons that a careless encoding would lose,
// cut in the wrong place or run as something else.
func hostile() []string {
	return []string{
		"", " ", `"quoted"`, `back\slash`, "semi; colon", "; @1700000000000", "x; @1/2", "ends in ;", "@", "/",
		"new\nline", "tab\tstop", "nul\x00byte", "esc\x1b[31mred", "-j ACCEPT", "--comment x", "NETCAP: NETCAP: x",
		"$(reboot)", "`reboot`", "'single'", "{ 1.2.3.4 }", "# comment", "%s%d%n", "naïve café", "日本語のルール名です",
		"\xff\xfe", strings.Repeat("é", 100), strings.Repeat("x", 64), strings.Repeat("long ", 60), "🔥🔥🔥",
	}
}

// comments: whatever the rule name and the reason, what comes back is what
// Comment makes of them at the most, and the block is right.
func comments(t *testing.T, s Suite) {
	b := s.start(t)
	var want []backend.Block
	for i, h := range hostile() {
		one := block(fmt.Sprintf("192.0.2.%d", i+1))
		one.Rule, one.Reason = h, h
		want = append(want, one)
	}
	apply(t, b, add(want...))
	got := list(t, b)
	if len(got) != len(want) {
		t.Fatalf("listed %d blocks, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Slot() != w.Slot() || g.CreatedAt.UnixMilli() != w.CreatedAt.UnixMilli() || g.Permanent() {
			t.Errorf("rule %q: listed %s (created %s), want %s (created %s)", w.Rule, g, g.CreatedAt, w, w.CreatedAt)
		}
		full, _ := backend.DecodeComment(backend.Comment{Rule: w.Rule, Reason: w.Reason, Created: w.CreatedAt}.Encode(1000))
		if g.Rule != full.Rule {
			t.Errorf("rule %q came back as %q, want %q", w.Rule, g.Rule, full.Rule)
		}
		if !cutFrom(g.Reason, full.Reason) {
			t.Errorf("reason %q came back as %q, which is not %q, not even cut", w.Reason, g.Reason, full.Reason)
		}
	}
}

// cutFrom reports whether got is whole or a visibly cut beginning of it.
func cutFrom(got, whole string) bool {
	start, cut := strings.CutSuffix(got, "…")
	return got == whole || got == "" || cut && strings.HasPrefix(whole, start)
}

// changes: what one transaction does to what is there.
func changes(t *testing.T, s Suite) {
	t.Run("re-add extends and rewrites", func(t *testing.T) { replaces(t, s) })
	t.Run("action changes in one step", func(t *testing.T) {
		b := s.start(t)
		from := block("192.0.2.1")
		for _, a := range append(s.Actions[1:len(s.Actions):len(s.Actions)], s.Actions[0]) {
			if a == backend.Log {
				continue // a key of its own, beside any block
			}
			to := lasting(acting(from, a), 2*time.Hour)
			apply(t, b, backend.Change{Remove: []backend.Block{from}, Add: []backend.Block{to}})
			s.wantList(t, b, to)
			from = to
		}
	})
	t.Run("removal and addition of the same block", func(t *testing.T) {
		b := s.start(t)
		one := block("192.0.2.1")
		apply(t, b, backend.Change{Remove: []backend.Block{one}, Add: []backend.Block{one}})
		s.wantList(t, b, one)
	})
	t.Run("removing what is not there", func(t *testing.T) {
		b := s.start(t)
		stays := block("192.0.2.1")
		apply(t, b, add(stays))
		for _, p := range []string{"192.0.2.2", "192.0.2.0/24", "2001:db8::1", "10.0.0.0/9"} {
			apply(t, b, remove(block(p)))
			apply(t, b, remove(towards(block(p)), block(p), block(p)))
		}
		apply(t, b, remove(acting(stays, backend.Reject), towards(stays)))
		s.wantList(t, b, stays)
		apply(t, b, remove(stays))
		apply(t, b, remove(stays))
		s.wantList(t, b)
	})
	t.Run("a removal needs only key and action", func(t *testing.T) {
		b := s.start(t)
		one := block("192.0.2.1")
		apply(t, b, add(one))
		apply(t, b, remove(backend.Block{Key: one.Key, Action: one.Action}))
		s.wantList(t, b)
	})
	t.Run("empty change", func(t *testing.T) {
		b := s.start(t)
		apply(t, b, backend.Change{})
		s.wantList(t, b)
	})
	t.Run("allow", func(t *testing.T) { allows(t, s) })
}

// replaces: what is added again takes end and comment from the new block,
// whether it ends later, never or earlier.
func replaces(t *testing.T, s Suite) {
	for _, p := range []string{"192.0.2.1", "2001:db8::/32"} {
		b := s.start(t)
		first := lasting(block(p), time.Minute)
		apply(t, b, add(first))
		second := lasting(first, 5*time.Hour)
		second.Rule, second.Reason = "another rule", "another reason"
		apply(t, b, add(second))
		s.wantList(t, b, second)
		apply(t, b, add(permanent(second)))
		s.wantList(t, b, permanent(second))
		shorter := lasting(first, 30*time.Second)
		apply(t, b, add(shorter))
		s.wantList(t, b, shorter)
		closeIt(t, b)
	}
}

// allows: the list of allowed prefixes is replaced as a whole, whatever it
// holds, and blocks are listed as before.
func allows(t *testing.T, s Suite) {
	b := s.start(t)
	wide := []backend.Block{block("10.0.0.0/8"), towards(block("2001:db8::/32")), block("192.0.2.1")}
	apply(t, b, add(wide...))
	for _, list := range [][]string{
		{"10.1.2.3/32"},
		{"10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.1.2.3/32", "10.0.0.0/15", "2001:db8::1/128", "::1/128", "127.0.0.0/8"},
		{"10.255.255.255/32", "255.255.255.255/32", "0.0.0.0/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"},
		{"0.0.0.0/0", "::/0"},
		{},
		{"224.0.0.0/3"},
	} {
		apply(t, b, allow(list...))
		s.wantList(t, b, wide...)
		more := block("10.9.9.9")
		apply(t, b, add(more))
		s.wantList(t, b, append(wide, more)...)
		apply(t, b, remove(more))
	}
	apply(t, b, backend.Change{Allow: &[]netip.Prefix{}, Remove: wide[:1]})
	s.wantList(t, b, wide[1:]...)
}

// refusals: a change with one bad entry is refused as a whole.
func refusals(t *testing.T, s Suite) {
	good := block("192.0.2.1")
	mapped := netip.MustParsePrefix("::ffff:192.0.2.7/128")
	bad := map[string]backend.Change{
		"invalid prefix":      add(with(good, func(b *backend.Block) { b.Prefix = netip.Prefix{} })),
		"host bits":           add(with(good, func(b *backend.Block) { b.Prefix = netip.MustParsePrefix("192.0.2.1/24") })),
		"mapped":              add(with(good, func(b *backend.Block) { b.Prefix = mapped })),
		"unknown action":      add(acting(good, backend.Action(99))),
		"unknown target":      add(with(good, func(b *backend.Block) { b.Target = 7 })),
		"log flag alone":      add(with(good, func(b *backend.Block) { b.Log = true })),
		"rate of nothing":     add(with(acting(good, backend.RateLimit), func(b *backend.Block) { b.Limit.Rate = 0 })),
		"burst of nothing":    add(with(acting(good, backend.RateLimit), func(b *backend.Block) { b.Limit.Burst = 0 })),
		"rate a fortnight":    add(with(acting(good, backend.RateLimit), func(b *backend.Block) { b.Limit.Per = 14 * 24 * time.Hour })),
		"limit of a drop":     add(with(good, func(b *backend.Block) { b.Limit = backend.Limit{Rate: 1, Per: time.Second, Burst: 1} })),
		"prefix too long":     add(with(acting(good, backend.Log), func(b *backend.Block) { b.LogPrefix = strings.Repeat("x", 64) })),
		"prefix of two lines": add(with(acting(good, backend.Log), func(b *backend.Block) { b.LogPrefix = "a\nb" })),
		"prefix of a drop":    add(with(good, func(b *backend.Block) { b.LogPrefix = "x" })),
		"twice":               add(block("192.0.2.9"), lasting(block("192.0.2.9"), time.Minute)),
		"removal of garbage":  remove(backend.Block{}),
		"allow with host bit": allow("10.0.0.1/8"),
	}
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			b := s.start(t)
			stays := block("198.51.100.1")
			apply(t, b, add(stays))
			c.Add = append([]backend.Block{good, block("2001:db8::1")}, c.Add...)
			c.Remove = append([]backend.Block{stays}, c.Remove...)
			if err := b.Apply(t.Context(), c); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("apply: %v, want ErrInvalid", err)
			}
			s.wantList(t, b, stays)
		})
	}
	for _, a := range backend.Actions() {
		t.Run("unsupported "+a.String(), func(t *testing.T) { unsupported(t, s, a) })
	}
	if s.NewFull != nil {
		t.Run("full", func(t *testing.T) { full(t, s) })
	}
}

// unsupported: an action that the backend cannot do is refused in words, with
// the whole change; removing such a block is removing what is not there.
func unsupported(t *testing.T, s Suite, a backend.Action) {
	for _, can := range s.Actions {
		if can == a {
			return
		}
	}
	b := s.start(t)
	one := acting(block("192.0.2.1"), a)
	err := b.Apply(t.Context(), add(block("192.0.2.2"), one))
	if !errors.Is(err, backend.ErrUnsupported) {
		t.Fatalf("apply: %v, want ErrUnsupported", err)
	}
	if !strings.Contains(err.Error(), a.String()) {
		t.Errorf("the error does not name %s: %v", a, err)
	}
	s.wantList(t, b)
	apply(t, b, remove(one))
}

// full: a change that does not fit is refused as a whole, and what replaces or
// follows a removal needs no room of its own.
func full(t *testing.T, s Suite) {
	b := s.NewFull(t, 3)
	t.Cleanup(func() { closeIt(t, b) })
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	one, two, three, four := block("192.0.2.1"), block("192.0.2.2"), block("192.0.2.3"), block("192.0.2.4")
	apply(t, b, add(one, two))
	if err := b.Apply(t.Context(), add(three, four)); !errors.Is(err, backend.ErrFull) {
		t.Fatalf("apply: %v, want ErrFull", err)
	}
	s.wantList(t, b, one, two)
	apply(t, b, add(three))
	longer := lasting(one, 2*time.Hour)
	apply(t, b, add(longer))
	apply(t, b, backend.Change{Remove: []backend.Block{two}, Add: []backend.Block{four}})
	s.wantList(t, b, longer, three, four)
}
