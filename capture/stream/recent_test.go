package stream

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"github.com/netcap-guard/netcap-guard/record"
)

// lines is a Sink that writes down what it gets.
type lines []string

func (l *lines) Record(set *record.Set) {
	*l = append(*l, fmt.Sprintf("%d %v %v:%d %s %d confirmed=%t", set.Time, set.Have, set.Src, set.SrcPort, set.HTTP.URL, set.HTTP.StatusCode, set.Confirmed))
}

// talk is one connection that goes on at random, over and over with the same
// ports.
type talk struct {
	port     uint16
	seq      [2]uint32
	step     int
	protocol int
	headless bool // its handshake is not captured
}

func (c *talk) next(r *rand.Rand) (*record.Set, bool) {
	ends := [2]netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), c.port), netip.MustParseAddrPort("198.51.100.2:80")}
	if c.port&2 != 0 {
		ends[1] = netip.MustParseAddrPort("10.0.0.1:80") // before the client's address
	}
	dir, flags, data := r.IntN(2), uint8(record.FlagACK), ""
	switch c.step++; {
	case c.step == 1:
		c.headless = r.IntN(4) == 0
		c.protocol, c.seq = r.IntN(5), [2]uint32{r.Uint32(), r.Uint32()}
		dir, flags = 0, record.FlagSYN
	case c.step == 2:
		dir, flags = 1, record.FlagSYN|record.FlagACK
	case c.step == 3:
		dir = 0
	case c.step < 60:
		data = c.say(r, dir)
	case c.step == 60 || c.step == 61:
		dir, flags = c.step&1, record.FlagACK|record.FlagFIN
	default:
		c.step = 0
		return c.next(r)
	}
	set := &record.Set{HasSegment: true}
	set.Header = record.Header{Src: ends[dir].Addr(), Dst: ends[1-dir].Addr(), SrcPort: ends[dir].Port(), DstPort: ends[1-dir].Port(), Proto: 6}
	set.Segment = record.Segment{Window: 65535, Seq: c.seq[dir], Flags: flags, Payload: []byte(data), Size: int32(len(data))}
	if flags&record.FlagACK != 0 {
		set.Segment.Ack = c.seq[1-dir]
	}
	c.seq[dir] += uint32(len(data))
	if flags&(record.FlagSYN|record.FlagFIN) != 0 {
		c.seq[dir]++
	}
	return set, r.IntN(40) > 0 && (!c.headless || c.step > 3) // else it is lost
}

func (c *talk) say(r *rand.Rand, dir int) string {
	switch {
	case r.IntN(3) == 0:
		return "" // a pure ACK
	case c.protocol == 0 && dir == 0:
		return fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", r.IntN(1000))
	case c.protocol == 0:
		return "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
	case c.protocol == 1:
		return "SSH-2.0-x\r\n"
	case c.protocol == 2:
		return "\x16\x03\x01\x00\x20\x01\x00\x00\x1c\x03\x03 and so on, which nobody reads"
	}
	return "what no known protocol begins with"[r.IntN(20):]
}

// TestRecentChangesNothing: records and what is known of handshakes are the
// same whether or not recent connections are known, and those that nobody reads
// passed over early.
func TestRecentChangesNothing(t *testing.T) {
	for _, types := range [][]record.Type{{record.TypeHTTP}, {record.TypeHTTP, record.TypeSSH}, {}} {
		var want record.Want
		want.Handshakes = true
		for _, typ := range types {
			want.Add(typ, "URL", "StatusCode")
		}
		r := rand.New(rand.NewPCG(7, uint64(len(types))))
		var quick, slow lines
		with, without := New(want, &quick, Config{}), New(want, &slow, Config{})
		without.recent = recent{}
		talks, hits := make([]talk, 50), uint64(0)
		for i := range talks {
			talks[i].port = uint16(1024 + i)
		}
		for n := range 40_000 {
			set, seen := talks[r.IntN(len(talks))].next(r)
			set.Time = int64(n) * 1e6
			if !seen {
				continue
			}
			again := *set
			with.Segment(set, false)
			without.Segment(&again, false)
			if r.IntN(200) == 0 {
				clear(with.recent.sets[r.IntN(1<<recentBits):]) // as if others had come
			}
			if set.Confirmed != again.Confirmed {
				t.Fatalf("%v, segment %d (%+v): confirmed %t, without the set of recent connections %t", types, n, set.Segment, set.Confirmed, again.Confirmed)
			}
			if a, b := with.Stats(), without.Stats(); a.Gaps != b.Gaps || a.Bytes != b.Bytes || a.Open != b.Open {
				t.Fatalf("%v, segment %d (%+v): %+v, without the set of recent connections %+v", types, n, set.Segment, a, b)
			}
			hits = with.recent.hits
		}
		if !slices.Equal(quick, slow) {
			t.Errorf("%v: %d records, without the set of recent connections %d", types, len(quick), len(slow))
		}
		if hits < 5000 || len(types) > 0 && len(quick) < 1000 {
			t.Errorf("%v: %d segments ignored, %d records", types, hits, len(quick))
		}
	}
}

