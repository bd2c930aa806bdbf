package firewall_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// contest is one way to do the same work, with what each round took.
type contest struct {
	name string
	run  func(round int) time.Duration
	took []time.Duration
}

// BenchmarkPeersBulk prints what 100,000 blocks in one go take, in turns with what
// nft -f and ipset restore take for the same elements, and what listing,
// adoption and Close take then:
//
//	go test -run '^$' -bench '^BenchmarkPeersBulk$' -benchtime 1x ./firewall
func BenchmarkPeersBulk(b *testing.B) {
	nstest.Tool(b, "ipset")
	var list, adopt, closing []time.Duration
	manage := func(counters bool) func(int) time.Duration {
		return func(round int) time.Duration {
			cfg := bulkConfig(fmt.Sprintf("BULK%d%t", round, counters), !counters)
			m := started(b, cfg)
			reqs := requests(100, bulk)
			began := time.Now()
			fill(b, m, reqs)
			took := time.Since(began)
			if counters {
				a, c := adoption(b, m, cfg)
				adopt, closing = append(adopt, a), append(closing, c)
				return took
			}
			began = time.Now()
			if held, err := firewall.Inspect(b.Context(), cfg); err != nil || len(held) != 1 || len(held[0].Blocks) != bulk {
				b.Fatalf("listed %v: %v", len(held), err)
			}
			list = append(list, time.Since(began))
			if err := m.Close(); err != nil {
				b.Fatal(err)
			}
			return took
		}
	}
	contests := []*contest{
		{name: "Manager.BlockAll, nft", run: manage(false)},
		{name: "nft -f", run: nftFile(b, "")},
		{name: "ipset restore", run: ipsetFile(b, "")},
		{name: "Manager.BlockAll, nft, counters", run: manage(true)},
		{name: "nft -f, counters", run: nftFile(b, "counter;")},
		{name: "ipset restore, counters", run: ipsetFile(b, "counters")},
	}
	for b.Loop() {
		for round := range bulkRounds {
			for _, c := range contests {
				c.took = append(c.took, c.run(round))
			}
		}
	}
	text := fmt.Sprintf("%d blocks with an end and a comment, medians of %d interleaved rounds\n", bulk, len(list))
	line := func(name string, took []time.Duration, peers ...*contest) {
		text += fmt.Sprintf("  %-36s %7.0f ms", name, float64(middle(took).Microseconds())/1e3)
		for _, p := range peers {
			text += fmt.Sprintf("   %.2f of %s", float64(middle(took))/float64(middle(p.took)), p.name)
		}
		text += "\n"
	}
	for i, c := range contests {
		if i%3 == 0 {
			line(c.name, c.took, contests[i+1], contests[i+2])
		} else {
			line(c.name, c.took)
		}
	}
	line("List", list)
	line("adoption by the next start", adopt)
	line("Close", closing)
	b.Log(text)
	b.ReportMetric(0, "ns/op")
}

func bulkConfig(chain string, noCounters bool) *firewall.ManagerConfig {
	cfg := firewall.DefaultManagerConfig()
	cfg.Backend, cfg.ChainName, cfg.NoBlockCounters = firewall.BackendNFT, chain, noCounters
	return cfg
}

func started(b *testing.B, cfg *firewall.ManagerConfig) *firewall.Manager {
	b.Helper()
	m, err := firewall.NewManager(cfg)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// adoption leaves the blocks in the kernel, starts again and ends for good.
func adoption(b *testing.B, m *firewall.Manager, cfg *firewall.ManagerConfig) (adopt, closing time.Duration) {
	b.Helper()
	if err := m.Detach(); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	next := started(b, cfg)
	adopt = time.Since(began)
	if next.Adopted() != bulk {
		b.Fatalf("adopted %d", next.Adopted())
	}
	began = time.Now()
	if err := next.Close(); err != nil {
		b.Fatal(err)
	}
	return adopt, time.Since(began)
}

// nftFile is nft's own way: a file with the same elements, their ends and
// comments.
func nftFile(b *testing.B, counter string) func(int) time.Duration {
	elements := make([]string, bulk)
	for i := range elements {
		elements[i] = fmt.Sprintf(`%s timeout 1h comment "NETCAP: Block Port Scanner; 50 SYN in 10s; @1700000000000"`, addr(100, i))
	}
	text := nftTable("file", counter, elements)
	return func(int) time.Duration {
		began := time.Now()
		feed(b, "nft", []string{"-f", "-"}, text)
		took := time.Since(began)
		feed(b, "nft", []string{"delete", "table", "inet", "file"}, "")
		return took
	}
}

func ipsetFile(b *testing.B, option string) func(int) time.Duration {
	var list strings.Builder
	fmt.Fprintf(&list, "create file hash:ip timeout 3600 comment %s maxelem %d\n", option, bulk)
	for i := range bulk {
		fmt.Fprintf(&list, "add file %s timeout 3600 comment \"NETCAP: Block Port Scanner; 50 SYN in 10s\"\n", addr(100, i))
	}
	text := list.String()
	return func(int) time.Duration {
		began := time.Now()
		feed(b, "ipset", []string{"restore"}, text)
		took := time.Since(began)
		feed(b, "ipset", []string{"destroy", "file"}, "")
		return took
	}
}
