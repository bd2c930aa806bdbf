package yardstick_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/record"
)

// The bytes of a seed are part of what benchmark figures mean: whoever changes
// the mix changes this sum, and says so.
func TestBytesOfASeed(t *testing.T) {
	sum := sha256.New()
	size, err := yardstick.Write(sum, 1, 20000)
	if err != nil {
		t.Fatal(err)
	}
	const want = "8061da96aa96230aa6207e0f33ce0e40c8a22a0c71e4fa61ff06bff5a0df144a"
	if got := hex.EncodeToString(sum.Sum(nil)); got != want || size < 20000*300 {
		t.Errorf("%d bytes, SHA-256 %s, want %s", size, got, want)
	}
	other := sha256.New()
	if _, err := yardstick.Write(other, 2, 20000); err != nil || bytes.Equal(other.Sum(nil), sum.Sum(nil)) {
		t.Errorf("another seed gives the same bytes (%v)", err)
	}
}

func TestWriteSaysWhenItCannot(t *testing.T) {
	r, w := io.Pipe()
	_ = r.Close()
	if _, err := yardstick.Write(w, 1, 20000); err == nil {
		t.Error("no error from a closed pipe")
	}
}

// tally is what a stretch of the mix consists of.
type tally struct {
	packets, bytes int
	kinds          map[string]int
	sources        map[string]bool
}

// add counts one decoded packet under every kind that it is of.
func (c *tally) add(data []byte, set *record.Set) {
	c.packets++
	c.bytes += len(data)
	c.sources[set.Src.String()] = true
	tcp, dns := set.Have.Has(record.TypeTCP), set.Have.Has(record.TypeDNS)
	port := func(p uint16) bool { return set.SrcPort == p || set.DstPort == p }
	for name, is := range map[string]bool{
		"VLAN":           data[12] == 0x81,
		"IPv6":           set.Have.Has(record.TypeIPv6),
		"TCP":            tcp,
		"bare SYN":       tcp && set.TCP.SYN && !set.TCP.ACK,
		"HTTP":           tcp && port(80) && set.TCP.PayloadSize > 0,
		"SSH":            tcp && port(22) && set.TCP.PayloadSize > 0,
		"UDP but DNS":    set.Have.Has(record.TypeUDP) && !dns,
		"DNS":            dns,
		"DNS query":      dns && !set.DNS.QR,
		"long DNS query": dns && !set.DNS.QR && len(set.DNS.Questions[0].Name) > 100,
		"ICMP":           set.Have.Has(record.TypeICMPv4) || set.Have.Has(record.TypeICMPv6),
	} {
		if is {
			c.kinds[name]++
		}
	}
}

// measure decodes the first packets of a seed.
func measure(t *testing.T, seed uint64, packets int) *tally {
	t.Helper()
	var want record.Want
	for _, typ := range record.Types() {
		want.Add(typ, "Questions")
	}
	c := &tally{kinds: map[string]int{}, sources: map[string]bool{}}
	dec, set, g, last := decode.New(want), &record.Set{}, yardstick.New(seed), yardstick.Start
	for i := range packets {
		data, at := g.Next()
		if at <= last {
			t.Fatalf("packet %d goes back in time", i)
		}
		last = at
		if len(data) < 60 || len(data) > 1514+4 {
			t.Fatalf("packet %d has %d bytes", i, len(data))
		}
		if err := dec.Decode(1, data, len(data), set); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		c.add(data, set)
	}
	return c
}

func TestMix(t *testing.T) {
	c := measure(t, 7, 200000)
	for _, tt := range []struct {
		name      string
		low, high float64 // percent
	}{
		{"VLAN", 6, 6.5}, {"IPv6", 14, 16}, {"TCP", 79.5, 80.5}, {"bare SYN", 11, 13}, {"HTTP", 8, 16}, {"SSH", 2, 8},
		{"UDP but DNS", 9.7, 10.3}, {"DNS", 7.8, 8.2}, {"DNS query", 3.9, 4.1}, {"long DNS query", 0.01, 0.04}, {"ICMP", 1.9, 2.1},
	} {
		share := float64(c.kinds[tt.name]) * 100 / float64(c.packets)
		t.Logf("%-14s %6.2f %%", tt.name, share)
		if share < tt.low || share > tt.high {
			t.Errorf("%s: %.2f %%, want %v to %v", tt.name, share, tt.low, tt.high)
		}
	}
	mean := c.bytes / c.packets
	t.Logf("%d bytes a packet, %d sources", mean, len(c.sources))
	if mean < 600 || mean > 680 || len(c.sources) < 15000 {
		t.Errorf("%d bytes a packet, %d sources", mean, len(c.sources))
	}
}

