package fragment_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/fragment"
)

var (
	host4, other4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	host6, other6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

const second = int64(1e9)

// body is a datagram's payload.
func body(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// piece is the fragment from one byte to another; the last one ends the body.
func piece(b []byte, from, to int, id uint32, v6 bool) *fragment.Fragment {
	f := &fragment.Fragment{Key: fragment.Key{Src: host4, Dst: other4, ID: id, Proto: 17}, Offset: from, More: to < len(b), Data: b[from:to], Next: 17}
	if v6 {
		f.Src, f.Dst, f.Proto = host6, other6, 0
	}
	return f
}

// add begins a packet and adds its fragment.
func add(t *testing.T, table *fragment.Table, f *fragment.Fragment) []byte {
	t.Helper()
	table.Begin()
	whole, next, err := table.Add(f)
	if err != nil {
		t.Fatal(err)
	}
	if whole != nil && next != 17 {
		t.Errorf("protocol %d", next)
	}
	return whole
}

// A datagram of any length, cut anywhere, sent in any order with repeats, comes
// out once and as it was.
func TestAnyOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	table := fragment.New()
	for round := range 500 {
		b := body(1 + rnd.IntN(1<<(1+rnd.IntN(16))-1))
		var list []*fragment.Fragment
		for at := 0; at < len(b); {
			to := min(at+8*(1+rnd.IntN(200)), len(b))
			list = append(list, piece(b, at, to, uint32(round), round%2 == 1))
			at = to
		}
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for i, f := range list {
			if len(list) > 1 && i > 0 && rnd.IntN(4) == 0 {
				if again := add(t, table, list[rnd.IntN(i)]); again != nil {
					t.Fatal("a repeat completes a datagram")
				}
			}
			whole := add(t, table, f)
			if last := i == len(list)-1; (whole != nil) != last {
				t.Fatalf("round %d, %d bytes: fragment %d of %d: %d bytes", round, len(b), i+1, len(list), len(whole))
			}
			if whole != nil && !bytes.Equal(whole, b) {
				t.Fatalf("round %d: other bytes", round)
			}
		}
	}
	if s := table.Stats(); s.Reassembled != 500 || s.Refused != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRefused(t *testing.T) {
	b := body(400)
	for _, tt := range []struct {
		name   string
		v6     bool
		first  [2]int
		second [2]int
		change func(*fragment.Fragment)
		want   error
	}{
		{"overlap", false, [2]int{0, 80}, [2]int{72, 160}, nil, fragment.ErrOverlap},
		{"overlap, IPv6", true, [2]int{0, 80}, [2]int{72, 160}, nil, fragment.ErrOverlap},
		{"around another", false, [2]int{80, 88}, [2]int{0, 160}, nil, fragment.ErrOverlap},
		{"two ends", false, [2]int{320, 400}, [2]int{240, 320}, func(f *fragment.Fragment) { f.More = false }, fragment.ErrLength},
		{"behind the end", false, [2]int{320, 400}, [2]int{0, 80}, func(f *fragment.Fragment) { f.Offset = 400 }, fragment.ErrLength},
		{"an end before what is there", false, [2]int{160, 240}, [2]int{0, 80}, func(f *fragment.Fragment) { f.More = false }, fragment.ErrLength},
		{"longer than a datagram", false, [2]int{0, 80}, [2]int{80, 160}, func(f *fragment.Fragment) { f.Offset = 65528 }, fragment.ErrLength},
		{"empty", false, [2]int{0, 80}, [2]int{80, 80}, nil, fragment.ErrUnit},
		{"no unit, IPv6", true, [2]int{0, 80}, [2]int{80, 159}, nil, fragment.ErrUnit},
		{"less than a unit", false, [2]int{0, 80}, [2]int{80, 87}, nil, fragment.ErrUnit},
	} {
		table := fragment.New()
		add(t, table, piece(b, tt.first[0], tt.first[1], 1, tt.v6))
		f := piece(b, tt.second[0], tt.second[1], 1, tt.v6)
		if tt.change != nil {
			tt.change(f)
		}
		if whole, _, err := table.Add(f); !errors.Is(err, tt.want) || whole != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if s := table.Stats(); s.Refused != 1 {
			t.Errorf("%s: %+v", tt.name, s)
		}
		// After an overlap or an empty fragment the datagram is gone; after
		// another that cannot be it waits on.
		add(t, table, piece(b, 160, 400, 1, tt.v6))
		gone := errors.Is(tt.want, fragment.ErrOverlap) || errors.Is(tt.want, fragment.ErrUnit) && !tt.v6
		if tt.first == [2]int{0, 80} && !errors.Is(tt.want, fragment.ErrLength) {
			if whole := add(t, table, piece(b, 80, 160, 1, tt.v6)); (whole == nil) != gone {
				t.Errorf("%s: afterwards %d bytes", tt.name, len(whole))
			}
		}
	}
}

// An empty fragment has the receiver forget what it has of the datagram: what
// comes after it must not be mixed with what came before.
func TestEmptyGivesUp(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		table, other, b := fragment.New(), body(64), body(64)
		other[0] ^= 0xff
		add(t, table, piece(other, 0, 32, 1, v6))
		if _, _, err := table.Add(piece(b, 40, 40, 1, v6)); !errors.Is(err, fragment.ErrUnit) {
			t.Fatal(err)
		}
		add(t, table, piece(b, 0, 32, 1, v6))
		if got := add(t, table, piece(b, 32, 64, 1, v6)); !bytes.Equal(got, b) {
			t.Errorf("v6 %v: what was given up is used", v6)
		}
	}
}

// As Linux does, the middle of an IPv4 datagram counts up to a multiple of 8.
func TestIPv4CutsToUnits(t *testing.T) {
	b, table := body(160), fragment.New()
	add(t, table, piece(b, 0, 87, 1, false))
	if whole := add(t, table, piece(b, 80, 160, 1, false)); !bytes.Equal(whole, b) {
		t.Errorf("%d bytes", len(whole))
	}
}

func TestExpires(t *testing.T) {
	b := body(160)
	for _, tt := range []struct {
		v6       bool
		lifetime int64
	}{{false, 30 * second}, {true, 60 * second}} {
		for late := range int64(2) {
			table := fragment.New()
			first, last := piece(b, 0, 80, 1, tt.v6), piece(b, 80, 160, 1, tt.v6)
			first.Time, last.Time = 1000*second, 1000*second+tt.lifetime+late
			add(t, table, first)
			whole := add(t, table, last)
			if (whole == nil) != (late == 1) || table.Stats().Expired != uint64(late) {
				t.Errorf("IPv6 %v, %d ns late: %d bytes, %+v", tt.v6, late, len(whole), table.Stats())
			}
		}
	}
}

// A clock that steps back neither expires a datagram nor lets it live for ever.
func TestTimeGoesBack(t *testing.T) {
	b, table := body(160), fragment.New()
	first, last := piece(b, 0, 80, 1, false), piece(b, 80, 160, 1, false)
	first.Time, last.Time = 1000*second, 10*second
	add(t, table, first)
	if add(t, table, last) == nil {
		t.Error("expired")
	}
}

// flood sends heads that never get a tail.
func flood(t testing.TB, table *fragment.Table, n int, source func(i uint32) netip.Addr, offset int) {
	t.Helper()
	f := piece(body(128), 0, 64, 0, false)
	f.Offset = offset
	for i := range uint32(n) {
		f.ID, f.Src, f.Time = i, source(i), 1000*second+int64(i)*1000
		table.Begin()
		if whole, _, err := table.Add(f); whole != nil || err != nil {
			t.Fatal(err)
		}
	}
}

// One source can flood as it likes: the datagrams of sources in other
// compartments are put together all the same.
func TestFloodOfOneSource(t *testing.T) {
	table := fragment.New()
	b := body(2000)
	const hosts = 64
	host := func(i int) *fragment.Fragment {
		f := piece(b, 0, 1480, 9, false)
		f.Src, f.Time = netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 1000*second
		return f
	}
	for i := range hosts {
		add(t, table, host(i))
	}
	flood(t, table, 50_000, func(uint32) netip.Addr { return host4 }, 0)
	whole := 0
	for i := range hosts {
		f := host(i)
		f.Offset, f.More, f.Data = 1480, false, b[1480:]
		if add(t, table, f) != nil {
			whole++
		}
	}
	// Of 64 hosts in 64 compartments about one shares the attacker's; ten would
	// be one chance in ten millions.
	if whole < hosts-9 {
		t.Errorf("%d of %d datagrams", whole, hosts)
	}
	if s := table.Stats(); s.Evicted < 50_000-16 {
		t.Errorf("%+v", s)
	}
}

// A million heads from forged sources cost memory within the bound, whatever
// they claim of their datagrams' lengths.
func TestMillionHeads(t *testing.T) {
	for _, offset := range []int{0, 62 << 10} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		table := fragment.New()
		flood(t, table, 1_000_000, func(i uint32) netip.Addr {
			return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i*2654435761)))
		}, offset)
		runtime.GC()
		runtime.ReadMemStats(&after)
		// 64 compartments of 128 KiB, and 1 KiB of book-keeping for each of 1,024 slots.
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 12<<20 {
			t.Errorf("offset %d: the heap has grown by %d KiB", offset, grown>>10)
		}
		if s := table.Stats(); s.Evicted < 990_000 {
			t.Errorf("%+v", s)
		}
		runtime.KeepAlive(table)
	}
}

