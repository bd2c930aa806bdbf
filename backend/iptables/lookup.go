package iptables

import (
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// statuses says of each key what the rules that were just read do. Where a key
// has several blocks, the first in the chain is the one that packets meet.
func (s *state) statuses(keys []backend.Key, read []line, now time.Time) []backend.Status {
	found, _ := group(read)
	at := make(map[backend.Key]backend.Status, len(found))
	for _, e := range found {
		b, n := e.block, e.packets()
		if known := s.entries[e.slot()]; known != nil && sameLines(known.lines, e.lines) {
			b, n = known.block, n+known.base() // its end is exact
		}
		if _, there := at[b.Key]; !there && !b.Expired(now) {
			at[b.Key] = status(b, n, true, now)
		}
	}
	out := make([]backend.Status, len(keys))
	for i, k := range keys {
		st, ok := at[k]
		if !ok {
			st = s.covered(k, now)
		}
		out[i] = st
	}
	return out
}

// covered is the status of a key that has no rule: found where the allow list
// covers its block wholly, as List says too.
func (s *state) covered(k backend.Key, now time.Time) backend.Status {
	for _, a := range backend.Actions() {
		e := s.entries[backend.Slot{Key: k, Action: a}]
		if e != nil && len(e.lines) == 0 && !e.block.Expired(now) {
			return status(e.block, 0, false, now)
		}
	}
	return backend.Status{Key: k}
}

func status(b backend.Block, packets uint64, counted bool, now time.Time) backend.Status {
	st := backend.Status{
		Key: b.Key, Found: true, Action: b.Action, Permanent: b.Permanent(), Packets: packets, HasPackets: counted,
	}
	if !st.Permanent {
		st.Remaining = b.Remaining(now)
	}
	return st
}
