package engine

import "github.com/netcap-guard/netcap-guard/record"

// Expect announces that Evaluate will be called for set, whose header and record
// of type t are complete: the processor fetches the counter of its source, which
// may be nowhere near, while it does what else there is to do before. It decides
// and counts nothing, and costs a few nanoseconds where no rule counts. The set
// may hold another packet by the time of Evaluate: what was prepared is good for
// this source alone, and for one Evaluate.
func (w *Worker) Expect(set *record.Set, t record.Type) {
	a := w.engine.active.Load()
	x := a.index[t]
	if x == nil {
		return
	}
	rule := x.counting[x.class(w.layout.record(set, t))]
	if rule == 0 || !set.Src.Is4() { // IPv6 may count by its network
		return
	}
	tr := w.engine.tracker
	w.source, w.expected = tr.hashAddrs(countMatches, set.Src, noAddr()), set.Src
	w.touched = tr.touch(keyOf(a.byType[t][rule-1].state.id, w.source))
}

// touch reads a key's bucket and returns nothing of use. Other workers may write
// there meanwhile; to ask for the shard would take the time that is to be saved.
//
//go:norace
func (t *tracker) touch(k trackerKey) uint64 {
	b := &t.shard(k).heads[k.place&(t.perShard-1)]
	return b[0].tag ^ b[3].tag ^ b[7].tag // in a cache line each
}
