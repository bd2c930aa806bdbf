package guard

import (
	"reflect"
	"sync/atomic"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/internal/evidence"
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
	own atomic.Pointer[addresses]
	// links says which copies of a packet another captured interface shows.
	// It knows of none in a replay, where interfaces are numbers of the file's.
	links atomic.Pointer[links.Table]
	// decap: tunnels are taken off. Set before the first worker is made.
	decap bool
	// between: live, and what comes in for somebody else is what this host
	// sends on, by another interface. Not so where an interface listens to
	// everything, or tunnels are taken off. Set before the first worker is made.
	between bool
	// streams bounds what each worker keeps of TCP connections; proxies are
	// the trusted ones. Set before the first worker is made.
	streams stream.Config
	proxies proxies
	// evidence is nil where none is kept. Set before the first worker is made.
	evidence *evidence.Keeper
}

func newShared(e *engine.Engine) *shared {
	s := &shared{engine: e}
	s.refreshWant()
	s.own.Store(&addresses{})
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

	tape *evidence.Tape // nil: no evidence is kept

	// For alerts: the packet under evaluation, and all of its fields.
	current *capture.Packet
	all     *decode.Decoder
	allFor  *record.Want
	shown   record.Set

	packets, bytes counter
	records        [record.NumTypes]counter
	// tally is what was counted since publish.
	tally tally
}

// tally counts without atomic operations, which cost as much as decoding.
type tally struct {
	packets, bytes uint64
	records        [record.NumTypes]uint64
	types          record.Mask // those of records that are not zero
}

// publish lets others read what was counted. It is called from the worker's
// goroutine.
func (w *worker) publish() {
	t := &w.tally
	w.packets.add(t.packets)
	w.bytes.add(t.bytes)
	for r := t.types.Next(); r != record.NoType; r = t.types.Next() {
		w.records[r].add(t.records[r])
		t.records[r] = 0
	}
	t.packets, t.bytes = 0, 0
}

// count notes the records of a set.
func (t *tally) count(have record.Mask) {
	t.types |= have
	for r := have.Next(); r != record.NoType; r = have.Next() {
		t.records[r]++
	}
}

func newWorker(s *shared) *worker {
	w := &worker{shared: s, want: s.want.Load(), eval: s.engine.NewWorker()}
	w.dec = decode.New(*w.want)
	w.dec.SetDecap(s.decap)
	w.streams = stream.New(*w.want, w, w.streamConfig())
	w.eval.SetFull(w.full)
	if s.evidence != nil {
		w.tape = s.evidence.NewTape()
		w.eval.SetMatched(func(set *record.Set) { w.tape.Matched(w.current, set.Src, set.Dst) })
	}
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

// packet takes one packet through and counts it for all to see.
func (w *worker) packet(p *capture.Packet, number uint64) {
	w.take(p, number)
	w.publish()
}

// take takes one packet through. It neither waits nor allocates. The number
// is 0 for live packets, which have none that means anything to a reader. What
// it counts others see after publish.
func (w *worker) take(p *capture.Packet, number uint64) {
	if want := w.shared.want.Load(); want != w.want {
		w.want = want
		w.dec.SetWant(*want)
		w.streams.SetWant(*want)
	}
	w.tally.packets++
	w.tally.bytes += uint64(p.Length)
	stacked := w.shared.links.Load()
	if stacked.Shows(p.Iface) && stacked.Repeats(p.Iface, p.Outgoing, tagOf(p)) {
		return
	}
	// The decoder writes the rest of the header.
	w.set.Time, w.set.Packet, w.set.Outgoing, w.set.Confirmed = p.Time, number, p.Outgoing, false
	_ = w.dec.Decode(uint32(p.Link), p.Data, p.Length, &w.set) // counted by the decoder
	if p.Outgoing {
		if !w.shared.own.Load().has(w.set.Src) {
			w.follow(p, true)
			return
		}
	}
	if stacked.Tunnels() {
		if outer := w.dec.Outer(&w.set); stacked.Underlay(outer.Src, outer.Dst, outer.Proto, outer.Port, p.Outgoing) {
			return
		}
	}
	if w.tape != nil {
		w.tape.Packet(p, w.set.Src, w.set.Dst)
	}
	if w.set.Have.Has(record.TypeTCP) && w.set.TCP.SYN && !w.set.TCP.ACK {
		w.eval.Expect(&w.set, record.TypeTCP)
	}
	w.follow(p, false)
	if w.set.Have == 0 {
		return
	}
	w.tally.count(w.set.Have)
	w.current = p
	w.eval.Evaluate(&w.set)
	w.current = nil
}
