package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture"
)

// fuzzFile reads data as a capture: no panic, an end, and errors of the kinds
// that callers know.
func fuzzFile(t *testing.T, data []byte) {
	src, err := capture.OpenReader(bytes.NewReader(data), "fuzz")
	if err != nil {
		if !errors.Is(err, capture.ErrFormat) && !errors.Is(err, capture.ErrLinkType) && !errors.Is(err, capture.ErrTruncated) {
			t.Fatalf("open: %v", err)
		}
		return
	}
	total := 0
	var p capture.Packet
	for packets := 0; ; packets++ {
		err := src.Next(&p)
		if errors.Is(err, io.EOF) || errors.Is(err, capture.ErrTruncated) || errors.Is(err, capture.ErrLinkType) {
			break
		}
		if err != nil {
			t.Fatalf("next: %v", err)
		}
		if total += len(p.Data); p.Length < len(p.Data) || !p.Link.Supported() {
			t.Fatalf("packet %+v", p)
		}
		if packets > len(data) && data[0] != 0x1f {
			t.Fatal("more packets than bytes")
		}
	}
	if total > len(data) && data[0] != 0x1f {
		t.Fatalf("%d bytes of packets in a file of %d", total, len(data))
	}
}

func FuzzPcapReader(f *testing.F) {
	micros := pcapFile(f, layers.LinkTypeEthernet, false)
	f.Add(micros[:200])
	f.Add(bigEndian(pcapFile(f, layers.LinkTypeLinuxSLL, true)))
	f.Add(gzipped(f, micros))
	f.Fuzz(fuzzFile)
}

func FuzzPcapng(f *testing.F) {
	f.Add(pcapngFile(f)[:300])
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		n := &ngFile{order: order}
		n.section().iface(1, 0, n.option(9, 0xff), n.option(14, make([]byte, 8)...)).enhanced(0, 1<<60, "data").
			block(3, n.words([]byte("simple"), 6)).block(5, nil).section()
		f.Add(n.bytes)
	}
	f.Fuzz(fuzzFile)
}
