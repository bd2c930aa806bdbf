package decode_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

// payload6Fragment is an IPv6 fragment header with a SYN behind it.
func payload6Fragment(offset uint16, more bool) gopacket.Payload {
	word := offset << 3
	if more {
		word |= 1
	}
	b := []byte{6, 0, byte(word >> 8), byte(word), 0, 0, 0, 9}
	segment := make([]byte, 20)
	binary.BigEndian.PutUint16(segment, 40000)
	binary.BigEndian.PutUint16(segment[2:], 22)
	segment[12], segment[13] = 5<<4, 2
	return append(b, segment...)
}

// piece is one fragment of an IP payload.
type piece struct {
	from, to int
	more     bool
}

// pieces cuts n bytes into fragments of size bytes, a multiple of 8.
func pieces(n, size int) []piece {
	var all []piece
	for at := 0; at < n; at += size {
		all = append(all, piece{at, min(at+size, n), at+size < n})
	}
	return all
}

// fragmented makes the frames of a datagram's pieces, in either family.
func fragmented(t testing.TB, v6 bool, proto byte, id uint32, body []byte, all []piece) [][]byte {
	t.Helper()
	var frames [][]byte
	for _, p := range all {
		if !v6 {
			l := ip4(layers.IPProtocol(proto))
			l.Flags, l.Id, l.FragOffset = 0, uint16(id), uint16(p.from/8)
			if p.more {
				l.Flags = layers.IPv4MoreFragments
			}
			frames = append(frames, build(t, eth(layers.EthernetTypeIPv4), l, raw(body[p.from:p.to])))
			continue
		}
		head := []byte{proto, 0, 0, 0}
		word := uint16(p.from)
		if p.more {
			word |= 1
		}
		binary.BigEndian.PutUint16(head[2:], word)
		head = append(binary.BigEndian.AppendUint32(head, id), body[p.from:p.to]...)
		frames = append(frames, build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolIPv6Fragment), raw(head)))
	}
	return frames
}

// segment is a SYN to port 22 with n bytes of data, its IP header left out.
func segment(t testing.TB, n int) []byte {
	t.Helper()
	return build(t, ip4(layers.IPProtocolTCP), syn(), payload(n))[20:]
}

// In whatever order the fragments come, the segment is seen once, with the one
// that completes it, and is the one that was sent.
func TestFragments(t *testing.T) {
	body := segment(t, 3000)
	for _, v6 := range []bool{false, true} {
		for seed := range uint64(20) {
			parts := fragmented(t, v6, 6, 77, body, pieces(len(body), 8*(1+int(seed)*23)))
			rand.New(rand.NewPCG(seed, 1)).Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			dec, set := decode.New(everything()), &record.Set{}
			for i, data := range parts {
				if err := dec.Decode(ethernet, data, len(data), set); err != nil {
					t.Fatal(err)
				}
				last := i == len(parts)-1
				if set.Have.Has(record.TypeTCP) != last || set.HasSegment != last {
					t.Fatalf("v6 %v, fragment %d of %d: records %b", v6, i+1, len(parts), set.Have)
				}
				if len(parts) > 1 && !set.IPv4.IsFragment && !set.IPv6.IsFragment || set.Proto != 6 {
					t.Errorf("not seen as a fragment: %+v", set.Header)
				}
			}
			r := &set.TCP
			if !r.SYN || r.DstPort != 22 || set.DstPort != 22 || r.PayloadSize != 3000 || !bytes.Equal(r.Payload, payload(3000)) {
				t.Errorf("v6 %v: %d bytes of %+v", v6, len(r.Payload), set.Header)
			}
			if !bytes.Equal(set.Segment.Payload, r.Payload) || set.Segment.Flags != record.FlagSYN {
				t.Errorf("segment %+v", set.Segment)
			}
			// For an alert the packet is decoded again, elsewhere.
			again, other := decode.Again(dec, everything()), &record.Set{Header: set.Header}
			data := parts[len(parts)-1]
			if err := again.Decode(ethernet, data, len(data), other); err != nil || other.TCP.PayloadSize != 3000 || !other.TCP.SYN {
				t.Errorf("again: %v, %+v", err, other.TCP)
			}
			if n := dec.Fragments(); n.Reassembled != min(1, uint64(len(parts)-1)) {
				t.Errorf("%+v", n)
			}
		}
	}
}

