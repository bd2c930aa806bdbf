package guard

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
)

// What standard output carries.
const (
	OutputHuman = "human"
	OutputJSON  = "json"
)

// timestampFormat is RFC 3339 with microseconds; times are in UTC.
const timestampFormat = "2006-01-02T15:04:05.000000Z07:00"

// event is one line of the event stream, EVE style. Exactly one of the bodies
// is set, the one its type names.
type event struct {
	Timestamp string       `json:"timestamp"`
	EventType string       `json:"event_type"`
	SrcIP     string       `json:"src_ip,omitempty"`
	SrcPort   uint16       `json:"src_port,omitempty"`
	DestIP    string       `json:"dest_ip,omitempty"`
	DestPort  uint16       `json:"dest_port,omitempty"`
	Proto     string       `json:"proto,omitempty"`
	Start     *startBody   `json:"start,omitempty"`
	Alert     *alertBody   `json:"alert,omitempty"`
	Action    *actionBody  `json:"action,omitempty"`
	Log       *logBody     `json:"log,omitempty"`
	Block     *BlockObject `json:"block,omitempty"`
	By        string       `json:"by,omitempty"`
	Resync    *resyncBody  `json:"resync,omitempty"`
	Stats     *statsBody   `json:"stats,omitempty"`
	Packet    uint64       `json:"packet,omitempty"`
}

type startBody struct {
	Version    string   `json:"version"`
	Backend    string   `json:"backend"`
	Interfaces []string `json:"interfaces"`
	Rules      int      `json:"rules"`
	DryRun     bool     `json:"dry_run"`
}

type alertBody struct {
	Signature       string   `json:"signature"`
	Severity        string   `json:"severity"`
	Description     string   `json:"description"`
	Tags            []string `json:"tags"`
	MITRE           []string `json:"mitre"`
	Record          string   `json:"record"`
	Count           int      `json:"count"`
	Threshold       int      `json:"threshold"`
	ThresholdWindow float64  `json:"threshold_window"` // seconds
	Fields          any      `json:"fields"`
}

type actionBody struct {
	Type     string  `json:"type"`
	Result   string  `json:"result"`
	IP       string  `json:"ip"`
	Target   string  `json:"target"`
	Duration string  `json:"duration"`
	Expires  *string `json:"expires"` // null: permanent, or nothing was made
	Rule     string  `json:"rule"`
	Backend  string  `json:"backend"`
	DryRun   bool    `json:"dry_run"`
	Error    string  `json:"error,omitempty"`
}

type logBody struct {
	Prefix string `json:"prefix"`
	Rule   string `json:"rule"`
	Kernel bool   `json:"kernel"`
	Error  string `json:"error,omitempty"`
}

type resyncBody struct {
	Reason   string `json:"reason"`
	Restored int    `json:"restored"`
}

// BlockObject is a block in JSON, in events and in listings alike.
type BlockObject struct {
	Prefix    string   `json:"prefix"`
	Target    string   `json:"target"`
	Action    string   `json:"action"`
	Rule      string   `json:"rule"`
	Reason    string   `json:"reason"`
	Origin    string   `json:"origin"`
	Created   string   `json:"created"`
	Expires   *string  `json:"expires"`   // null = permanent
	Remaining *float64 `json:"remaining"` // seconds; null = permanent
	Packets   *uint64  `json:"packets"`   // null = not known
}

func blockJSON(b firewall.BlockInfo, now time.Time) *BlockObject {
	o := &BlockObject{
		Prefix: b.Prefix.String(), Target: b.Target, Action: b.Action, Rule: b.RuleName, Reason: b.Reason,
		Origin: string(b.Origin), Created: stamp(b.CreatedAt), Expires: stampOrNil(b.ExpiresAt),
	}
	if o.Expires != nil {
		seconds := max(b.ExpiresAt.Sub(now), 0).Round(time.Millisecond).Seconds()
		o.Remaining = &seconds
	}
	return o
}

func stamp(t time.Time) string { return t.UTC().Format(timestampFormat) }

