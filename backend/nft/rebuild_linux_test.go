package nft_test

import (
	"slices"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/nft"
)

// TestRebuildChangesAction: a rebuild that brings blocks with other actions than
// those in the kernel leaves each in one set, with the new action, and goes on
// with the counts of what was stopped.
func TestRebuildChangesAction(t *testing.T) {
	b := start(t, nft.Config{Counters: true})
	stays, changes := block(t, "192.0.2.1", backend.Drop), block(t, "192.0.2.2", backend.Reject)
	limit := limited(block(t, "192.0.2.3", backend.RateLimit), "10/second", 5)
	apply(t, b, backend.Change{Add: []backend.Block{stays, changes, limit, block(t, "192.0.2.4", backend.Drop)}})
	changes.Action = backend.Drop
	limit.Action, limit.Limit = backend.RejectReset, backend.Limit{}
	want := []backend.Block{stays, changes, limit}
	for range 2 { // the second time nothing moves
		apply(t, b, backend.Change{Rebuild: true, Add: want})
		if got := list(t, b); !slices.EqualFunc(got, want, func(a, b backend.Block) bool { return a.Slot() == b.Slot() && a.Limit == b.Limit }) {
			t.Errorf("after the rebuild:\n%v\nwant\n%v", got, want)
		}
	}
}

// TestLogPrefixes: logs may have 64 different texts in front, and no more.
func TestLogPrefixes(t *testing.T) {
	b := start(t, nft.Config{})
	var all []backend.Block
	for i := range 64 {
		one := logged(block(t, "192.0.2.1", backend.Log), string([]byte{'a' + byte(i%26), 'A' + byte(i/26)}))
		one.Prefix = host(i)
		all = append(all, one)
	}
	apply(t, b, backend.Change{Add: all})
	wantError(t, b.Apply(t.Context(), backend.Change{Add: []backend.Block{logged(block(t, "192.0.2.2", backend.Log), "one more")}}), backend.ErrFull)
	apply(t, b, backend.Change{Add: []backend.Block{logged(block(t, "192.0.2.2", backend.Log), all[63].LogPrefix)}})
	if got := list(t, b); len(got) != 65 {
		t.Errorf("%d logs, want 65", len(got))
	}
}
