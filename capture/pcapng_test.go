package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/netcap-guard/netcap-guard/capture"
)

// ngFile builds pcapng files block by block, in either byte order.
type ngFile struct {
	order binary.AppendByteOrder
	bytes []byte
}

func (f *ngFile) block(kind uint32, body []byte) *ngFile {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	size := uint32(len(body) + 12)
	f.bytes = f.order.AppendUint32(f.bytes, kind)
	f.bytes = f.order.AppendUint32(f.bytes, size)
	f.bytes = append(f.bytes, body...)
	f.bytes = f.order.AppendUint32(f.bytes, size)
	return f
}

// words makes a body of 32-bit numbers and bytes behind them.
func (f *ngFile) words(tail []byte, v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = f.order.AppendUint32(b, w)
	}
	return append(b, tail...)
}

func (f *ngFile) section() *ngFile {
	b := f.order.AppendUint32(nil, 0x1a2b3c4d)
	b = f.order.AppendUint16(b, 1)
	b = f.order.AppendUint16(b, 0)
	return f.block(0x0a0d0d0a, f.order.AppendUint64(b, ^uint64(0)))
}

// iface describes an interface; options are (code, value) pairs.
func (f *ngFile) iface(link uint16, snap uint32, options ...[]byte) *ngFile {
	b := f.order.AppendUint16(nil, link)
	b = f.order.AppendUint16(b, 0)
	b = f.order.AppendUint32(b, snap)
	for _, o := range options {
		b = append(b, o...)
	}
	return f.block(1, b)
}

