package iptables

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

var created = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

// sample is a block for an hour, as a rule would make it.
func sample(prefix string, a backend.Action) backend.Block {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		p = backend.Host(netip.MustParseAddr(prefix))
	}
	return backend.Block{
		Key: backend.Key{Prefix: p}, Action: a, Rule: "Block SSH Brute Force", Reason: "10 in 300 s",
		CreatedAt: created, ExpiresAt: created.Add(time.Hour),
	}
}

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// meter gives a block a limit.
func meter(rate uint64, per time.Duration, burst uint32) func(backend.Block) backend.Block {
	return func(b backend.Block) backend.Block {
		b.Limit = backend.Limit{Rate: rate, Per: per, Burst: burst}
		return b
	}
}

// note makes a block a kernel log rule with this prefix.
func note(prefix string) func(backend.Block) backend.Block {
	return func(b backend.Block) backend.Block {
		b.Log, b.LogPrefix = true, prefix
		return b
	}
}

// TestGolden compares the rules of blocks with a file that a person can read.
func TestGolden(t *testing.T) {
	bounded := features{rejectRate: 1000, chain: "NETCAP", group: 77}
	edit := func(b backend.Block, f func(*backend.Block)) backend.Block { f(&b); return b }
	towards := func(b *backend.Block) { b.Target = backend.Destination }
	var got strings.Builder
	for _, c := range []struct {
		name  string
		block backend.Block
		allow []netip.Prefix
		can   features
	}{
		{"a host, dropped for an hour", sample("192.0.2.1", backend.Drop), nil, bounded},
		{"for ever", edit(sample("192.0.2.1", backend.Drop), func(b *backend.Block) { b.ExpiresAt = time.Time{} }), nil, bounded},
		{"a fraction of a second is rounded up", edit(sample("192.0.2.1", backend.Drop), func(b *backend.Block) {
			b.ExpiresAt = b.ExpiresAt.Add(time.Millisecond)
		}), nil, bounded},
		{"an IPv6 network as destination", edit(sample("2001:db8::/32", backend.Drop), towards), nil, bounded},
		{"rejected, the answers bounded", sample("192.0.2.1", backend.Reject), nil, bounded},
		{"rejected without bound", sample("2001:db8::1", backend.Reject), nil, features{}},
		{"TCP reset", sample("2001:db8::1", backend.RejectReset), nil, bounded},
		{"exceptions; the neighbours 9 and 10 and the network 8/29 join", sample("192.0.2.0/24", backend.Drop),
			prefixes("192.0.2.9/32", "192.0.2.10/32", "192.0.2.8/29", "192.0.2.255/32", "198.51.100.0/24", "2001:db8::/32"), bounded},
		{"wholly excepted", sample("192.0.2.0/24", backend.Drop), prefixes("192.0.0.0/16"), bounded},
		{"without xt_time", sample("192.0.2.1", backend.Drop), nil, features{noTime: true}},
		{"every address", sample("0.0.0.0/0", backend.Drop), nil, bounded},
		{"every IPv6 address as destination, with an exception", edit(sample("::/0", backend.RejectReset), towards), prefixes("2001:db8::/32"), bounded},
		{"ten a second at most", meter(10, time.Second, 5)(sample("192.0.2.1", backend.RateLimit)), nil, bounded},
		{"a network as destination, three a day at most, with an exception", edit(meter(3, 24*time.Hour, 2)(sample("2001:db8::/32", backend.RateLimit)), towards), prefixes("2001:db8::7/128"), bounded},
		{"limited without xt_time", meter(60, time.Minute, 1)(sample("192.0.2.1", backend.RateLimit)), nil, features{noTime: true, chain: "NETCAP"}},
		{"logged", note("SSH: ")(sample("192.0.2.1", backend.Log)), nil, bounded},
		{"every IPv6 address logged, without a prefix", edit(note("")(sample("::/0", backend.Log)), towards), nil, bounded},
		{"a log prefix from outside", note("it's -j ACCEPT #")(sample("192.0.2.1", backend.Log)), nil, bounded},
		{"texts from outside", edit(sample("192.0.2.1", backend.Drop), func(b *backend.Block) {
			b.Rule, b.Reason = "it's; \"odd\" \\", "$(reboot) -j ACCEPT\n# x"
		}), nil, bounded},
		{"a reason that is too long", edit(sample("192.0.2.1", backend.Drop), func(b *backend.Block) { b.Reason = strings.Repeat("é long ", 60) }), nil, bounded},
	} {
		e := newEntry(c.block)
		if err := e.render(c.allow, c.can); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got.WriteString("# " + c.name + "\n")
		for _, l := range e.lines {
			got.WriteString("-A NETCAP " + l.text + "\n")
		}
		got.WriteString("\n")
	}
	const file = "testdata/rules.golden"
	if os.Getenv("UPDATE_GOLDEN") == "1" {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("rules differ from %s (UPDATE_GOLDEN=1 rewrites it):\n%s", file, got.String())
	}
}

