package capture_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/netcap-guard/netcap-guard/capture"
)

// sample is what every format of the tests below holds.
var sample = []struct {
	data string
	at   time.Time
}{
	{"first packet", time.Unix(1700000000, 123456000)},
	{"", time.Unix(1700000000, 123457000)},
	{strings.Repeat("x", 3000), time.Unix(1700000001, 0)},
	{"last", time.Unix(1600000000, 999999000)},
}

// pcapFile writes the sample with gopacket's writer.
func pcapFile(t testing.TB, link layers.LinkType, nanos bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if nanos {
		w = pcapgo.NewWriterNanos(&b)
	}
	if err := w.WriteFileHeader(65535, link); err != nil {
		t.Fatal(err)
	}
	for _, s := range sample {
		ci := gopacket.CaptureInfo{Timestamp: s.at, CaptureLength: len(s.data), Length: len(s.data) + 7}
		if err := w.WritePacket(ci, []byte(s.data)); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// pcapngFile writes the sample with gopacket's writer.
func pcapngFile(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sample {
		ci := gopacket.CaptureInfo{Timestamp: s.at, CaptureLength: len(s.data), Length: len(s.data) + 7}
		if err := w.WritePacket(ci, []byte(s.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bigEndian turns a little-endian pcap file's numbers round.
func bigEndian(file []byte) []byte {
	out := bytes.Clone(file)
	swap := func(at, n int) {
		for i, j := at, at+n-1; i < j; i, j = i+1, j-1 {
			out[i], out[j] = out[j], out[i]
		}
	}
	for _, f := range [][2]int{{0, 4}, {4, 2}, {6, 2}, {8, 4}, {12, 4}, {16, 4}, {20, 4}} {
		swap(f[0], f[1])
	}
	for at := 24; at < len(file); {
		n := int(binary.LittleEndian.Uint32(file[at+8:]))
		for i := range 4 {
			swap(at+4*i, 4)
		}
		at += 16 + n
	}
	return out
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readAll reads a capture to its end and returns copies of the packets.
func readAll(src capture.Source) ([]capture.Packet, error) {
	var all []capture.Packet
	for {
		var p capture.Packet
		if err := src.Next(&p); err != nil {
			return all, err
		}
		p.Data = bytes.Clone(p.Data)
		all = append(all, p)
	}
}

func TestFormats(t *testing.T) {
	micros, nanos := pcapFile(t, layers.LinkTypeEthernet, false), pcapFile(t, layers.LinkTypeEthernet, true)
	files := map[string][]byte{
		"microseconds, little endian": micros,
		"nanoseconds, little endian":  nanos,
		"microseconds, big endian":    bigEndian(micros),
		"nanoseconds, big endian":     bigEndian(nanos),
		"gzip":                        gzipped(t, micros),
		"pcapng":                      pcapngFile(t),
		"pcapng, gzip":                gzipped(t, pcapngFile(t)),
	}
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			src, err := capture.OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			checkSample(t, src)
			// The same in pieces of one byte, as a pipe may give it.
			src, err = capture.OpenReader(iotest.OneByteReader(bytes.NewReader(data)), name)
			if err != nil {
				t.Fatal(err)
			}
			checkSample(t, src)
		})
	}
}

func checkSample(t *testing.T, src capture.Source) {
	t.Helper()
	all, err := readAll(src)
	if !errors.Is(err, io.EOF) {
		t.Fatalf("ends with %v", err)
	}
	if len(all) != len(sample) {
		t.Fatalf("%d packets, want %d", len(all), len(sample))
	}
	for i, want := range sample {
		p := all[i]
		if string(p.Data) != want.data || p.Time != want.at.UnixNano() || p.Length != len(want.data)+7 ||
			p.Link != capture.LinkEthernet || p.Number != uint64(i+1) {
			t.Errorf("packet %d: %d bytes of %d, time %d, link %d, number %d", i, len(p.Data), p.Length, p.Time, p.Link, p.Number)
		}
	}
	if got := src.Stats(); got != (capture.Stats{Received: uint64(len(sample))}) {
		t.Errorf("stats %+v", got)
	}
	if err := src.Next(new(capture.Packet)); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if err := errors.Join(src.Close(), src.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := src.Next(new(capture.Packet)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestStandardInput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(path, pcapFile(t, layers.LinkTypeEthernet, false), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	saved := os.Stdin
	os.Stdin = f
	defer func() { os.Stdin = saved }()
	src, err := capture.OpenFile("-")
	if err != nil {
		t.Fatal(err)
	}
	checkSample(t, src)
}

// Packets that lie ready are delivered before the pipe's writer goes on.
func TestPipeIsNotReadAhead(t *testing.T) {
	file := pcapFile(t, layers.LinkTypeEthernet, false)
	r, w := io.Pipe()
	first := 24 + 16 + len(sample[0].data)
	go func() {
		_, _ = w.Write(file[:first]) // the reader sees what is missing
	}()
	src, err := capture.OpenReader(r, "pipe")
	if err != nil {
		t.Fatal(err)
	}
	var p capture.Packet
	if err := src.Next(&p); err != nil || string(p.Data) != sample[0].data {
		t.Fatalf("%q, %v", p.Data, err)
	}
	_ = w.CloseWithError(errors.New("broken pipe"))
	if err := src.Next(&p); err == nil || errors.Is(err, capture.ErrTruncated) || !strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("after the break: %v", err)
	}
	_ = src.Close()
}

func TestOpenErrors(t *testing.T) {
	good := pcapFile(t, layers.LinkTypeEthernet, false)
	version := bytes.Clone(good)
	version[4] = 3
	for _, tt := range []struct {
		name string
		data []byte
		want error
		text string
	}{
		{"empty", nil, capture.ErrFormat, "empty"},
		{"three bytes", []byte("abc"), capture.ErrFormat, "3 bytes"},
		{"text", []byte("# a rule file\n"), capture.ErrFormat, "begins with 23 20 61 20"},
		{"header cut", good[:20], capture.ErrTruncated, ""},
		{"version 3", version, capture.ErrFormat, "version 3.4"},
		{"link type", pcapFile(t, 162, false), capture.ErrLinkType, "162"},
		{"gzip of nothing", gzipped(t, nil), capture.ErrFormat, "empty"},
		{"gzip of text", gzipped(t, []byte("hello")), capture.ErrFormat, "begins with"},
		{"gzip header alone", []byte{0x1f, 0x8b, 8, 0}, capture.ErrFormat, "gzip"},
		{"pcapng without magic", append([]byte("\n\r\r\n"), make([]byte, 40)...), capture.ErrFormat, "byte-order"},
		{"pcapng cut", pcapngFile(t)[:15], capture.ErrTruncated, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := capture.OpenReader(bytes.NewReader(tt.data), "a.pcap")
			if !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.text) || !strings.Contains(fmt.Sprint(err), "a.pcap") {
				t.Errorf("error %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
	if _, err := capture.OpenFile(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	dir := t.TempDir()
	_, err := capture.OpenFile(dir)
	if got, want := fmt.Sprint(err), "read "+dir+": is a directory"; got != want {
		t.Errorf("a directory: %q, want %q", got, want)
	}
}

// A file cut at any byte gives every whole packet and then ErrTruncated, or
// the plain end between two packets.
func TestCutAnywhere(t *testing.T) {
	for name, file := range map[string][]byte{
		"pcap":   pcapFile(t, layers.LinkTypeEthernet, false),
		"pcapng": pcapngFile(t),
		"gzip":   gzipped(t, pcapFile(t, layers.LinkTypeEthernet, false)),
	} {
		t.Run(name, func(t *testing.T) {
			ends := 0
			for cut := 24; cut <= len(file); cut++ {
				src, err := capture.OpenReader(bytes.NewReader(file[:cut]), name)
				if err != nil {
					if !errors.Is(err, capture.ErrTruncated) && !errors.Is(err, capture.ErrFormat) {
						t.Fatalf("cut at %d: %v", cut, err)
					}
					continue
				}
				all, err := readAll(src)
				if errors.Is(err, io.EOF) {
					ends++
				} else if !errors.Is(err, capture.ErrTruncated) {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				if cut == len(file) && (len(all) != len(sample) || !errors.Is(err, io.EOF)) {
					t.Errorf("whole file: %d packets, %v", len(all), err)
				}
			}
			// The file's end and the places between packets and blocks.
			if want := map[string]int{"pcap": len(sample) + 1, "pcapng": len(sample) + 2, "gzip": 1}[name]; ends != want {
				t.Errorf("%d cuts end cleanly, want %d", ends, want)
			}
		})
	}
}

func TestBadRecordLength(t *testing.T) {
	file := pcapFile(t, layers.LinkTypeEthernet, false)
	second := 24 + 16 + len(sample[0].data)
	binary.LittleEndian.PutUint32(file[second+8:], 0xfffffff0)
	src, err := capture.OpenReader(bytes.NewReader(file), "bad.pcap")
	if err != nil {
		t.Fatal(err)
	}
	all, err := readAll(src)
	if len(all) != 1 || !errors.Is(err, capture.ErrTruncated) || !strings.Contains(err.Error(), "packet 2") {
		t.Errorf("%d packets, then %v", len(all), err)
	}
}

func TestLinkTypes(t *testing.T) {
	supported := map[layers.LinkType]bool{}
	for _, link := range []layers.LinkType{0, 1, 8, 9, 12, 14, 50, 51, 100, 101, 104, 105, 107, 108, 113, 127, 228, 229, 239} {
		supported[link] = true
	}
	for link := range layers.LinkType(255) {
		_, err := capture.OpenReader(bytes.NewReader(pcapFile(t, link, false)), "x")
		if supported[link] != (err == nil) || err != nil && !errors.Is(err, capture.ErrLinkType) {
			t.Errorf("link type %d: %v", link, err)
		}
	}
	if !capture.LinkLinuxSLL2.Supported() || capture.LinkType(277).Supported() {
		t.Error("SLL2 is 276")
	}
}

// The frame check sequence's length shares a word with the link type.
func TestLinkTypeBesideFCSLength(t *testing.T) {
	file := pcapFile(t, layers.LinkTypeEthernet, false)
	file[23] = 0x24
	src, err := capture.OpenReader(bytes.NewReader(file), "fcs")
	if err != nil {
		t.Fatal(err)
	}
	checkSample(t, src)
}

// Before version 2.3 a record's lengths stood the other way round, and 2.3 was
// written both ways.
func TestOldLengthOrder(t *testing.T) {
	for minor, swapped := range map[byte]bool{4: false, 3: true, 2: true, 0: true} {
		file := pcapFile(t, layers.LinkTypeEthernet, false)
		file[6] = minor
		for at := 24; at < len(file) && swapped; {
			captured := binary.LittleEndian.Uint32(file[at+8:])
			copy(file[at+8:], file[at+12:at+16])
			binary.LittleEndian.PutUint32(file[at+12:], captured)
			at += 16 + int(captured)
		}
		src, err := capture.OpenReader(bytes.NewReader(file), "old")
		if err != nil {
			t.Fatal(err)
		}
		checkSample(t, src)
	}
}

// A reader that gives nothing for ever is not asked for ever.
func TestReaderWithoutProgress(t *testing.T) {
	file := pcapFile(t, layers.LinkTypeEthernet, false)
	src, err := capture.OpenReader(io.MultiReader(bytes.NewReader(file[:60]), stuck{}), "stuck")
	if err != nil {
		t.Fatal(err)
	}
	if all, err := readAll(src); len(all) != 1 || !errors.Is(err, io.ErrNoProgress) || errors.Is(err, capture.ErrTruncated) {
		t.Errorf("%d packets, %v", len(all), err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }
