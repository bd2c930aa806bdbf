package nft_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// bulk is how many blocks the benchmarks put in at once.
const bulk = 100_000

// hosts makes n blocks of single addresses, with end, rule and reason.
func hosts(n int) []backend.Block {
	now := time.Now()
	out := make([]backend.Block, n)
	for i := range out {
		addr := netip.AddrFrom4([4]byte{10 + byte(i>>24), byte(i >> 16), byte(i >> 8), byte(i)})
		out[i] = backend.Block{Key: backend.Key{Prefix: backend.Host(addr)}, Rule: "Block SSH Brute Force", Reason: "10 SYN in 300s",
			CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	}
	return out
}

// script is what nft -f and ipset restore are given to do the same.
func script(blocks []backend.Block, counters bool) (nftText, ipsetText string) {
	var n, i strings.Builder
	flag := ""
	if counters {
		flag = " counter;"
	}
	fmt.Fprintf(&n, "table inet yardstick {\n set s { type ipv4_addr; size 1000000; flags timeout;%s\n elements = {\n", flag)
	i.WriteString("create yardstick hash:ip timeout 0 comment maxelem 1000000" + strings.TrimSuffix(flag, ";") + "s\n")
	if !counters {
		i.Reset()
		i.WriteString("create yardstick hash:ip timeout 0 comment maxelem 1000000\n")
	}
	for _, b := range blocks {
		comment := backend.Comment{Rule: b.Rule, Reason: b.Reason, Created: b.CreatedAt}.Encode(127)
		fmt.Fprintf(&n, "%s timeout 1h comment \"%s\",\n", b.Prefix.Addr(), comment)
		fmt.Fprintf(&i, "add yardstick %s timeout 3600 comment \"%s\"\n", b.Prefix.Addr(), comment)
	}
	n.WriteString("}\n }\n}\n")
	return n.String(), i.String()
}

func feed(b *testing.B, text, name string, args ...string) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), name, args...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s %s: %v\n%.500s", name, strings.Join(args, " "), err, out)
	}
}

// timed runs f and returns how long it took.
func timed(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// BenchmarkBulk puts 100,000 blocks in with one Apply, and the same elements
// with nft -f and with ipset restore, in turns, and reports the medians of the
// rounds and what ours is of theirs. Use -benchtime=5x for five rounds.
func BenchmarkBulk(b *testing.B) {
	nstest.Tool(b, "nft")
	for _, counters := range []bool{false, true} {
		b.Run(fmt.Sprintf("counters=%t", counters), func(b *testing.B) { bulkRounds(b, counters) })
	}
}

func bulkRounds(b *testing.B, counters bool) {
	blocks := hosts(bulk)
	nftText, ipsetText := script(blocks, counters)
	_, err := exec.LookPath("ipset")
	var ours, theirs, ipsets, lists, closes, adopts []time.Duration
	for b.Loop() {
		one := open(b, nft.Config{Counters: counters})
		if err := one.Init(b.Context()); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, timed(func() { apply(b, one, backend.Change{Add: blocks}) }))
		if err := one.Detach(); err != nil {
			b.Fatal(err)
		}
		next := open(b, nft.Config{Counters: counters})
		adopts = append(adopts, timed(func() {
			if err := next.Init(b.Context()); err != nil {
				b.Fatal(err)
			}
			if got := list(b, next); len(got) != bulk {
				b.Fatalf("%d blocks", len(got))
			}
		}))
		lists = append(lists, timed(func() {
			if got, err := next.List(b.Context()); err != nil || len(got) != bulk {
				b.Fatalf("%d blocks: %v", len(got), err)
			}
		}))
		closes = append(closes, timed(func() {
			if err := next.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		}))
		theirs = append(theirs, timed(func() { feed(b, nftText, "nft", "-f", "-") }))
		run(b, "delete", "table", "inet", "yardstick")
		if err == nil {
			ipsets = append(ipsets, timed(func() { feed(b, ipsetText, "ipset", "restore") }))
			feed(b, "", "ipset", "destroy", "yardstick")
		}
	}
	ms := func(name string, d []time.Duration) {
		if len(d) > 0 {
			b.ReportMetric(float64(median(d).Microseconds())/1000, name)
		}
	}
	ms("apply-ms", ours)
	ms("nft-f-ms", theirs)
	ms("ipset-ms", ipsets)
	ms("adopt-ms", adopts)
	ms("list-ms", lists)
	ms("close-ms", closes)
	b.ReportMetric(float64(median(ours))/float64(median(theirs)), "of-nft-f")
	if len(ipsets) > 0 {
		b.ReportMetric(float64(median(ours))/float64(median(ipsets)), "of-ipset")
	}
}