// TestBlockRoundTrip: what the rules of a block say is the block.
func TestBlockRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		b := randomBlock(rng)
		e := newEntry(b)
		hs := randomHoles(rng, b.Prefix)
		can := features{rejectRate: rng.IntN(3) * 500, noTime: rng.IntN(4) == 0, chain: "NETCAP", group: uint16(rng.IntN(1 << 16))}
		if err := e.renderHoles(hs, can); err != nil {
			t.Fatal(err)
		}
		var read []line
		for _, l := range e.lines {
			args, ok := splitArgs(l.text)
			back, ok2 := parseLine(args)
			if !ok || !ok2 || back.text != l.text {
				t.Fatalf("rule did not come back: %s", l.text)
			}
			read = append(read, back)
		}
		found, orphans := group(read)
		if len(found) != 1 || len(orphans) != 0 {
			t.Fatalf("%s became %d blocks and %d orphans", b, len(found), len(orphans))
		}
		got := found[0].block
		late := got.ExpiresAt.Sub(b.ExpiresAt)
		if b.Permanent() != got.Permanent() || !b.Permanent() && (late < 0 || late >= time.Second) {
			t.Fatalf("%s ends %s, want %s or less than a second later", got, got.ExpiresAt, b.ExpiresAt)
		}
		if !slices.Equal(found[0].holesRead(), hs) {
			t.Fatalf("holes of %s: %v, want %v", b, found[0].holesRead(), hs)
		}
		want := e.block
		want.ExpiresAt, got.ExpiresAt = time.Time{}, time.Time{}
		if got != want {
			t.Fatalf("block came back as\n%+v, want\n%+v", got, want)
		}
	}
}

