package stream_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

// TestCapturesCut reads the captures of the folders where most can go wrong,
// each cut off at places all over its first 2,000 bytes, and each packet of
// what is left whole and cut, through decoder and reassembly together: nothing
// panics or hangs, nothing grows beyond its bounds, and no error but the known
// ones.
func TestCapturesCut(t *testing.T) {
	dir := os.Getenv("NETCAP_GUARD_CAPTURES")
	if dir == "" {
		t.Skip("NETCAP_GUARD_CAPTURES is not set: no captures to read")
	}
	const reach, step = 2000, 23
	c := newCutReader()
	files := 0
	for _, folder := range []string{"malformed", "ipv6", "encapsulated", "dns-tunnel", "sqli-http"} {
		paths, err := filepath.Glob(filepath.Join(dir, folder, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			head, err := beginning(path, reach)
			if err != nil {
				t.Fatal(err)
			}
			files++
			for n := files % step; n < len(head)+step; n += step {
				c.read(t, path, head[:min(n, len(head))])
			}
		}
	}
	t.Logf("%d captures, %d packets, %d records, %v, %+v", files, c.packets, c.sink.n, c.dec.Errors(), c.table.Stats())
	if files < 500 || c.packets < 10000 || c.sink.n < 1000 {
		t.Errorf("only %d captures, %d packets, %d records", files, c.packets, c.sink.n)
	}
}

func beginning(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	head, err := io.ReadAll(io.LimitReader(f, n))
	return head, errors.Join(err, f.Close())
}

// cutReader is a decoder and a small table, the same for all captures: what
// one leaves behind the next one meets.
type cutReader struct {
	dec     *decode.Decoder
	table   *stream.Table
	sink    *fullSink
	packets int
}

const (
	cutConnections = 64
	cutMemory      = 256 << 10
)

func newCutReader() *cutReader {
	c := &cutReader{dec: decode.New(everything()), sink: &fullSink{}}
	c.dec.SetDecap(true)
	c.table = stream.New(everything(), c.sink, stream.Config{Connections: cutConnections, Memory: cutMemory, PerConnection: 32 << 10, DNS: c.dec.DNS})
	c.sink.table = c.table
	return c
}

// elsewhere is another address for each cut: the same bytes are then another
// connection, not the old one sent again.
func elsewhere(a netip.Addr, cut int) netip.Addr {
	if !a.IsValid() {
		return a
	}
	b := a.AsSlice()
	b[0], b[1] = b[0]^byte(cut>>8), b[1]^byte(cut)
	other, _ := netip.AddrFromSlice(b)
	return other
}

func (c *cutReader) read(t *testing.T, path string, data []byte) {
	known := func(err error) bool {
		return errors.Is(err, io.EOF) || errors.Is(err, capture.ErrFormat) || errors.Is(err, capture.ErrTruncated) || errors.Is(err, capture.ErrLinkType)
	}
	src, err := capture.OpenReader(bytes.NewReader(data), path)
	if err != nil {
		if !known(err) {
			t.Fatalf("%s, %d bytes: %v", path, len(data), err)
		}
		return
	}
	var (
		p   capture.Packet
		set record.Set
	)
	for err = src.Next(&p); err == nil; err = src.Next(&p) {
		for _, n := range []int{len(p.Data), len(data) % (len(p.Data) + 1)} {
			for _, length := range []int{p.Length, n} { // cut by the snap length, and on the wire
				c.packets++
				set.Header = record.Header{Time: p.Time, Packet: p.Number}
				var layer *decode.Error
				if err := c.dec.Decode(uint32(p.Link), p.Data[:n:n], length, &set); err != nil && !errors.As(err, &layer) {
					t.Fatalf("%s, %d bytes: packet %d: %v", path, len(data), p.Number, err)
				}
				set.Src, set.Dst = elsewhere(set.Src, len(data)), elsewhere(set.Dst, len(data))
				c.table.Segment(&set, false)
			}
		}
	}
	if s := c.table.Stats(); !known(err) || s.Open > cutConnections || s.Bytes > cutMemory {
		t.Fatalf("%s, %d bytes: %v, %+v", path, len(data), err, s)
	}
}
