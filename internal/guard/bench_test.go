package guard

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/yardstick"
)

// BenchmarkReplay is the whole of netcap-guard -r, with generated rules and
// with the shipped ones, for profiles; make bench-rules has the figures beside
// tcpdump's.
func BenchmarkReplay(b *testing.B) {
	const packets = 300_000
	dir := b.TempDir()
	path := filepath.Join(dir, "yardstick.pcap")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := yardstick.Write(f, 1, packets); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	rules := map[string]string{"shipped": filepath.Join("..", "..", "configs", "firewall-rules.yml")}
	for _, n := range []int{5, 100, 1000} {
		name := fmt.Sprintf("rules=%d", n)
		rules[name] = filepath.Join(dir, name+".yml")
		if err := os.WriteFile(rules[name], []byte(yardstick.Rules(n)), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for _, name := range []string{"rules=5", "rules=100", "rules=1000", "shipped"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				err := Run(b.Context(), Config{Read: []string{path}, Rules: []string{rules[name]}, Output: OutputJSON, Quiet: true},
					Environment{Streams: Streams{Out: io.Discard, Err: io.Discard}, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/packets, "ns/packet")
		})
	}
}
