package guard

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/nflog"
	"github.com/netcap-guard/netcap-guard/record"
)

// What standard output carries.
const (
	OutputHuman = "human"
	OutputJSON  = "json"
)

// events writes the event stream: to standard output as people or as programs
// read it, and to a file as JSON. It is safe for concurrent use.
//
// While guarding, events wait in a bounded queue for a goroutine that writes
// them: a pager that pauses, or a pipe that nobody reads, must not keep an
// attacker from being blocked. In a replay they are written at once and
// nothing is lost.
type events struct {
	json    bool
	verbose bool // people see duplicates too
	backend string
	dryRun  bool

	// from is the capture of the packet under evaluation, where a replay has
	// several; set by the replay's goroutine, which emits as well.
	from string

	queue chan *event   // nil: written at once
	done  chan struct{} // closed when the writer has ended
	// vain: somebody waited for room in the queue, and there came none.
	vain   atomic.Bool
	logger *slog.Logger // takes what there is to say of losses

	mu   sync.Mutex // guards what follows, and keeps lines whole
	out  io.Writer
	path string
	file *os.File
	// toFile and toOut are lines that are to be written next.
	toFile, toOut lines

	count sync.Mutex // guards what follows; never held while writing
	lost  uint64     // events that could not be written, or found the queue full
	err   error      // why the first was lost
	// recent are the last alerts, oldest first after next: evidence for show.
	recent []*event
	next   int
	closed bool
	// taken are the events that the writer took from the queue to write them
	// with the one that it had: they still count for the queue's bound.
	taken int
}

const (
	// maxRecent bounds the alerts that are kept for show.
	maxRecent = 1024
	// maxQueued bounds the events that wait to be written.
	maxQueued = 8192
	// roomLimit bounds how long a verb waits for room in the queue, and roomLook
	// is how often it looks.
	roomLimit = time.Second
	roomLook  = time.Millisecond
)

// errQueueFull: events come faster than they are read.
var errQueueFull = errors.New("events come faster than they are taken")

// openEvents opens the event file, if there is one to be.
func openEvents(cfg Config, out io.Writer) (*events, error) {
	e := &events{json: cfg.Output == OutputJSON, verbose: cfg.Verbose, out: out, path: cfg.Events, logger: slog.New(slog.DiscardHandler)}
	return e, e.reopen()
}