func TestFloodDoesNotAllocate(t *testing.T) {
	for _, offset := range []int{0, 8000, 62 << 10} {
		table := fragment.New()
		flood(t, table, 5000, func(uint32) netip.Addr { return host4 }, offset)
		f := piece(body(2960), 0, 1480, 0, false)
		f.Offset, f.Time = offset, 2000*second
		if n := testing.AllocsPerRun(1000, func() {
			f.ID++
			table.Begin()
			if _, _, err := table.Add(f); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("offset %d: %v allocations", offset, n)
		}
	}
}

func TestAgain(t *testing.T) {
	b, table := body(160), fragment.New()
	add(t, table, piece(b, 0, 80, 1, false))
	last := piece(b, 80, 160, 1, false)
	whole := add(t, table, last)
	if got, next := table.Again(&last.Key); !bytes.Equal(got, whole) || next != 17 {
		t.Errorf("%d bytes, protocol %d", len(got), next)
	}
	table.Begin()
	if got, _ := table.Again(&last.Key); got != nil {
		t.Error("still there with the next packet")
	}
}

// FuzzTable adds anything: no panic, and what comes out is no longer than a
// datagram can be.
func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 0, 1, 16, 1, 0, 2, 0, 16, 1})
	f.Add([]byte{1, 255, 255, 200, 0, 1, 0, 0, 255, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		table, b := fragment.New(), body(2048)
		for len(script) >= 5 {
			s := script[:5]
			script = script[5:]
			next := &fragment.Fragment{Key: fragment.Key{Src: host4, Dst: other4, ID: uint32(s[0] >> 2)},
				Offset: int(binary.BigEndian.Uint16(s[1:])), More: s[0]&1 != 0, Data: b[:int(s[3])*8+int(s[4])%9], Time: int64(s[4]) * second}
			if s[0]&2 != 0 {
				next.Src, next.Dst = host6, other6
			}
			table.Begin()
			whole, _, err := table.Add(next)
			if len(whole) > 65535 || err != nil && whole != nil {
				t.Errorf("%d bytes, %v", len(whole), err)
			}
		}
	})
}