// TestWhatIsTaken: only segments that can hold what is asked for are looked at.
func TestWhatIsTaken(t *testing.T) {
	of := func(types ...record.Type) (w record.Want) {
		for _, typ := range types {
			w.Add(typ)
		}
		return w
	}
	handshakes := record.Want{Handshakes: true}
	for _, tt := range []struct {
		name     string
		want     record.Want
		src, dst uint16
		taken    bool
	}{
		{"TCP alone", of(record.TypeTCP), 40000, 53, false},
		{"DNS, a query", of(record.TypeDNS), 40000, 53, true},
		{"DNS, an answer", of(record.TypeDNS), 53, 40000, true},
		{"DNS, another port", of(record.TypeDNS), 40000, 80, false},
		{"HTTP", of(record.TypeHTTP), 40000, 8080, true},
		{"DNS and SSH", of(record.TypeDNS, record.TypeSSH), 40000, 22, true},
		{"handshakes", handshakes, 40000, 80, true},
	} {
		table := New(tt.want, &lines{}, Config{DNS: func([]byte, *record.Set) error { return nil }})
		set := &record.Set{HasSegment: true}
		set.SrcPort, set.DstPort = tt.src, tt.dst
		if got := table.Takes(set); got != tt.taken {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.taken)
		}
		if set.HasSegment = false; table.Takes(set) {
			t.Errorf("%s: a packet without a segment is taken", tt.name)
		}
	}
}

// TestVerdict: a connection seen from its beginning that speaks nothing known
// is given up for good after few segments; one that turns to TLS after a while
// is not.
func TestVerdict(t *testing.T) {
	const hello = "\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr\x00\x00\x02\x13\x01\x01\x00\x00\x00"
	for _, tt := range []struct {
		name    string
		before  int // segments of each side
		records int
	}{{"at once", 0, 1}, {"as with STARTTLS", 3, 1}, {"after a long talk", 7, 0}} {
		var want record.Want
		want.Add(record.TypeTLSClientHello)
		var got lines
		table, at := New(want, &got, Config{}), [2]uint32{1, 1}
		send := func(dir int, flags uint8, data string) {
			set := &record.Set{HasSegment: true}
			ends := [2]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("198.51.100.2:25")}
			set.Header = record.Header{Time: 1e9, Src: ends[dir].Addr(), Dst: ends[1-dir].Addr(), SrcPort: ends[dir].Port(), DstPort: ends[1-dir].Port()}
			set.Segment = record.Segment{Window: 65535, Seq: at[dir], Ack: at[1-dir], Flags: flags, Payload: []byte(data), Size: int32(len(data))}
			table.Segment(set, false)
			if at[dir] += uint32(len(data)); flags&record.FlagSYN != 0 {
				at[dir]++
			}
		}
		send(0, record.FlagSYN, "")
		send(1, record.FlagSYN|record.FlagACK, "")
		send(0, record.FlagACK, "")
		for range tt.before {
			send(1, record.FlagACK, "220 what servers say\r\n")
			send(0, record.FlagACK, "EHLO x\r\n")
		}
		send(0, record.FlagACK, hello)
		if len(got) != tt.records {
			t.Errorf("%s: %d records, want %d", tt.name, len(got), tt.records)
		}
	}
}

// TestHashesDiffer: neighbours in every part of a connection's name have
// hashes of their own.
func TestHashesDiffer(t *testing.T) {
	keys, seen := newKeys(), map[uint64]record.Header{}
	for _, long := range []bool{false, true} {
		for i := range 1 << 16 {
			lo, hi := [16]byte{10: 0xff, 11: 0xff, 12: 10}, [16]byte{10: 0xff, 11: 0xff, 12: 20}
			lo[15], hi[15], lo[13], hi[14] = byte(i>>8&3), byte(i>>10&3), byte(i>>12&3), byte(i>>14&3)
			if long {
				lo[0], hi[0], lo[7], hi[8] = 0x20, 0x20, lo[13], hi[14]
			}
			h := record.Header{Src: netip.AddrFrom16(lo), Dst: netip.AddrFrom16(hi), SrcPort: uint16(i & 15), DstPort: uint16(i >> 4 & 15)}
			if !long && i&1 != 0 {
				h.Src = h.Src.Unmap()
			}
			name, dir := keys.name(&h)
			if other, ok := seen[name&^1]; ok {
				t.Fatalf("%v and %v share a hash", h, other)
			}
			seen[name&^1] = h
			h.Src, h.Dst, h.SrcPort, h.DstPort = h.Dst, h.Src, h.DstPort, h.SrcPort
			if back, other := keys.name(&h); back != name || dir+other != 1 {
				t.Fatalf("%v has another name in the other direction", h)
			}
		}
	}
}

// TestSizeOfAConnection: Config says what one takes.
func TestSizeOfAConnection(t *testing.T) {
	for _, tt := range []struct {
		what     string
		got, max uintptr
	}{{"entry", unsafe.Sizeof(entry{}), 64}, {"pair", unsafe.Sizeof(pair{}), 192}, {"half", unsafe.Sizeof(half{}), 64}} {
		if tt.got > tt.max {
			t.Errorf("%s: %d bytes, want %d", tt.what, tt.got, tt.max)
		}
	}
}