// Connections are such that a reassembler finds no hole: each side's sequence
// numbers follow on, from the handshake to the last ACK.
func TestConnectionsHaveNoHoles(t *testing.T) {
	type side struct {
		src, dst     string
		sport, dport uint16
	}
	var want record.Want
	want.Add(record.TypeTCP)
	dec, set, g := decode.New(want), record.Set{}, yardstick.New(3)
	next := map[side]uint32{}
	segments := 0
	for i := range 100000 {
		data, _ := g.Next()
		if err := dec.Decode(1, data, len(data), &set); err != nil {
			t.Fatal(err)
		}
		if !set.Have.Has(record.TypeTCP) || set.TCP.DataOffset == 5 { // a lone SYN has no options
			continue
		}
		s := side{set.Src.String(), set.Dst.String(), set.SrcPort, set.DstPort}
		r := &set.TCP
		if expected, known := next[s]; known && !r.SYN && expected != r.SeqNum {
			t.Fatalf("packet %d: sequence number %d, want %d: %+v", i, r.SeqNum, expected, s)
		} else if known && !r.SYN {
			segments++
		}
		next[s] = r.SeqNum + uint32(r.PayloadSize)
		if r.SYN || r.FIN {
			next[s]++
		}
	}
	if segments < 50000 {
		t.Errorf("only %d segments followed on", segments)
	}
}

// Checksums are those that gopacket computes.
func TestChecksums(t *testing.T) {
	g := yardstick.New(5)
	checked := 0
	for range 5000 {
		data, _ := g.Next()
		packet := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
		var rebuilt []gopacket.SerializableLayer
		var network gopacket.NetworkLayer
	rebuild:
		for _, l := range packet.Layers() {
			if n, ok := l.(gopacket.NetworkLayer); ok {
				network = n
			}
			if s, ok := l.(interface {
				SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
			}); ok {
				if err := s.SetNetworkLayerForChecksum(network); err != nil {
					t.Fatal(err)
				}
			}
			s, ok := l.(gopacket.SerializableLayer)
			if !ok {
				t.Fatalf("layer %v", l.LayerType())
			}
			rebuilt = append(rebuilt, s)
			switch l.(type) {
			case *layers.TCP, *layers.UDP, *layers.ICMPv4, *layers.ICMPv6:
				rebuilt = append(rebuilt, gopacket.Payload(l.LayerPayload()))
				checked++
				break rebuild
			}
		}
		b := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{ComputeChecksums: true}, rebuilt...); err != nil {
			t.Fatal(err)
		}
		if n := len(b.Bytes()); n > len(data) || !bytes.Equal(b.Bytes(), data[:n]) {
			t.Fatalf("gopacket writes\n% x, we\n% x", b.Bytes(), data)
		}
	}
	if checked != 5000 {
		t.Errorf("only %d packets were compared", checked)
	}
}

func TestFileIsACapture(t *testing.T) {
	var b bytes.Buffer
	size, err := yardstick.Write(&b, 1, 1000)
	if err != nil || size != int64(b.Len()) {
		t.Fatalf("%d bytes of %d, %v", size, b.Len(), err)
	}
	src, err := capture.OpenReader(&b, "yardstick")
	if err != nil {
		t.Fatal(err)
	}
	g := yardstick.New(1)
	var p capture.Packet
	for i := range 1000 {
		if err := src.Next(&p); err != nil {
			t.Fatal(err)
		}
		if data, at := g.Next(); !bytes.Equal(p.Data, data) || p.Time != at {
			t.Fatalf("packet %d differs from the generator's", i)
		}
	}
	if err := src.Next(&p); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestGeneratingDoesNotAllocate(t *testing.T) {
	g := yardstick.New(1)
	for range 1000 {
		g.Next()
	}
	if n := testing.AllocsPerRun(5000, func() { g.Next() }); n >= 1 {
		t.Errorf("%v allocations a packet", n)
	}
}
