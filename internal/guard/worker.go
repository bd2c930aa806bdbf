package guard

import (
	"net/netip"
	"sync/atomic"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/record"
)

// counter has one writer and any number of readers; it spares the writer the
// bus lock of an atomic addition.
type counter struct{ n atomic.Uint64 }

func (c *counter) add(n uint64) { c.n.Store(c.n.Load() + n) }
func (c *counter) load() uint64 { return c.n.Load() }

// shared is what all workers of a run read. It changes while they run.
type shared struct {
	engine *engine.Engine
	want   atomic.Pointer[record.Want]
	// own are this host's addresses: an outgoing copy of a packet counts only
	// where this host itself sent it, not where it forwards.
	own atomic.Pointer[map[netip.Addr]struct{}]
}

func newShared(e *engine.Engine) *shared {
	s := &shared{engine: e}
	s.refreshWant()
	s.own.Store(&map[netip.Addr]struct{}{})
	return s
}

// refreshWant takes over what the rules in force ask of the decoders.
func (s *shared) refreshWant() {
	want := s.engine.Want()
	s.want.Store(&want)
}

// worker takes the packets of one source through decoder and rules. Its
// goroutine owns it; the counters may be read by others.
type worker struct {
	shared *shared
	want   *record.Want
	dec    *decode.Decoder
	eval   *engine.Worker
	set    record.Set

	packets, bytes counter
	records        [record.NumTypes]counter
}

func newWorker(s *shared) *worker {
	w := &worker{shared: s, want: s.want.Load(), eval: s.engine.NewWorker()}
	w.dec = decode.New(*w.want)
	return w
}

// packet takes one packet through. It neither waits nor allocates. The number
// is 0 for live packets, which have none that means anything to a reader.
func (w *worker) packet(p *capture.Packet, number uint64) {
	if want := w.shared.want.Load(); want != w.want {
		w.want = want
		w.dec.SetWant(*want)
	}
	w.packets.add(1)
	w.bytes.add(uint64(p.Length))
	w.set.Header = record.Header{Time: p.Time, Packet: number, Outgoing: p.Outgoing}
	_ = w.dec.Decode(uint32(p.Link), p.Data, p.Length, &w.set) // counted by the decoder
	if p.Outgoing {
		if _, ours := (*w.shared.own.Load())[w.set.Src]; !ours {
			return
		}
	}
	have := w.set.Have
	for t := have.Next(); t != record.NoType; t = have.Next() {
		w.records[t].add(1)
	}
	w.eval.Evaluate(&w.set)
}
