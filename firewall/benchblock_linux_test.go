package firewall_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-iptables/iptables"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

const (
	blockRounds = 7
	bulk        = 100_000
	bulkRounds  = 5
)

// way is one way to block, with what each round took.
type way struct {
	name   string
	calls  int // in a round
	one    func(i int)
	median []time.Duration // of a call, one entry a round
}

func middle(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2]
}

// addr is the i-th address; each way has a range of its own.
func addr(way, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(20 + way), byte(i >> 16), byte(i >> 8), byte(i)})
}

// BenchmarkPeersOne prints what one block takes from BlockIP to the kernel, beside
// so many active ones, in turns with the programs that others use:
//
//	go test -run '^$' -bench '^BenchmarkPeersOne$' -benchtime 1x ./firewall
func BenchmarkPeersOne(b *testing.B) {
	ways := []*way{
		managed(b, 0, 0), managed(b, 1, 10_000), managed(b, 2, 100_000), extended(b, 7),
		program(b, 3), ipset(b, 4), goIPTables(b, 5, 0), goIPTables(b, 6, 10_000),
	}
	for b.Loop() {
		for round := range blockRounds {
			for _, w := range ways {
				times := make([]time.Duration, w.calls)
				for i := range times {
					began := time.Now()
					w.one(round*w.calls + i)
					times[i] = time.Since(began)
				}
				w.median = append(w.median, middle(times))
			}
		}
	}
	text := fmt.Sprintf("one block, medians of %d interleaved rounds\n", len(ways[0].median))
	for _, w := range ways {
		text += fmt.Sprintf("  %-44s %9.1f us\n", w.name, float64(middle(w.median).Nanoseconds())/1e3)
	}
	b.Log(text)
	b.ReportMetric(float64(middle(ways[0].median).Nanoseconds()), "ns/block")
	b.ReportMetric(0, "ns/op")
}

// manager is a Manager on nft with a table of its own.
func manager(b *testing.B, chain string, counters bool) *firewall.Manager {
	b.Helper()
	cfg := firewall.DefaultManagerConfig()
	cfg.Backend, cfg.ChainName, cfg.NoBlockCounters = firewall.BackendNFT, chain, !counters
	cfg.Protect = hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true}
	m, err := firewall.NewManager(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := m.Close(); err != nil {
			b.Error(err)
		}
	})
	return m
}

// requests asks for n blocks of an hour.
func requests(way, n int) []firewall.Request {
	out := make([]firewall.Request, n)
	for i := range out {
		out[i] = firewall.Request{Prefix: backend.Host(addr(way, i)), Duration: time.Hour, Rule: "Block Port Scanner", Reason: "50 SYN in 10s"}
	}
	return out
}

func fill(b *testing.B, m *firewall.Manager, list []firewall.Request) {
	b.Helper()
	for i, r := range m.BlockAll(b.Context(), list) {
		if r.Outcome != firewall.Created {
			b.Fatalf("%v: %v %v", list[i].Prefix, r.Outcome, r.Err)
		}
	}
}

func managed(b *testing.B, number, active int) *way {
	b.Helper()
	m := manager(b, fmt.Sprintf("BENCH%d", number), true)
	fill(b, m, requests(200, active))
	cfg := &firewall.BlockConfig{Duration: time.Hour, RuleName: "Block Port Scanner", Reason: "50 SYN in 10s"}
	return &way{name: fmt.Sprintf("Manager.BlockIP, nft, beside %d", active), calls: 500, one: func(i int) {
		if err := m.BlockIP(addr(number, i).String(), cfg); err != nil {
			b.Fatal(err)
		}
	}}
}

// extended has one block last longer with each call, as a rule does that fires
// again.
func extended(b *testing.B, number int) *way {
	b.Helper()
	m := manager(b, fmt.Sprintf("BENCH%d", number), true)
	return &way{name: "Manager.BlockIP, nft, a block extended", calls: 100, one: func(i int) {
		cfg := &firewall.BlockConfig{Duration: time.Hour + time.Duration(i)*time.Minute, RuleName: "Block Port Scanner", Reason: "50 SYN in 10s"}
		if err := m.BlockIP(addr(number, 0).String(), cfg); err != nil {
			b.Fatal(err)
		}
	}}
}

func program(b *testing.B, number int) *way {
	b.Helper()
	feed(b, "nft", []string{"-f", "-"}, nftTable("program", "counter;", nil))
	return &way{name: "nft add element", calls: 20, one: func(i int) {
		feed(b, "nft", []string{"add", "element", "inet", "program", "blocked", "{ " + addr(number, i).String() + " timeout 1h }"}, "")
	}}
}

func ipset(b *testing.B, number int) *way {
	b.Helper()
	nstest.Tool(b, "ipset")
	feed(b, "ipset", []string{"create", "one", "hash:ip", "timeout", "3600", "counters"}, "")
	return &way{name: "ipset add", calls: 20, one: func(i int) {
		feed(b, "ipset", []string{"add", "one", addr(number, i).String(), "timeout", "3600"}, "")
	}}
}

// goIPTables appends with the library the backend iptables stands on.
func goIPTables(b *testing.B, number, rules int) *way {
	b.Helper()
	lib, err := iptables.New()
	if err != nil {
		b.Fatal(err)
	}
	chain := fmt.Sprintf("BENCH%d", number)
	var list strings.Builder
	fmt.Fprintf(&list, "*filter\n:%s - [0:0]\n", chain)
	for i := range rules {
		fmt.Fprintf(&list, "-A %s -s %s -j DROP\n", chain, addr(200, i))
	}
	feed(b, "iptables-restore", []string{"--noflush"}, list.String()+"COMMIT\n")
	return &way{name: fmt.Sprintf("go-iptables Append, beside %d", rules), calls: 10, one: func(i int) {
		if err := lib.Append("filter", chain, "-s", addr(number, i).String(), "-j", "DROP"); err != nil {
			b.Fatal(err)
		}
	}}
}

// nftTable is a table as one would write it by hand.
func nftTable(name, counter string, elements []string) string {
	text := fmt.Sprintf("table inet %s {\n set blocked {\n type ipv4_addr; flags timeout; size 1000000; %s\n", name, counter)
	if len(elements) > 0 {
		text += " elements = { " + strings.Join(elements, ", ") + " }\n"
	}
	return text + " }\n}\n"
}

// feed runs a program with the text on its standard input.
func feed(b *testing.B, name string, args []string, text string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(text)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s %v: %v: %.300s", name, args, err, out.String())
	}
}
