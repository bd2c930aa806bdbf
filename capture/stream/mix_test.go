package stream_test

import (
	"slices"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/record"
)

// decoded is what a Table reads of a packet.
type decoded struct {
	header  record.Header
	has     bool
	segment record.Segment
}

// mix is the benchmark's traffic, decoded, in blocks as a ring hands them over;
// no packet comes twice.
type mix struct {
	g   *yardstick.Generator
	dec *decode.Decoder
	mem []byte
	all []decoded
	set record.Set
}

func newMix(seed uint64, want record.Want) *mix {
	return &mix{g: yardstick.New(seed), dec: decode.New(want), mem: make([]byte, 0, 128<<10)}
}

// block is good until the next call.
func (m *mix) block(tb testing.TB) []decoded {
	const largest = 2048
	m.mem, m.all = m.mem[:0], m.all[:0]
	for cap(m.mem)-len(m.mem) >= largest {
		data, at := m.g.Next()
		start := len(m.mem)
		m.mem = append(m.mem, data...)
		m.set.Header = record.Header{Time: at}
		if err := m.dec.Decode(1, m.mem[start:], len(data), &m.set); err != nil {
			tb.Fatal(err)
		}
		m.set.Segment.Check = true
		m.all = append(m.all, decoded{m.set.Header, m.set.HasSegment, m.set.Segment})
	}
	return m.all
}

// BenchmarkMix is what reassembly takes of the benchmark's traffic with the
// shipped rules, spread over all of its packets, when the table is full: the
// median of rounds, and the least.
func BenchmarkMix(b *testing.B) {
	const packets = 200_000
	m, table, set := newMix(1, shipped()), stream.New(shipped(), &deaf{}, stream.Config{}), new(record.Set)
	round := func() float64 {
		sum, n := time.Duration(0), 0
		for n < packets {
			block := m.block(b)
			n += len(block)
			before := cpuTime()
			for i := range block {
				p := &block[i]
				set.Header, set.HasSegment, set.Segment = p.header, p.has, p.segment
				if table.Takes(set) {
					table.Segment(set, false)
				}
			}
			sum += cpuTime() - before
		}
		return float64(sum) / float64(n)
	}
	for range 7 {
		round()
	}
	var took []float64
	for b.Loop() {
		took = append(took, round())
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], "cpu-ns/packet")
	b.ReportMetric(took[0], "least-cpu-ns/packet")
	b.ReportMetric(0, "ns/op")
}