func randomBlock(rng *rand.Rand) backend.Block {
	var p netip.Prefix
	if rng.IntN(2) == 0 {
		p = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())}), rng.IntN(33))
	} else {
		var a [16]byte
		for i := range a {
			a[i] = byte(rng.Uint32())
		}
		p = netip.PrefixFrom(netip.AddrFrom16(a), rng.IntN(129))
	}
	texts := []string{"", "a", "it's", "x; y", "; @1", `"q" \`, "日本語", strings.Repeat("long ", 50), "--comment x", "!"}
	b := backend.Block{
		Key:    backend.Key{Prefix: p.Masked(), Target: backend.Target(rng.IntN(2))},
		Action: backend.Action(rng.IntN(len(backend.Actions()))), Rule: texts[rng.IntN(len(texts))], Reason: texts[rng.IntN(len(texts))],
		CreatedAt: time.UnixMilli(rng.Int64N(2e12)),
	}
	switch b.Action {
	case backend.RateLimit:
		b.Limit = randomLimit(rng)
	case backend.Log:
		b = note([]string{"", "x", "it's", "日本", " ", "!", "-c", strings.Repeat("y", 63)}[rng.IntN(8)])(b)
	}
	if rng.IntN(4) > 0 {
		b.ExpiresAt = time.Unix(1+rng.Int64N(1<<31-2), rng.Int64N(3)*333_333_333)
	}
	return b
}

// randomLimit is a limit that hashlimit can have.
func randomLimit(rng *rand.Rand) backend.Limit {
	for {
		l := backend.Limit{Rate: 1 + rng.Uint64N(1<<rng.IntN(38)), Per: units()[rng.IntN(4)].per, Burst: 1 + rng.Uint32N(1<<rng.IntN(21))}
		if backend.CheckLimit(name, l) == nil {
			return l
		}
	}
}

// randomHoles makes up to 100 holes, as many as fit.
func randomHoles(rng *rand.Rand, p netip.Prefix) []span {
	var allow []netip.Prefix
	host := p.Addr().BitLen() - p.Bits()
	if host < 3 {
		return nil
	}
	for range rng.IntN(100) {
		b := p.Addr().AsSlice()
		for bit := range min(host, 16) {
			if rng.IntN(2) == 0 {
				b[len(b)-1-bit/8] |= 1 << (bit % 8)
			}
		}
		a, _ := netip.AddrFromSlice(b)
		allow = append(allow, netip.PrefixFrom(a, a.BitLen()-rng.IntN(2)).Masked())
	}
	hs, covered := holes(p, allow)
	if covered {
		return nil
	}
	return hs
}

func TestStop(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		name string
		end  time.Time
		want time.Time // when the rule stops to match
	}{
		{"a whole second", at, at},
		{"just after", at.Add(1), at.Add(time.Second)},
		{"just before", at.Add(-1), at},
		{"permanent", time.Time{}, time.Time{}},
		{"before 1970", time.Unix(-5, 0), time.Unix(2, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := endOf(stop(c.end)); !got.Equal(c.want) {
				t.Errorf("a block until %s ends %s, want %s", c.end, got, c.want)
			}
			if again := stop(endOf(stop(c.end))); again != stop(c.end) {
				t.Errorf("the end that was read back is written as %d, was %d", again, stop(c.end))
			}
		})
	}
}

// TestForeign: rules that are not ours are not taken for ours.
func TestForeign(t *testing.T) {
	const ours = `-s 192.0.2.1/32 -m comment --comment "NETCAP: a; b; @1" -j DROP`
	const metered = `-s 192.0.2.1/32 -m hashlimit --hashlimit-above 1/sec --hashlimit-burst 5 --hashlimit-mode srcip --hashlimit-name N-0123456789abc --hashlimit-htable-size 1024 ` +
		`--hashlimit-htable-max 1048576 --hashlimit-htable-gcinterval 60000 --hashlimit-htable-expire 5000 -m comment --comment "NETCAP: a; b; @1" ` +
		`-m comment --comment "limit 60/minute burst 5" -j DROP`
	const logged = `-s 192.0.2.1/32 -m comment --comment "NETCAP: a; b; @1" -j NFLOG --nflog-prefix "a b" --nflog-group 77`
	const every = `-m comment --comment "NETCAP: a; b; @1" -j DROP`
	for _, l := range []string{
		ours, `-m comment --comment "until @5" ` + ours, `-m iprange --src-range 0.0.0.0-255.255.255.255 ` + every,
		`-m iprange --dst-range ::-ffff:: -m iprange ! --dst-range ::1-::2 ` + every,
		metered, logged, strings.Replace(logged, " --nflog-group 77", "", 1), strings.Replace(logged, ` --nflog-prefix "a b"`, "", 1),
		strings.Replace(strings.Replace(metered, "burst 5", "burst 1", 2), " --hashlimit-htable-expire 5000", "", 1),
	} {
		if args, _ := splitArgs(l); !parses(args) {
			t.Errorf("our own rule is not read: %s", l)
		}
	}
	for _, l := range []string{
		``, `-j DROP`, `-s 192.0.2.1/32 -j DROP`, `-s 192.0.2.1/32 -m comment --comment mine -j DROP`,
		strings.Replace(ours, "-s", "! -s", 1), strings.Replace(ours, "DROP", "ACCEPT", 1), strings.Replace(ours, "DROP", "REJECT", 1),
		strings.Replace(ours, "192.0.2.1/32", "192.0.2.1/24", 1), strings.Replace(ours, "192.0.2.1/32", "0.0.0.0/0", 1),
		strings.Replace(ours, "192.0.2.1/32", "::ffff:192.0.2.1/128", 1), strings.Replace(ours, "192.0.2.1/32", "host", 1),
		ours + " -i eth0", "-p tcp " + ours, "-p udp " + ours, "-d 192.0.2.9/32 " + ours, ours + " -m", ours + " !",
		"-m time --datestop never " + ours, "-m time --datestop 1970-01-01T00:00:00 " + ours, "-m time --timestart 01:00:00 " + ours,
		`-m comment --comment "until @5" -j DROP`, `-m comment --comment "until @x" ` + ours, `-m comment --comment "until @1" ` + ours,
		`-m comment --comment "until @5" ` + `-m comment --comment "until @5" ` + ours, `-m comment --comment "until @5" -m time --datestop 2030-01-01T00:00:00 ` + ours,
		`-m iprange ! --src-range 0.0.0.0-255.255.255.255 ` + every, `-m iprange --src-range ::ffff:0.0.0.0-::ffff:255.255.255.255 ` + every,
		`-m iprange --src-range 0.0.0.0-::1 ` + every, `-m iprange --src-range 9.0.0.0-1.0.0.0 ` + every, `-m iprange --src-range fe80::%x-fe80::%x ` + every, every,
		"-m iprange --src-range 192.0.2.0-192.0.2.9 " + ours, "-m iprange ! --dst-range 192.0.2.1-192.0.2.1 " + ours,
		"-m iprange ! --src-range 192.0.2.1 " + ours, "-m iprange ! --src-range x-y " + ours,
		"-m hashlimit --hashlimit-above 10/min --hashlimit-burst 10 --hashlimit-name NETCAP-10 " + ours,
		"-m hashlimit --hashlimit-above 10/sec --hashlimit-burst 5 --hashlimit-name NETCAP-10 " + ours,
		"-m hashlimit --hashlimit-above 10/sec --hashlimit-burst 10 --hashlimit-name other " + ours,
		"-m hashlimit --hashlimit-burst 5 " + ours, "-m ! comment " + ours, "-m mark --mark 1 " + ours,
		ours + ` -m comment --comment "NETCAP: a; b; @1"`,
		strings.Replace(metered, "limit 60", "limit 0", 1), strings.Replace(metered, "limit 60/minute", "limit 60/m", 1), strings.Replace(metered, "limit 60/", "limit 060/", 1),
		strings.Replace(metered, "limit 60/minute burst 5", "limit 1/day burst 5", 1), strings.Replace(metered, "--hashlimit-burst 5", "--hashlimit-burst 6", 1),
		strings.Replace(metered, "N-0123456789abc", "N-0123456789ab", 1), strings.Replace(metered, "N-0123456789abc", "N-0123456789abz", 1), strings.Replace(metered, "N-0123456789abc", "NETCAP-5", 1),
		strings.Replace(metered, "htable-expire 5000", "htable-expire 4000", 1), strings.Replace(metered, " --hashlimit-htable-expire 5000", "", 1),
		strings.Replace(metered, "htable-size 1024", "htable-size 2", 1), strings.Replace(metered, "--hashlimit-htable-max 1048576 ", "", 1), strings.Replace(metered, "DROP", "NFLOG", 1),
		strings.Replace(metered, " --hashlimit-mode srcip", "", 1), strings.Replace(metered, "srcip", "dstip", 1), strings.Replace(metered, "-m hashlimit", "-m hashlimit --hashlimit-srcmask 32", 1),
		`-m comment --comment "limit 5/second burst 5" ` + ours, `-m comment --comment "limit 5/second burst 5" ` + logged,
		"-p tcp " + logged, logged + " --nflog-threshold 1", strings.Replace(logged, "77", "65536", 1), strings.Replace(logged, "77", "x", 1), strings.Replace(logged, `"a b"`, `"a\"b"`, 1),
		strings.Replace(logged, "a b", strings.Repeat("x", 64), 1), strings.Replace(logged, "NFLOG", "DROP", 1), "-m hashlimit --hashlimit-above 5/sec --hashlimit-burst 5 --hashlimit-name NETCAP-5 " + logged,
	} {
		if args, ok := splitArgs(l); ok && parses(args) {
			t.Errorf("taken for ours: %s", l)
		}
	}
}

func parses(args []string) bool {
	_, ok := parseRule(args)
	return ok
}

func FuzzParseRule(f *testing.F) {
	golden, err := os.ReadFile("testdata/rules.golden")
	if err != nil {
		f.Fatal(err)
	}
	for l := range strings.Lines(string(golden)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(l), "-A NETCAP "); ok {
			f.Add(rest)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		args, ok := splitArgs(text)
		if !ok {
			return
		}
		if again, ok := splitArgs(quoteArgs(args)); !ok || !slices.Equal(args, again) {
			t.Fatalf("arguments %q came back as %q", args, again)
		}
		l, ok := parseLine(args)
		if !ok {
			return
		}
		args, _ = splitArgs(l.text)
		if back, ok := parseLine(args); !ok || back.text != l.text {
			t.Fatalf("%q is written as %q, which is not read back", text, l.text)
		}
	})
}

func FuzzQuote(f *testing.F) {
	f.Add("a b", `x"y`, "")
	f.Add(`\`, "'", "é\n\t")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		want := []string{a, b, c}
		got, ok := splitArgs(quoteArgs(want))
		if !ok || !slices.Equal(got, want) {
			t.Fatalf("%q became %q", want, got)
		}
	})
}