func TestSingleFragments(t *testing.T) {
	body := segment(t, 100)
	for _, tt := range []struct {
		name       string
		v6         bool
		p          piece
		tcp, ports bool
	}{
		{"first", false, piece{0, 64, true}, false, true},
		{"later", false, piece{24, 64, true}, false, false},
		{"last", false, piece{24, len(body), false}, false, false},
		{"IPv6 first", true, piece{0, 64, true}, false, true},
		{"IPv6 later", true, piece{64, 80, true}, false, false},
		{"IPv6 atomic", true, piece{0, len(body), false}, true, true},
	} {
		set := decoded(t, ethernet, fragmented(t, tt.v6, 6, 9, body, []piece{tt.p})[0])
		if set.Have.Has(record.TypeTCP) != tt.tcp || set.Proto != 6 || (set.DstPort == 22) != tt.ports {
			t.Errorf("%s: records %b, header %+v", tt.name, set.Have, set.Header)
		}
		if !set.IPv4.IsFragment && !set.IPv6.IsFragment {
			t.Errorf("%s: not seen as a fragment", tt.name)
		}
	}
}

// A fragment that was cut by the snap length cannot be put together: the first
// one shows what it has.
func TestCutFragment(t *testing.T) {
	body := segment(t, 1000)
	data := fragmented(t, false, 6, 9, body, []piece{{0, 800, true}})[0]
	set, err := try(ethernet, data[:14+20+40+10], len(data))
	if err != nil || !set.TCP.SYN || set.TCP.DstPort != 22 || set.TCP.PayloadSize != 760 {
		t.Errorf("%v: %+v", err, set.TCP)
	}
}

func TestFragmentsThatCannotBe(t *testing.T) {
	body := segment(t, 200)
	for _, tt := range []struct {
		name  string
		v6    bool
		parts []piece
	}{
		{"overlap", false, []piece{{0, 64, true}, {56, 120, true}}},
		{"overlap in IPv6", true, []piece{{0, 64, true}, {56, 120, true}}},
		{"two ends", false, []piece{{80, 120, false}, {120, 128, false}}},
		{"behind the end", true, []piece{{80, 120, false}, {120, 128, true}}},
		{"no multiple of 8", true, []piece{{0, 63, true}}},
		{"empty", false, []piece{{8, 8, true}}},
	} {
		dec, set := decode.New(everything()), &record.Set{}
		var err error
		for _, data := range fragmented(t, tt.v6, 6, 5, body, tt.parts) {
			err = dec.Decode(ethernet, data, len(data), set)
		}
		var e *decode.Error
		if !errors.As(err, &e) || e.Layer != decode.LayerFragment || set.Have.Has(record.TypeTCP) || dec.Errors().Of(decode.LayerFragment) != 1 {
			t.Errorf("%s: %v, records %b, %v", tt.name, err, set.Have, dec.Errors())
		}
	}
}

// Only the first fragment of IPv6 says what is inside: who puts another number
// into the others is seen all the same, as by the receiver.
func TestFragmentsThatLieAboutWhatIsInside(t *testing.T) {
	body := segment(t, 200)
	var want record.Want
	want.Add(record.TypeTCP)
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		parts := fragmented(t, true, 6, 5, body, pieces(len(body), 160))
		parts[1][14+40] = 59 // no next header
		dec, set := decode.New(want), &record.Set{}
		for _, i := range order {
			if err := dec.Decode(ethernet, parts[i], len(parts[i]), set); err != nil {
				t.Fatal(err)
			}
		}
		if !set.Have.Has(record.TypeTCP) || set.Proto != 6 || set.DstPort != 22 {
			t.Errorf("order %v: records %b, %+v", order, set.Have, set.Header)
		}
	}
}