func stampOrNil(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// nonNil keeps an empty list from being encoded as null.
func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// events writes the event stream: to standard output as people or as programs
// read it, and to a file as JSON. It is safe for concurrent use.
type events struct {
	json    bool
	verbose bool // people see duplicates too
	backend string
	dryRun  bool

	mu   sync.Mutex // guards what follows, and keeps lines whole
	out  io.Writer
	path string
	file *os.File
	lost uint64 // events that could not be written
	err  error  // why the first was lost
	// recent are the last alerts, oldest first after next: evidence for show.
	recent []*event
	next   int
}

// maxRecent bounds the alerts that are kept for show.
const maxRecent = 1024

// openEvents opens the event file, if there is one to be.
func openEvents(cfg Config, out io.Writer) (*events, error) {
	e := &events{json: cfg.Output == OutputJSON, verbose: cfg.Verbose, out: out, path: cfg.Events}
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

func (e *events) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.file == nil {
		return nil
	}
	err := e.file.Close()
	e.file = nil
	return err
}

// emit writes one event. A writer that fails does not end the guard: the loss
// is counted and shown in the last warning.
func (e *events) emit(ev *event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var line []byte
	var err error
	if e.json || e.file != nil {
		if line, err = json.Marshal(ev); err != nil {
			return e.count(fmt.Errorf("encode event: %w", err))
		}
		line = append(line, '\n')
	}
	if e.file != nil {
		_, err = e.file.Write(line)
	}
	switch {
	case !e.json && !e.verbose && ev.again():
		return e.count(err)
	case !e.json:
		line = []byte(ev.human())
	}
	if _, outErr := e.out.Write(line); err == nil {
		err = outErr
	}
	return e.count(err)
}

func (e *events) count(err error) error {
	if err != nil {
		e.lost++
		if e.err == nil {
			e.err = err
		}
	}
	return err
}

// losses is how many events could not be written, and why the first could not.
func (e *events) losses() (uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
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
			Count: a.Count, Threshold: a.Threshold, ThresholdWindow: a.Window.Seconds(), Fields: a.Fields,
		},
	}
	e.remember(ev)
	return e.emit(ev)
}

func (e *events) remember(ev *event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.recent) < maxRecent {
		e.recent = append(e.recent, ev)
		return
	}
	e.recent[e.next] = ev
	e.next = (e.next + 1) % maxRecent
}

// alerts are the last alerts from or to an address, oldest first.
func (e *events) alerts(a netip.Addr) []*event {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*event
	for i := range e.recent {
		if ev := e.recent[(e.next+i)%len(e.recent)]; ev.SrcIP == a.String() || ev.DestIP == a.String() {
			out = append(out, ev)
		}
	}
	return out
}

func (e *events) action(a engine.ActionEvent) {
	body := &actionBody{
		Type: a.Kind.String(), Result: a.Result.Outcome.String(), IP: bare(a.Prefix), Target: a.Target.String(),
		Duration: a.Duration.String(), Expires: stampOrNil(a.Result.Block.ExpiresAt),
		Rule: a.Rule, Backend: e.backend, DryRun: e.dryRun,
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
	body := &logBody{Prefix: l.Prefix, Rule: l.Rule, Kernel: l.Kernel}
	if l.Err != nil {
		body.Error = l.Err.Error()
	}
	_ = e.emit(&event{
		Timestamp: stamp(l.Time), EventType: "log", SrcIP: addr(l.Src), SrcPort: l.SrcPort,
		DestIP: addr(l.Dst), DestPort: l.DstPort, Packet: l.Packet, Log: body,
	}) // counted by emit
}

// block tells of a block that is over, or of damage that was put right.
func (e *events) block(f firewall.Event) {
	ev := &event{Timestamp: stamp(f.At)}
	switch f.Kind {
	case firewall.Expired:
		ev.EventType, ev.Block = "expire", blockJSON(f.Block, f.At)
	case firewall.Unblocked:
		ev.EventType, ev.Block, ev.By = "unblock", blockJSON(f.Block, f.At), f.By
	case firewall.Resynced:
		ev.EventType, ev.Resync = "resync", &resyncBody{f.Reason, f.Restored}
	}
	_ = e.emit(ev) // counted by emit
}

// printable keeps what a packet carried from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, s)
}