func (f *ngFile) option(code uint16, value ...byte) []byte {
	b := f.order.AppendUint16(nil, code)
	b = f.order.AppendUint16(b, uint16(len(value)))
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func (f *ngFile) enhanced(iface uint32, ts uint64, data string) *ngFile {
	n := uint32(len(data))
	return f.block(6, f.words([]byte(data), iface, uint32(ts>>32), uint32(ts), n, n))
}

func open(t testing.TB, data []byte) capture.Source {
	t.Helper()
	src, err := capture.OpenReader(bytes.NewReader(data), "test.pcapng")
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestPcapngBlocks(t *testing.T) {
	for name, order := range map[string]binary.AppendByteOrder{"little endian": binary.LittleEndian, "big endian": binary.BigEndian} {
		t.Run(name, func(t *testing.T) {
			f := &ngFile{order: order}
			offset := order.AppendUint64(nil, 1000)
			f.section().
				iface(1, 0).
				iface(101, 0, f.option(9, 9), f.option(14, offset...), f.option(0)).
				iface(113, 4, f.option(9, 0x80|10)).
				iface(276, 0, f.option(9, 12)).
				block(0x0bad, []byte("unknown block")).
				enhanced(0, 1_000_001, "micros").
				enhanced(1, 5_000_000_007, "nanos, offset").
				enhanced(2, 3*1024+512, "binary").
				enhanced(3, 2_000_000_000_007, "picos")
			// A simple block: interface 0's, no time; an obsolete one with 3 drops.
			f.block(3, f.words([]byte("simple"), 6))
			obsolete := order.AppendUint16(nil, 1)
			obsolete = order.AppendUint16(obsolete, 3)
			f.block(2, append(obsolete, f.words([]byte("old"), 1, 0, 3, 60)...))
			// A new section forgets the interfaces.
			f.section().iface(228, 0).enhanced(0, 7, "second section")

			all, err := readAll(open(t, f.bytes))
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			want := []capture.Packet{
				{Data: []byte("micros"), Time: 1_000_001_000, Length: 6, Link: 1, Iface: 0},
				{Data: []byte("nanos, offset"), Time: 1005_000_000_007, Length: 13, Link: 101, Iface: 1},
				{Data: []byte("binary"), Time: 3_500_000_000, Length: 6, Link: 113, Iface: 2},
				{Data: []byte("picos"), Time: 2_000_000_000, Length: 5, Link: 276, Iface: 3},
				{Data: []byte("simple"), Length: 6, Link: 1},
				{Data: []byte("old"), Time: 1000_000_000_000 + 1<<32, Length: 60, Link: 101, Iface: 1},
				{Data: []byte("second section"), Time: 7000, Length: 14, Link: 228},
			}
			if len(all) != len(want) {
				t.Fatalf("%d packets, want %d", len(all), len(want))
			}
			for i, w := range want {
				g := all[i]
				if !bytes.Equal(g.Data, w.Data) || g.Time != w.Time || g.Length != w.Length || g.Link != w.Link || g.Iface != w.Iface || g.Number != uint64(i+1) {
					t.Errorf("packet %d: %+v (%q), want %+v", i, g, g.Data, w)
				}
			}
		})
	}
}

func TestPcapngSimpleBlockIsCutBySnapLength(t *testing.T) {
	f := &ngFile{order: binary.LittleEndian}
	f.section().iface(1, 5).block(3, f.words([]byte("12345"), 1000))
	all, err := readAll(open(t, f.bytes))
	if !errors.Is(err, io.EOF) || len(all) != 1 || string(all[0].Data) != "12345" || all[0].Length != 1000 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestPcapngUnknownLinkTypes(t *testing.T) {
	f := &ngFile{order: binary.LittleEndian}
	f.section().iface(162, 0).enhanced(0, 1, "private")
	if _, err := readAll(open(t, f.bytes)); !errors.Is(err, capture.ErrLinkType) {
		t.Errorf("only an unknown one: %v", err)
	}
	f = &ngFile{order: binary.LittleEndian}
	f.section().iface(162, 0).iface(1, 0).enhanced(0, 1, "private").enhanced(1, 2, "ethernet").enhanced(0, 3, "private")
	src := open(t, f.bytes)
	all, err := readAll(src)
	if !errors.Is(err, io.EOF) || len(all) != 1 || all[0].Number != 2 {
		t.Errorf("beside a known one: %+v, %v", all, err)
	}
	if got := src.Stats(); got != (capture.Stats{Received: 1, Unsupported: 2}) {
		t.Errorf("stats %+v", got)
	}
}

func TestPcapngDamage(t *testing.T) {
	start := func() *ngFile {
		return (&ngFile{order: binary.LittleEndian}).section().iface(1, 0).enhanced(0, 1, "good")
	}
	packet := func(v ...uint32) []byte { f := start(); return f.block(6, f.words([]byte("data"), v...)).bytes }
	badSize := func(size uint32) []byte {
		b := start().bytes
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, 6), size)
	}
	many := start()
	for range 1 << 14 {
		many.iface(1, 0)
	}
	for name, data := range map[string][]byte{
		"interface not described": packet(1, 0, 0, 4, 4),
		"captured beyond block":   packet(0, 0, 0, 5, 5),
		"huge captured length":    packet(0, 0, 0, 0xffffffff, 4),
		"block of 8 bytes":        append(badSize(8), make([]byte, 40)...),
		"block of 13 bytes":       append(badSize(13), make([]byte, 40)...),
		"block of 4 GB":           append(badSize(0xfffffffc), make([]byte, 40)...),
		"block of 100 MB":         append(badSize(100<<20), make([]byte, 40)...),
		"packet block too short":  start().block(6, make([]byte, 8)).bytes,
		"interface block short":   start().block(1, make([]byte, 4)).bytes,
		"too many interfaces":     many.bytes,
		"second section no magic": append(start().bytes, append([]byte("\n\r\r\n\x1c\x00\x00\x00"), make([]byte, 40)...)...),
	} {
		t.Run(name, func(t *testing.T) {
			all, err := readAll(open(t, append(data, make([]byte, 12)...)))
			if len(all) != 1 || !errors.Is(err, capture.ErrTruncated) {
				t.Errorf("%d packets, then %v", len(all), err)
			}
		})
	}
}

// gopacket's reader is the oracle on well-formed files.
func TestPcapngAgreesWithGopacket(t *testing.T) {
	data := pcapngFile(t)
	oracle, err := pcapgo.NewNgReader(bytes.NewReader(data), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	all, err := readAll(open(t, data))
	if !errors.Is(err, io.EOF) || len(all) == 0 {
		t.Fatalf("%d packets, %v", len(all), err)
	}
	for i, p := range all {
		want, ci, err := oracle.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.Data, want) || p.Time != ci.Timestamp.UnixNano() || p.Length != ci.Length {
			t.Errorf("packet %d: %+v, gopacket %+v", i, p, ci)
		}
	}
	if oracle.LinkType() != layers.LinkTypeEthernet {
		t.Error("oracle's link type")
	}
}
