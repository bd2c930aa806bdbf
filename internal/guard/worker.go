package guard

import (
	"net/netip"
	"reflect"
	"sync/atomic"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/internal/links"
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
	// links says which copies of a packet another captured interface shows.
	// It knows of none in a replay, where interfaces are numbers of the file's.
	links atomic.Pointer[links.Table]
	// decap: tunnels are taken off. Set before the first worker is made.
	decap bool
	// streams bounds what each worker keeps of TCP connections; proxies are
	// the trusted ones. Set before the first worker is made.
	streams stream.Config
	proxies proxies
}

func newShared(e *engine.Engine) *shared {
	s := &shared{engine: e}
	s.refreshWant()
	s.own.Store(&map[netip.Addr]struct{}{})
	s.links.Store(&links.Table{})
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
	// streams follows TCP connections; inStream: one of its records is being
	// evaluated.
	streams  *stream.Table
	inStream bool

	// For alerts: the packet under evaluation, and all of its fields.
	current *capture.Packet
	all     *decode.Decoder
	allFor  *record.Want
	shown   record.Set

	packets, bytes counter
	records        [record.NumTypes]counter
}

func newWorker(s *shared) *worker {
	w := &worker{shared: s, want: s.want.Load(), eval: s.engine.NewWorker()}
	w.dec = decode.New(*w.want)
	w.dec.SetDecap(s.decap)
	w.streams = stream.New(*w.want, w, w.streamConfig())
	w.eval.SetFull(w.full)
	return w
}

// full decodes the packet under evaluation again, with every field: what an
// alert shows must not depend on what other rules happen to ask for. Payloads
// stay out unless a rule reads them: alerts are kept and sent on.
func (w *worker) full() *record.Set {
	if w.all == nil || w.allFor != w.want {
		w.all, w.allFor = decode.Again(w.dec, everyField(w.want)), w.want
	}
	if w.inStream {
		return w.fullRecord()
	}
	w.shown = record.Set{Header: w.set.Header}
	_ = w.all.Decode(uint32(w.current.Link), w.current.Data, w.current.Length, &w.shown) // counted before
	return &w.shown
}

// everyField asks for all fields of what the rules ask for.
func everyField(want *record.Want) record.Want {
	var out record.Want
	for _, t := range record.Types() {
		if !want.Types.Has(t) {
			continue
		}
		fields := reflect.TypeOf(t.New()).Elem()
		for i := range fields.NumField() {
			if name := fields.Field(i).Name; name != "Payload" || want.Field(t, name) {
				out.Add(t, name)
			}
		}
	}
	return out
}

// packet takes one packet through. It neither waits nor allocates. The number
// is 0 for live packets, which have none that means anything to a reader.
func (w *worker) packet(p *capture.Packet, number uint64) {
	if want := w.shared.want.Load(); want != w.want {
		w.want = want
		w.dec.SetWant(*want)
		w.streams.SetWant(*want)
	}
	w.packets.add(1)
	w.bytes.add(uint64(p.Length))
	stacked := w.shared.links.Load()
	if stacked.Repeats(p.Iface, p.Outgoing, tagOf(p)) {
		return
	}
	w.set.Header = record.Header{Time: p.Time, Packet: number, Outgoing: p.Outgoing}
	_ = w.dec.Decode(uint32(p.Link), p.Data, p.Length, &w.set) // counted by the decoder
	if p.Outgoing {
		if _, ours := (*w.shared.own.Load())[w.set.Src]; !ours {
			w.follow(p, true)
			return
		}
	}
	if outer := w.dec.Outer(&w.set); stacked.Underlay(outer.Src, outer.Dst, outer.Proto, outer.Port, p.Outgoing) {
		return
	}
	w.follow(p, false)
	have := w.set.Have
	for t := have.Next(); t != record.NoType; t = have.Next() {
		w.records[t].add(1)
	}
	w.current = p
	w.eval.Evaluate(&w.set)
	w.current = nil
}
