package guard

import (
	"log/slog"
	"time"
)

const (
	// lossEvery is how often the counters of lost packets are looked at.
	lossEvery = time.Second
	// lossRest is the least time between two lines about them.
	lossRest = time.Minute
)

// lossWatch says when packets are lost, and what helps, once a minute at most.
type lossWatch struct {
	log  *slog.Logger
	told uint64 // of the lost packets
	last time.Time
}

// look is told the counters so far.
func (w *lossWatch) look(now time.Time, c captureStats) {
	if c.Dropped == w.told || !w.last.IsZero() && now.Sub(w.last) < lossRest {
		return
	}
	w.tell(c)
	w.last = now
}

// end tells what was lost since the last line.
func (w *lossWatch) end(c captureStats) {
	if c.Dropped != w.told {
		w.tell(c)
	}
}

func (w *lossWatch) tell(c captureStats) {
	w.log.Warn("packets were lost, because they came faster than they were taken: more --workers help, unless all are of two addresses, and, where they come in bursts, a larger ring_size",
		"lost", c.Dropped-w.told, "times the ring was full", c.RingFull, "received so far", c.Received)
	w.told = c.Dropped
}
