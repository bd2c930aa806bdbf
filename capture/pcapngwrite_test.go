package capture_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/gopacket/pcapgo"

	"github.com/netcap-guard/netcap-guard/capture"
)

// written is a file of the packets, each with the comment.
func written(t testing.TB, comment string, packets ...capture.Packet) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := capture.NewPcapngWriter(&file, capture.PcapngSection{Application: "test 1.0", Comment: comment})
	if err != nil {
		t.Fatal(err)
	}
	for i := range packets {
		if err := w.Write(&packets[i], comment); err != nil {
			t.Fatal(err)
		}
	}
	return file.Bytes()
}

func TestPcapngWriter(t *testing.T) {
	packets := []capture.Packet{
		{Data: []byte("ethernet"), Time: 1_700_000_000_123_456_789, Length: 8, Link: capture.LinkEthernet, Iface: 2},
		{Data: []byte("cut"), Time: 1_700_000_000_123_456_790, Length: 1500, Link: capture.LinkEthernet, Iface: 2},
		{Data: []byte("of another interface"), Time: 5, Length: 20, Link: capture.LinkEthernet, Iface: 7},
		{Data: []byte{}, Time: -5, Length: 0, Link: capture.LinkLinuxSLL, Iface: 7},
	}
	data := written(t, "Block SSH \xff Brute Force", packets...)
	all, err := readAll(open(t, data))
	if !errors.Is(err, io.EOF) || len(all) != len(packets) {
		t.Fatalf("%d packets, %v", len(all), err)
	}
	for i, iface := range []int{0, 0, 1, 2} {
		want, got := packets[i], all[i]
		if !bytes.Equal(got.Data, want.Data) || got.Time != want.Time || got.Length != want.Length || got.Link != want.Link || got.Iface != iface {
			t.Errorf("packet %d: %+v, want %+v", i, got, want)
		}
	}
	if n := bytes.Count(data, []byte("Block SSH  Brute Force")); n != 1+len(packets) {
		t.Errorf("the comment stands in the file %d times", n)
	}
}

// gopacket's reader takes what is written.
func TestPcapngWriterAgreesWithGopacket(t *testing.T) {
	data := written(t, "rule", capture.Packet{Data: []byte("first"), Time: 1_700_000_000_000_000_001, Length: 50, Link: capture.LinkEthernet},
		capture.Packet{Data: []byte("second"), Time: 1_700_000_000_000_000_002, Length: 6, Link: capture.LinkEthernet})
	r, err := pcapgo.NewNgReader(bytes.NewReader(data), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.SectionInfo(); got.Application != "test 1.0" || got.Comment != "rule" {
		t.Errorf("section %+v", got)
	}
	for i, want := range []string{"first", "second"} {
		got, ci, err := r.ReadPacketData()
		if err != nil || string(got) != want || ci.Timestamp.UnixNano() != 1_700_000_000_000_000_001+int64(i) || i == 0 && ci.Length != 50 {
			t.Errorf("packet %d: %q %+v, %v", i, got, ci, err)
		}
	}
}

func TestPcapngWriterRefuses(t *testing.T) {
	w, err := capture.NewPcapngWriter(io.Discard, capture.PcapngSection{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(&capture.Packet{Data: make([]byte, 1<<20+1), Link: 1}, ""); err == nil {
		t.Error("a packet that no reader takes was written")
	}
	if err := w.Write(&capture.Packet{Link: 1 << 16}, ""); err == nil {
		t.Error("a link type of 17 bits was written")
	}
	broken, err := capture.NewPcapngWriter(&failing{after: 1}, capture.PcapngSection{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := broken.Write(&capture.Packet{Link: 1}, ""); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a write that fails: %v", err)
		}
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// What is written is read again as it was.
func FuzzPcapngWriter(f *testing.F) {
	f.Add([]byte("some bytes of a packet"), "rule", int64(1_700_000_000_123_456_789), 60, uint8(3))
	f.Add([]byte{}, "", int64(-1), -1, uint8(0))
	f.Add([]byte{1}, strings.Repeat("x", 70000), int64(1)<<62, 1<<30, uint8(255))
	f.Fuzz(func(t *testing.T, data []byte, comment string, at int64, length int, kind uint8) {
		if len(data) > 1<<20 || length > 1<<20 {
			return
		}
		links := []capture.LinkType{capture.LinkEthernet, capture.LinkRaw, capture.LinkLinuxSLL, capture.LinkNFLOG}
		var packets []capture.Packet
		for i := range 1 + int(kind>>4) {
			packets = append(packets, capture.Packet{Data: data[i%(len(data)+1):], Time: at + int64(i), Length: length, Link: links[(int(kind)+i)%len(links)], Iface: i % 3})
		}
		all, err := readAll(open(t, written(t, comment, packets...)))
		if !errors.Is(err, io.EOF) || len(all) != len(packets) {
			t.Fatalf("%d packets of %d, %v", len(all), len(packets), err)
		}
		for i, got := range all {
			want := packets[i]
			if !bytes.Equal(got.Data, want.Data) || got.Time != want.Time || got.Length != max(want.Length, len(want.Data)) || got.Link != want.Link {
				t.Fatalf("packet %d: %+v, want %+v", i, got, want)
			}
		}
	})
}
