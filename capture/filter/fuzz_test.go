package filter_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/filter"
	"github.com/netcap-guard/netcap-guard/record"
)

// FuzzFilter: whatever is asked for, and whatever the frame is, a frame with a
// record that the conditions hold for is kept by the program.
func FuzzFilter(f *testing.F) {
	for i, data := range mix(rand.New(rand.NewPCG(1, 8)), 20) {
		f.Add(uint64(i), false, false, data)
	}
	var want record.Want
	for _, typ := range types() {
		want.Add(typ, "SrcPort", "DstPort", "Window", "Length")
	}
	want.Add(record.TypeHTTP) // for its segments
	dec := decode.New(want)
	f.Fuzz(func(t *testing.T, seed uint64, streams, decap bool, data []byte) {
		random := rand.New(rand.NewPCG(seed, 9))
		needs := filter.Needs{Streams: streams, Decap: decap}
		for range 1 + random.IntN(3) {
			needs.Conditions = append(needs.Conditions, randomConditions(random))
		}
		p := filter.Compile(needs)
		if p != nil && len(p.Instructions()) == 0 {
			t.Fatalf("not assembled: %s", p)
		}
		kept, err := p.Keeps(data)
		if err != nil {
			t.Fatal(err)
		}
		var set record.Set
		dec.SetDecap(decap)
		_ = dec.Decode(1, data, len(data), &set) // a damaged frame may hold records all the same
		if !kept && slices.ContainsFunc(needs.Conditions, func(c record.Conditions) bool { return set.Have.Has(c.Type) && c.Hold(&set) }) {
			t.Errorf("hidden by\n%s\nwanted by %v\n%x", p, needs.Conditions, data)
		}
		if !kept && streams && set.Proto == 6 && set.HasSegment {
			t.Errorf("a segment is hidden by\n%s\n%x", p, data)
		}
	})
}
