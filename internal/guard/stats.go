package guard

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/stream"
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
	// Drops are packets that the kernel stopped, by action and family.
	Drops       map[string]familyDrops `json:"drops"`
	KernelLog   kernelLogStats         `json:"kernel_log"`
	Escalation  escalationStats        `json:"escalation"`
	Connections connectionStats        `json:"connections"`
	Coalescing  coalescingStats        `json:"coalescing"`
	Streams     streamStats            `json:"streams"`
	Evidence    evidenceStats          `json:"evidence"`
}

// streamStats are all workers' together.
type streamStats struct {
	Open      uint64 `json:"open"`      // connections that are followed
	Bytes     uint64 `json:"bytes"`     // that are kept of them
	Confirmed uint64 `json:"confirmed"` // handshakes that were seen in full
	Records   uint64 `json:"records"`   // that came of them
	Evicted   uint64 `json:"evicted"`   // connections that had to make room for others
	Shed      uint64 `json:"shed"`      // connections whose kept bytes had to
	Gaps      uint64 `json:"gaps"`      // places where bytes were missing for good
	Dropped   uint64 `json:"dropped"`   // segments that there was no room for
	Invalid   uint64 `json:"invalid"`   // segments that contradict the handshake, have a wrong checksum or lie outside the window
	Malformed uint64 `json:"malformed"` // messages that could not be parsed
}

func (s *streamStats) add(t stream.Stats) {
	s.Open += t.Open
	s.Bytes += t.Bytes
	s.Confirmed += t.Confirmed
	s.Records += t.Records
	s.Evicted += t.EvictedUnproven + t.EvictedIdle + t.EvictedUseful
	s.Shed += t.Shed
	s.Gaps += t.Gaps
	s.Dropped += t.Dropped
	s.Invalid += t.Invalid + t.BadSum + t.Outside
	s.Malformed += t.Malformed
}

// coalescingStats say how blocks that are asked for one by one share changes
// of the kernel.
type coalescingStats struct {
	Changes uint64 `json:"changes"`
	Joined  uint64 `json:"joined"` // requests that another one's change made
}

type familyDrops struct {
	IPv4 uint64 `json:"ipv4"`
	IPv6 uint64 `json:"ipv6"`
}

// kernelLogStats count what kernel log rules said.
type kernelLogStats struct {
	Packets     uint64 `json:"packets"`     // read, those without an event included
	Suppressed  uint64 `json:"suppressed"`  // without an event: there were too many
	Lost        uint64 `json:"lost"`        // the kernel had no room for them
	Malformed   uint64 `json:"malformed"`   // could not be read
	Unavailable uint64 `json:"unavailable"` // the group could not be opened
}

type escalationStats struct {
	Remembered uint64 `json:"remembered"` // addresses
	Evicted    uint64 `json:"evicted"`    // that had to make room for others
	Failed     uint64 `json:"failed"`     // writes of the file
}

// connectionStats count the entries of connection tracking that were deleted.
type connectionStats struct {
	Ended  uint64 `json:"ended"`
	Failed uint64 `json:"failed"` // attempts
	Lost   uint64 `json:"lost"`   // blocked prefixes for which there was no room
}

type captureStats struct {
	Received    uint64 `json:"received"`
	Dropped     uint64 `json:"dropped"`
	Unsupported uint64 `json:"unsupported"`
	RingFull    uint64 `json:"ring_full"` // how often a live capture's ring was full
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
		b.Streams.add(w.streams.Stats())
		for _, t := range record.Types() {
			if n := w.records[t].load(); n > 0 {
				b.Records[t.String()] += n
			}
		}
	}
	b.Evidence = r.evidenceStats()
	b.Capture = r.captureStats()
	// Packets counts every packet read: those of a link type that nobody can
	// decode were read as well.
	b.Packets += b.Capture.Unsupported
	es := r.engine.Stats()
	for name, s := range es.Rules {
		b.Rules[name] = ruleJSON(s)
	}
	b.Tracker = trackerStats{es.TrackerEntries, es.TrackerEvictions}
	lost, _ := r.events.losses()
	b.Lost = lostStats{
		Alerts: es.AlertsDropped + es.AlertErrors, Actions: es.ActionsDropped, Skipped: es.ActionsSkipped,
		Refused: r.manager.Refused(), TimeStamps: es.TrackerLost, Events: lost,
	}
	b.Drops = r.drops()
	b.KernelLog, b.Connections = r.kernel.stats(), r.killer.stats()
	b.Connections.Lost += r.manager.Kills().Lost // had no room before they came here
	b.Coalescing.Changes, b.Coalescing.Joined = r.manager.Coalesced()
	remembered := r.manager.Escalations()
	b.Escalation = escalationStats{uint64(remembered.Remembered), remembered.Evicted, remembered.Failed}
	return b
}

// dropsLimit bounds how long the statistics wait for a kernel that is busy.
const dropsLimit = 2 * time.Second

// dropCounts are the packets that the kernel stopped, as it said last.
type dropCounts struct {
	mu   sync.Mutex // guards what follows
	last map[string]familyDrops
	told bool // that it does not say
}

// drops asks the kernel what it stopped. Where it does not say in time, that is
// said once, and the answer is the last one; empty where there was none.
func (r *runner) drops() map[string]familyDrops {
	ctx, cancel := context.WithTimeout(context.Background(), dropsLimit)
	defer cancel()
	list, err := r.manager.Dropped(ctx)
	return r.dropped.take(list, err, r.log)
}

// take is told what the kernel said. Nobody may change the result.
func (c *dropCounts) take(list []backend.Drops, err error, log *slog.Logger) map[string]familyDrops {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if !c.told {
			c.told = true
			log.Warn("the kernel does not say how many packets it stopped: the statistics show what it said last", "error", err)
		}
		if c.last == nil {
			return map[string]familyDrops{}
		}
		return c.last
	}
	out := map[string]familyDrops{}
	for _, d := range list {
		sum := out[d.Action.String()]
		if d.Is6 {
			sum.IPv6 += d.Packets
		} else {
			sum.IPv4 += d.Packets
		}
		out[d.Action.String()] = sum
	}
	c.last = out
	return out
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
	c.RingFull += s.Full
}
