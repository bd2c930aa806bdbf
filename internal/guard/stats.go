package guard

import (
	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/record"
)

// statsBody is the body of a stats event.
type statsBody struct {
	Packets      uint64               `json:"packets"`
	Bytes        uint64               `json:"bytes"`
	DecodeErrors uint64               `json:"decode_errors"`
	Records      map[string]uint64    `json:"records"`
	Rules        map[string]ruleStats `json:"rules"`
	Firewall     map[string]uint64    `json:"firewall"`
	Actions      map[string]uint64    `json:"actions"`
	Capture      captureStats         `json:"capture"`
	Tracker      trackerStats         `json:"tracker"`
	Lost         lostStats            `json:"lost"`
}

type ruleStats struct {
	Matches uint64 `json:"matches"`
	Alerts  uint64 `json:"alerts"`
	Errors  uint64 `json:"errors"`
}

type captureStats struct {
	Received    uint64 `json:"received"`
	Dropped     uint64 `json:"dropped"`
	Unsupported uint64 `json:"unsupported"`
	Full        uint64 `json:"-"` // how often a ring was full
}

type trackerStats struct {
	Entries   uint64 `json:"entries"`
	Evictions uint64 `json:"evictions"`
}

// lostStats are what did not reach its destination: nothing is lost unseen.
type lostStats struct {
	Alerts     uint64 `json:"alerts"`     // the alert queue was full, or the writer failed
	Actions    uint64 `json:"actions"`    // the action queue was full
	Skipped    uint64 `json:"skipped"`    // actions without a firewall
	Refused    uint64 `json:"refused"`    // blocks that a cap or the breaker refused
	TimeStamps uint64 `json:"timestamps"` // matches that the tracker had no room for
	Events     uint64 `json:"events"`     // events that could not be written
}

// stats reads all counters of the run.
func (r *runner) stats() *statsBody {
	b := &statsBody{
		Records: map[string]uint64{}, Rules: map[string]ruleStats{},
		Firewall: r.manager.GetStats(), Actions: r.engine.GetActionStats(),
	}
	for _, w := range r.allWorkers() {
		b.Packets += w.packets.load()
		b.Bytes += w.bytes.load()
		b.DecodeErrors += w.dec.Errors().Total()
		for _, t := range record.Types() {
			if n := w.records[t].load(); n > 0 {
				b.Records[t.String()] += n
			}
		}
	}
	b.Capture = r.captureStats()
	// Packets counts every packet read: those of a link type that nobody can
	// decode were read as well.
	b.Packets += b.Capture.Unsupported
	es := r.engine.Stats()
	for name, s := range es.Rules {
		b.Rules[name] = ruleStats(s)
	}
	b.Tracker = trackerStats{es.TrackerEntries, es.TrackerEvictions}
	lost, _ := r.events.losses()
	b.Lost = lostStats{
		Alerts: es.AlertsDropped + es.AlertErrors, Actions: es.ActionsDropped, Skipped: es.ActionsSkipped,
		Refused: r.manager.Refused(), TimeStamps: es.TrackerLost, Events: lost,
	}
	return b
}

// captureStats adds up what the sources counted.
func (r *runner) captureStats() captureStats {
	var sum captureStats
	for _, s := range r.sources {
		sum.add(s.Stats())
	}
	return sum
}

func (c *captureStats) add(s capture.Stats) {
	c.Received += s.Received
	c.Dropped += s.Dropped
	c.Unsupported += s.Unsupported
	c.Full += s.Full
}