// reopen opens the file anew, for log rotation.
func (e *events) reopen() error {
	if e.path == "" {
		return nil
	}
	f, err := os.OpenFile(e.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.file != nil {
		_ = e.file.Close() // every write to it was checked
	}
	e.file = f
	return nil
}

// emit writes one event, or puts it into the queue. A failure does not end
// the guard: the loss is counted and told at the end.
func (e *events) emit(ev *event) error {
	e.count.Lock()
	if ev.Packet != 0 {
		ev.File = e.from
	}
	if e.queue == nil {
		e.count.Unlock()
		return e.write(ev)
	}
	err := os.ErrClosed
	if !e.closed {
		if len(e.queue)+e.taken < cap(e.queue) {
			e.queue <- ev // nobody else sends: there is room
			e.count.Unlock()
			return nil
		}
		err = errQueueFull
	}
	first := e.lose(1, err)
	e.count.Unlock()
	if first {
		e.logger.Warn("events are lost, the number of them is in the statistics", "error", err)
	}
	return err
}

// await waits a moment for room, for who has many events to tell and may wait:
// a verb. It leaves half of the queue to those who may not. Where nobody takes
// events it waits once, not for each of them.
func (e *events) await() {
	roomy := func() bool { return len(e.queue) <= cap(e.queue)/2 }
	if roomy() {
		e.vain.Store(false)
		return
	}
	if e.vain.Load() {
		return
	}
	look := time.NewTicker(roomLook)
	defer look.Stop()
	limit := time.NewTimer(roomLimit)
	defer limit.Stop()
	for !roomy() {
		select {
		case <-look.C:
		case <-limit.C:
			e.vain.Store(true)
			return
		}
	}
}

// losses is how many events could not be written, and why the first could not.
func (e *events) losses() (uint64, error) {
	e.count.Lock()
	defer e.count.Unlock()
	return e.lost, e.err
}

// WriteAlert makes events an engine.AlertWriter.
func (e *events) WriteAlert(a *engine.Alert) error {
	ev := &event{
		Timestamp: stamp(a.Time), EventType: "alert",
		SrcIP: addr(a.Src), SrcPort: a.SrcPort, DestIP: addr(a.Dst), DestPort: a.DstPort,
		Proto: a.ProtoName(), Packet: a.Packet,
		Alert: &alertBody{
			Signature: a.Rule, Severity: a.Severity.String(), Description: a.Description,
			Tags: nonNil(a.Tags), MITRE: nonNil(a.MITRE), Record: a.Record.String(),
			Count: a.Count, Threshold: a.Threshold, ThresholdWindow: a.Window.Seconds(), Via: addr(a.Via), Fields: a.Fields,
		},
	}
	e.remember(ev)
	return e.emit(ev)
}

func (e *events) remember(ev *event) {
	e.count.Lock()
	defer e.count.Unlock()
	if len(e.recent) < maxRecent {
		e.recent = append(e.recent, ev)
		return
	}
	e.recent[e.next] = ev
	e.next = (e.next + 1) % maxRecent
}

// alerts are the last alerts from or to an address, oldest first.
func (e *events) alerts(a netip.Addr) []*event {
	e.count.Lock()
	defer e.count.Unlock()
	var out []*event
	for i := range e.recent {
		if ev := e.recent[(e.next+i)%len(e.recent)]; ev.SrcIP == a.String() || ev.DestIP == a.String() {
			out = append(out, ev)
		}
	}
	return out
}

// action tells of an action; evidence is the file of the packets that led to
// it, if there is one.
func (e *events) action(a engine.ActionEvent, evidence string) {
	body := &actionBody{
		Type: a.Kind.String(), Result: a.Result.Outcome.String(), IP: bare(a.Prefix), Target: a.Target.String(),
		Duration: a.Duration.String(), Expires: stampOrNil(a.Result.Block.ExpiresAt),
		Rule: a.Rule, Backend: e.backend, DryRun: e.dryRun, Evidence: evidence,
	}
	if a.Limit != (backend.Limit{}) {
		body.Limit = a.Limit.String()
	}
	if a.Err != nil {
		body.Error = a.Err.Error()
	}
	_ = e.emit(&event{
		Timestamp: stamp(a.Time), EventType: "action", SrcIP: addr(a.Src), DestIP: addr(a.Dst),
		Packet: a.Packet, Action: body,
	}) // counted by emit
}

// bare is the bare address of a single host, and the CIDR of a prefix.
func bare(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func (e *events) log(l engine.LogEvent) {
	body := &logBody{Prefix: l.Prefix, Rule: l.Rule}
	if l.Err != nil {
		body.Error = l.Err.Error()
	}
	_ = e.emit(&event{
		Timestamp: stamp(l.Time), EventType: "log", SrcIP: addr(l.Src), SrcPort: l.SrcPort,
		DestIP: addr(l.Dst), DestPort: l.DstPort, Packet: l.Packet, Log: body,
	}) // counted by emit
}

// kernelLog tells of a packet that a kernel log rule saw.
func (e *events) kernelLog(p *nflog.Packet, rule string) {
	ev := &event{
		Timestamp: stamp(p.Time), EventType: "log", SrcIP: addr(p.Src), SrcPort: p.SrcPort,
		DestIP: addr(p.Dst), DestPort: p.DstPort,
		Log: &logBody{Prefix: p.Prefix, Rule: rule, Kernel: true},
	}
	if p.Src.IsValid() {
		ev.Proto = record.ProtocolName(int32(p.Proto))
	}
	_ = e.emit(ev) // counted by emit
}

// block tells of a block that is over, or of damage that was put right.
func (e *events) block(f firewall.Event) {
	ev := &event{Timestamp: stamp(f.At)}
	switch f.Kind {
	case firewall.Expired:
		ev.EventType, ev.Block = "expire", blockJSON(f.Block, f.At)
	case firewall.Unblocked:
		ev.EventType, ev.Block, ev.By = "unblock", blockJSON(f.Block, f.At), f.By
		e.await()
	case firewall.Resynced:
		ev.EventType, ev.Resync = "resync", &resyncBody{f.Reason, f.Restored}
	}
	_ = e.emit(ev) // counted by emit
}