// A packet whose IP header says that it is longer than it was on the wire is
// dropped by receivers: its segment must not take the place of the real one.
func TestLongerThanTheWire(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		data := build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), syn(), payload(100))
		at := 14 + 2
		if v6 {
			data = build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolTCP), syn(), payload(100))
			at = 14 + 4
		}
		if set := decoded(t, ethernet, data[:100]); set.HasSegment { // no longer wire than that
			t.Errorf("v6 %v: a packet cut on the wire is a segment", v6)
		}
		if set, err := try(ethernet, data[:100], len(data)); err != nil || !set.HasSegment {
			t.Errorf("v6 %v: a packet cut by the snap length is none: %v", v6, err)
		}
		binary.BigEndian.PutUint16(data[at:], binary.BigEndian.Uint16(data[at:])+1)
		set := decoded(t, ethernet, data)
		if set.HasSegment || !set.TCP.SYN || set.TCP.PayloadSize != 101 {
			t.Errorf("v6 %v: segment %v, %+v", v6, set.HasSegment, set.TCP)
		}
	}
}

// Where only headers are asked for, nothing is collected.
func TestFragmentsNobodyAsksFor(t *testing.T) {
	var want record.Want
	want.Add(record.TypeIPv4)
	body := segment(t, 200)
	dec, set := decode.New(want), &record.Set{}
	for _, data := range fragmented(t, false, 6, 5, body, pieces(len(body), 64)) {
		if err := dec.Decode(ethernet, data, len(data), set); err != nil {
			t.Fatal(err)
		}
	}
	if n := dec.Fragments(); n.Reassembled != 0 {
		t.Errorf("%+v", n)
	}
}

// A flood of heads that never get a tail does not allocate.
func TestFragmentFloodDoesNotAllocate(t *testing.T) {
	data := fragmented(t, false, 6, 5, segment(t, 1400), []piece{{0, 1400, true}})[0]
	dec, set := decode.New(everything()), &record.Set{}
	id := uint16(0)
	flood := func() {
		id++
		binary.BigEndian.PutUint16(data[18:], id)
		if err := dec.Decode(ethernet, data, len(data), set); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		flood()
	}
	if n := testing.AllocsPerRun(1000, flood); n != 0 {
		t.Errorf("%v allocations a fragment", n)
	}
	if n := dec.Fragments(); n.Evicted < 1000 {
		t.Errorf("%+v", n)
	}
}

// Who scans in fragments amid a flood of heads from forged sources is seen, as
// long as the halves of a datagram come within some hundred packets.
func TestScanAmidAFlood(t *testing.T) {
	body := segment(t, 100)
	head := fragmented(t, false, 6, 5, body, []piece{{0, 64, true}})[0]
	dec, set := decode.New(everything()), &record.Set{}
	const scans, between = 200, 200
	seen, number := 0, uint32(0)
	flood := func() {
		for range between {
			number++
			binary.BigEndian.PutUint32(head[26:], number*2654435761) // the source
			if err := dec.Decode(ethernet, head, len(head), set); err != nil || set.HasSegment {
				t.Fatal(err, set.Have)
			}
		}
	}
	for i := range scans {
		for _, data := range fragmented(t, false, 6, uint32(1000+i), body, pieces(len(body), 64)) {
			if err := dec.Decode(ethernet, data, len(data), set); err != nil {
				t.Fatal(err)
			}
			flood()
			if set.Have.Has(record.TypeTCP) {
				t.Fatal("a head is a segment")
			}
		}
		seen = int(dec.Fragments().Reassembled)
	}
	// Three fragments with 400 others between: those fall into 64 compartments
	// of 16, six or seven into each.
	if seen < scans*95/100 {
		t.Errorf("%d of %d SYNs were seen", seen, scans)
	}
}
