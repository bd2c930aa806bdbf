package yardstick_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/record"
)

// Reading is measured on more than the caches hold, decoding on what they do:
// a packet that comes from the reader is in them, too.
const (
	readPackets   = 50_000
	decodePackets = 4_000
)

func file(b *testing.B) []byte {
	b.Helper()
	var buf bytes.Buffer
	if _, err := yardstick.Write(&buf, 1, readPackets); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

// perPacket reports the time a packet of a benchmark whose loop body goes
// through the whole file.
func perPacket(b *testing.B, packets int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(packets), "ns/packet")
}

// BenchmarkRead reads a pcap file from memory, beside gopacket's reader.
func BenchmarkRead(b *testing.B) {
	data := file(b)
	b.Run("capture", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			src, err := capture.OpenReader(bytes.NewReader(data), "yardstick")
			if err != nil {
				b.Fatal(err)
			}
			var p capture.Packet
			for err == nil {
				err = src.Next(&p)
			}
			if !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
		}
		perPacket(b, readPackets)
	})
	b.Run("pcapgo zero copy", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r, err := pcapgo.NewReader(bytes.NewReader(data))
			if err != nil {
				b.Fatal(err)
			}
			for err == nil {
				_, _, err = r.ZeroCopyReadPacketData()
			}
			if !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
		}
		perPacket(b, readPackets)
	})
}

// packets are the yardstick's frames in memory.
func packets() [][]byte {
	g := yardstick.New(1)
	all := make([][]byte, decodePackets)
	for i := range all {
		data, _ := g.Next()
		all[i] = bytes.Clone(data)
	}
	return all
}

// BenchmarkDecode decodes packets in memory, beside gopacket's fastest way.
func BenchmarkDecode(b *testing.B) {
	all := packets()
	wants := map[string][]record.Type{
		"TCP":               {record.TypeTCP},
		"TCP, UDP, IP, DNS": {record.TypeTCP, record.TypeUDP, record.TypeIPv4, record.TypeIPv6, record.TypeDNS},
	}
	for _, name := range []string{"TCP", "TCP, UDP, IP, DNS"} {
		b.Run(name, func(b *testing.B) {
			var want record.Want
			for _, t := range wants[name] {
				want.Add(t, "Questions")
			}
			dec, set := decode.New(want), &record.Set{}
			b.ReportAllocs()
			for b.Loop() {
				for _, data := range all {
					if err := dec.Decode(1, data, len(data), set); err != nil {
						b.Fatal(err)
					}
				}
			}
			perPacket(b, decodePackets)
		})
	}
	b.Run("gopacket DecodingLayerParser", func(b *testing.B) {
		var (
			eth  layers.Ethernet
			tag  layers.Dot1Q
			ip4  layers.IPv4
			ip6  layers.IPv6
			tcp  layers.TCP
			udp  layers.UDP
			done []gopacket.LayerType
		)
		p := gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet, &eth, &tag, &ip4, &ip6, &tcp, &udp)
		p.IgnoreUnsupported = true
		b.ReportAllocs()
		for b.Loop() {
			for _, data := range all {
				if err := p.DecodeLayers(data, &done); err != nil {
					b.Fatal(err)
				}
			}
		}
		perPacket(b, decodePackets)
	})
}
