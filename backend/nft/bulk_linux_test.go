package nft_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
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
	i.WriteString("create yardstick hash:ip timeout 0 comment maxelem 1000000")
	if counters {
		i.WriteString(" counters")
	}
	i.WriteString("\n")
	for _, b := range blocks {
		comment := backend.Comment{Rule: b.Rule, Reason: b.Reason, Created: b.CreatedAt}.Encode(127)
		fmt.Fprintf(&n, "%s timeout 1h comment \"%s\",\n", b.Prefix.Addr(), comment)
		fmt.Fprintf(&i, "add yardstick %s timeout 3600 comment \"%s\"\n", b.Prefix.Addr(), comment)
	}
	n.WriteString("}\n }\n}\n")
	return n.String(), i.String()
}

// feed runs a program on text and returns the processor time it took.
func feed(b *testing.B, text, name string, args ...string) time.Duration {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), name, args...)
	cmd.Stdin = strings.NewReader(text)
	var errors strings.Builder
	cmd.Stderr = &errors
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s %s: %v\n%.500s", name, strings.Join(args, " "), err, errors.String())
	}
	return cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime()
}

// cost is what an operation took, round by round.
type cost struct{ wall, cpu []time.Duration }

// own measures f by the clock and by this process's processor time.
func (c *cost) own(b *testing.B, f func()) {
	b.Helper()
	runtime.GC() // the rubbish of before is not f's
	var before, after syscall.Rusage
	rusage(b, &before)
	begin := time.Now()
	f()
	c.wall = append(c.wall, time.Since(begin))
	rusage(b, &after)
	spent := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	c.cpu = append(c.cpu, time.Duration(spent))
}

func rusage(b *testing.B, r *syscall.Rusage) {
	b.Helper()
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, r); err != nil {
		b.Fatal(err)
	}
}

// program measures a program.
func (c *cost) program(b *testing.B, text, name string, args ...string) {
	b.Helper()
	begin := time.Now()
	cpu := feed(b, text, name, args...)
	c.wall, c.cpu = append(c.wall, time.Since(begin)), append(c.cpu, cpu)
}

// report gives the median in milliseconds, and what it is of another one's, by
// the clock and by processor time: the first is what people wait for, the
// second is what a busy machine does not blur.
func (c *cost) report(b *testing.B, name string, of map[string]*cost) {
	b.Helper()
	b.ReportMetric(float64(median(c.wall).Microseconds())/1000, name+"-ms")
	for other, o := range of {
		if len(o.wall) > 0 {
			b.ReportMetric(float64(median(c.wall))/float64(median(o.wall)), name+"/"+other)
			b.ReportMetric(float64(median(c.cpu))/float64(median(o.cpu)), name+"/"+other+"-cpu")
		}
	}
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// BenchmarkBulk puts 100,000 blocks in with one Apply, lists, adopts and closes
// them, and puts the same elements in with nft -f and with ipset restore, in
// turns; it reports the medians of the rounds and what ours is of theirs. Use
// -benchtime=5x for five rounds.
func BenchmarkBulk(b *testing.B) {
	nstest.Tool(b, "nft")
	nstest.Tool(b, "ipset")
	for _, counters := range []bool{false, true} {
		b.Run(fmt.Sprintf("counters=%t", counters), func(b *testing.B) { bulkRounds(b, counters) })
	}
}

func bulkRounds(b *testing.B, counters bool) {
	blocks := hosts(bulk)
	nftText, ipsetText := script(blocks, counters)
	var put, adopt, list, closing, nftF, nftList, ipset cost
	listed := func(one *nft.Backend) {
		if got, err := one.List(b.Context()); err != nil || len(got) != bulk {
			b.Fatalf("listed %d blocks: %v", len(got), err)
		}
	}
	for b.Loop() {
		one := open(b, nft.Config{Counters: counters})
		if err := one.Init(b.Context()); err != nil {
			b.Fatal(err)
		}
		put.own(b, func() { apply(b, one, backend.Change{Add: blocks}) })
		if err := one.Detach(); err != nil {
			b.Fatal(err)
		}
		next := open(b, nft.Config{Counters: counters})
		adopt.own(b, func() {
			if err := next.Init(b.Context()); err != nil {
				b.Fatal(err)
			}
			listed(next)
		})
		list.own(b, func() { listed(next) })
		closing.own(b, func() {
			if err := next.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
		nftF.program(b, nftText, "nft", "-f", "-")
		nftList.program(b, "", "nft", "list", "table", "inet", "yardstick")
		run(b, "delete", "table", "inet", "yardstick")
		ipset.program(b, ipsetText, "ipset", "restore")
		feed(b, "", "ipset", "destroy", "yardstick")
	}
	b.ReportMetric(0, "ns/op")
	put.report(b, "apply", map[string]*cost{"nft-f": &nftF, "ipset": &ipset})
	list.report(b, "list", map[string]*cost{"nft-list": &nftList})
	adopt.report(b, "adopt", nil)
	closing.report(b, "close", nil)
	nftF.report(b, "nft-f", nil)
	ipset.report(b, "ipset", nil)
}

// BenchmarkOne puts one block in, beside none and beside 100,000: the raw cost
// of a block, without policy.
func BenchmarkOne(b *testing.B) {
	for _, beside := range []int{0, 10_000, 100_000} {
		for _, counters := range []bool{false, true} {
			b.Run(fmt.Sprintf("beside=%d/counters=%t", beside, counters), func(b *testing.B) {
				one := start(b, nft.Config{Counters: counters})
				apply(b, one, backend.Change{Add: append(hosts(beside), block(b, "192.0.2.1", backend.Drop))})
				c := backend.Change{Add: []backend.Block{block(b, "192.0.2.2", backend.Drop)}}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					c.Add[0].Prefix = host(i)
					apply(b, one, c)
				}
			})
		}
	}
}
