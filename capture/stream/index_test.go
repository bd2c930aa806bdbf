package stream

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/netcap-guard/netcap-guard/record"
)

// TestIndex holds the index against a map, full and under constant change, with
// hashes that are random and with hashes that crowd in few buckets.
func TestIndex(t *testing.T) {
	for name, draw := range map[string]func(*rand.Rand) uint64{
		"random":              (*rand.Rand).Uint64,
		"few buckets":         func(r *rand.Rand) uint64 { return r.Uint64() &^ 0xfff },
		"few tags":            func(r *rand.Rand) uint64 { return r.Uint64() & 0x03ff_ffff_ffff_ffff },
		"one bucket, one tag": func(r *rand.Rand) uint64 { return r.Uint64() & 0x00ff_ffff_ffff_0000 },
	} {
		for _, size := range []int{1, 8, 100, 1000} {
			r := rand.New(rand.NewPCG(1, uint64(size)))
			table := &Table{cfg: Config{Connections: size}, index: newIndex(size)}
			known, numbers := map[uint64]uint32{}, make([]uint64, 0, size)
			for range 20 * size {
				hash := draw(r)
				if _, ok := known[hash]; ok {
					continue
				}
				if got := table.find(hash); got != 0 {
					t.Fatalf("%s, %d: a hash that is not there has number %d", name, size, got)
				}
				if len(numbers) == size {
					at := r.IntN(size)
					old := numbers[at]
					numbers[at] = numbers[size-1]
					numbers = numbers[:size-1]
					table.close(known[old])
					delete(known, old)
					if got := table.find(old); got != 0 {
						t.Fatalf("%s, %d: a connection that was closed has number %d", name, size, got)
					}
				}
				known[hash] = opened(table, hash)
				numbers = append(numbers, hash)
				for _, hash := range []uint64{hash, numbers[r.IntN(len(numbers))]} {
					if got := table.find(hash); got != known[hash] {
						t.Fatalf("%s, %d: number %d, want %d", name, size, got, known[hash])
					}
				}
			}
			for _, hash := range numbers {
				if got := table.find(hash); got != known[hash] {
					t.Fatalf("%s, %d: number %d in the end, want %d", name, size, got, known[hash])
				}
				table.close(known[hash])
			}
			for i, g := range table.index.groups {
				if over := *g.over(); over != 255 && g != (group{groupSlots: over}) || over > 0 && over < 255 {
					t.Fatalf("%s, %d: group %d of the empty index is %v", name, size, i, g)
				}
			}
		}
	}
}

func opened(t *Table, hash uint64) uint32 {
	i, _ := t.open(hash, 1, &record.Segment{Flags: record.FlagSYN})
	return i
}

// TestIndexGroups: hardly any connection of a full table lies in another group
// than its own, and the index takes what Config says.
func TestIndexGroups(t *testing.T) {
	const n = 1 << 17
	x, r := newIndex(n), rand.New(rand.NewPCG(1, 2))
	for i := range n {
		x.add(r.Uint64(), uint32(i+1))
	}
	over := 0
	for i := range x.groups {
		over += int(*x.groups[i].over())
	}
	if size := int(unsafe.Sizeof(x.groups[0])+unsafe.Sizeof(x.numbers[0])) * len(x.groups); over*500 > n || size > 10*n {
		t.Errorf("%d of %d in another group, %d bytes", over, n, size)
	}
}

// TestPairs: a connection of which SYNs alone were seen has no pair, and one
// that goes gives its own back.
func TestPairs(t *testing.T) {
	const size = 64
	table := New(record.Want{Handshakes: true}, &lines{}, Config{Connections: size})
	syn := func(port int, flags uint8) {
		set := &record.Set{HasSegment: true}
		set.Header = record.Header{Time: 1e9, SrcPort: uint16(port), DstPort: 80}
		set.Segment = record.Segment{Flags: flags, Seq: 1}
		table.Segment(set, false)
	}
	for port := range 1000 {
		syn(port, record.FlagSYN)
		syn(port, record.FlagSYN)
		syn(port, record.FlagRST)
	}
	if table.madePairs != 0 || table.made != size {
		t.Fatalf("%d connections, %d pairs", table.made, table.madePairs)
	}
	for port := range 1000 {
		syn(port, record.FlagSYN|record.FlagACK)
	}
	if table.madePairs > size || table.made != size {
		t.Errorf("%d connections, %d pairs", table.made, table.madePairs)
	}
}
