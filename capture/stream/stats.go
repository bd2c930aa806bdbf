package stream

import "sync/atomic"

// Stats are a Table's counters since it was made, but for the first two, which
// say how things stand.
type Stats struct {
	// Open connections, and bytes kept for them.
	Open, Bytes uint64
	// Confirmed counts handshakes seen in full, Records what was delivered.
	Confirmed, Records uint64
	// Evicted connections: half-open ones and those whose beginning was not
	// seen or that were closed; those that nothing was read of; the others.
	EvictedUnproven, EvictedIdle, EvictedUseful uint64
	// Shed counts connections whose kept bytes were given up for others'.
	Shed uint64
	// Gaps counts places where bytes were missing for good. Dropped counts
	// segments that found no room.
	Gaps, Dropped uint64
	// Invalid counts segments that contradict the handshake.
	Invalid uint64
	// BadSum counts segments with a wrong checksum, Outside those that lie
	// beyond the receiver's window. Nothing of them is taken.
	BadSum, Outside uint64
	// Malformed counts messages that could not be parsed.
	Malformed uint64
}

// counters are written by the table's goroutine and read by any.
type counters struct {
	open, bytes, confirmed, records         atomic.Uint64
	evicted                                 [numClasses]atomic.Uint64
	shed, gaps, dropped, invalid, malformed atomic.Uint64
	badSum, outside                         atomic.Uint64
}

// Stats reads the counters. It may be called from any goroutine.
func (t *Table) Stats() Stats {
	s := &t.stats
	return Stats{
		Open: s.open.Load(), Bytes: s.bytes.Load(), Confirmed: s.confirmed.Load(), Records: s.records.Load(),
		EvictedUnproven: s.evicted[unproven].Load(), EvictedIdle: s.evicted[idle].Load(),
		EvictedUseful: s.evicted[useful].Load(), Shed: s.shed.Load(), Gaps: s.gaps.Load(),
		Dropped: s.dropped.Load(), Invalid: s.invalid.Load(),
		BadSum: s.badSum.Load(), Outside: s.outside.Load(), Malformed: s.malformed.Load(),
	}
}
