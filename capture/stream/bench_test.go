package stream_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

// deaf takes records and looks at nothing.
type deaf struct{ n int }

func (d *deaf) Record(*record.Set) { d.n++ }

// browser is what a browser sends with every request.
const browser = "GET /shop/item.php?id=%08d&page=2 HTTP/1.1\r\nHost: shop.example\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\nReferer: http://shop.example/\r\nConnection: keep-alive\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nUpgrade-Insecure-Requests: 1\r\n\r\n"

// dialog is n requests and their answers on a connection that stays open, each
// in a segment of its own; every request is new.
func dialog(n int) []*record.Set {
	e := web()
	var sets []*record.Set
	for _, p := range e.open() {
		sets = append(sets, p.set())
	}
	up, down := 0, 0
	for i := range n {
		req := fmt.Sprintf(browser, i)
		body := strings.Repeat("x", 400)
		res := fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		p, q := e.up(up, req), e.down(down, res)
		up, down = up+len(req), down+len(res)
		p.ack, q.ack = e.sISN+1+uint32(down-len(res)), e.cISN+1+uint32(up)
		sets = append(sets, p.set(), q.set())
	}
	return sets
}

// shipped is what the shipped HTTP rules ask for.
func shipped() record.Want {
	var w record.Want
	w.Add(record.TypeHTTP, "URL", "Method", "UserAgent", "IsResponse")
	return w
}

// BenchmarkHTTP is the cost of one request through reassembly, alone and with
// its answer.
func BenchmarkHTTP(b *testing.B) {
	const n = 1000
	all := dialog(n)
	room := web()
	requests := append(all[:3:3], room.down(0, "").set()) // for all of them, without an answer
	for i := 3; i < len(all); i += 2 {
		requests = append(requests, all[i])
	}
	for name, sets := range map[string][]*record.Set{"request": requests, "request-and-answer": all} {
		b.Run(name, func(b *testing.B) {
			table := stream.New(shipped(), &deaf{}, stream.Config{})
			b.ReportAllocs()
			begin := cpuTime()
			for b.Loop() {
				for _, s := range sets {
					table.Segment(s, false)
				}
				// The same connection again, from its SYN on.
				for i := range 3 {
					sets[i].Segment.Seq++
				}
				for _, s := range sets {
					s.Segment.Seq++
					s.Segment.Ack++
				}
				for i := range 3 {
					sets[i].Segment.Seq--
				}
				sets[0].Segment.Ack = 0
			}
			b.ReportMetric(float64((cpuTime()-begin).Nanoseconds())/float64(b.N)/n, "cpu-ns/request")
		})
	}
}

// BenchmarkSYNFlood is the cost of a SYN of a new source, the table being full.
func BenchmarkSYNFlood(b *testing.B) {
	table := stream.New(shipped(), &deaf{}, stream.Config{})
	syn := numbered(0).syn().set()
	b.ReportAllocs()
	i, begin := 0, cpuTime()
	for b.Loop() {
		e := numbered(i)
		i++
		syn.Src, syn.SrcPort = e.client.Addr(), e.client.Port()
		table.Segment(syn, false)
	}
	b.ReportMetric(float64((cpuTime()-begin).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// BenchmarkMillionHalfOpen shows what a million half-open connections, and one
// with a gap of a gigabyte, take of memory, and that the attackers among them
// are found.
func BenchmarkMillionHalfOpen(b *testing.B) {
	for b.Loop() {
		s := flood(b, stream.Config{}, 1_000_000)
		b.ReportMetric(float64(s.EvictedUnproven), "evicted")
		b.ReportMetric(float64(s.Open), "open")
	}
	b.ReportMetric(residentMB(), "MB-resident")
}

// residentMB is this process's resident memory at its peak, 0 where the system
// does not say.
func residentMB() float64 {
	if runtime.GOOS != "linux" {
		return 0
	}
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}

// TestNoAllocations: what comes in order costs no memory.
func TestNoAllocations(t *testing.T) {
	sets := dialog(20)
	table := stream.New(shipped(), &deaf{}, stream.Config{})
	for _, s := range sets {
		table.Segment(s, false)
	}
	e := web()
	half := e.up(0, "POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n").set()
	for what, run := range map[string]func(){
		"requests sent again": func() {
			for _, s := range sets {
				table.Segment(s, false)
			}
		},
		"a whole connection": func() {
			for i := range 3 {
				sets[i].Segment.Seq, sets[i].Segment.Ack = sets[i].Segment.Seq+1e6, sets[i].Segment.Ack+1e6
			}
			for _, s := range sets[3:] {
				s.Segment.Seq, s.Segment.Ack = s.Segment.Seq+1e6, s.Segment.Ack+1e6
			}
			for _, s := range sets {
				table.Segment(s, false)
			}
		},
		"a body": func() { table.Segment(half, false); half.Segment.Seq += uint32(half.Segment.Size) },
	} {
		if n := testing.AllocsPerRun(50, run); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	split := stream.New(shipped(), &deaf{}, stream.Config{})
	for _, p := range e.open() {
		split.Segment(p.set(), false)
	}
	first, second := e.up(0, request[:9]).set(), e.up(9, request[9:]).set()
	again := func() {
		split.Segment(first, false)
		split.Segment(second, false)
		first.Segment.Seq += uint32(len(request))
		second.Segment.Seq += uint32(len(request))
	}
	again()
	if n := testing.AllocsPerRun(50, again); n != 0 {
		t.Errorf("requests in two segments: %v allocations", n)
	}
}
