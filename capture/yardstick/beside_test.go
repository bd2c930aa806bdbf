package yardstick_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/record"
)

const (
	besideRounds = 21
	// batch is how many packets are decoded at a time, by each in turn. A
	// packet that comes from the reader or from the kernel has just been
	// written and is in the cache; a batch is read before it is decoded to be
	// there, too. What is measured is decoding, not the memory.
	batch = 128
	// realPackets bounds what is kept of the real captures.
	realPackets = 300_000
)

// BenchmarkDecodeBeside decodes the TCP and UDP packets of the generated mix,
// and of the captures below NETCAP_GUARD_CAPTURES if that is set, link layer to
// transport, with this decoder and with gopacket's DecodingLayerArray in turns,
// and prints the medians and their ratio:
//
//	go test -run '^$' -bench '^BenchmarkDecodeBeside$' -benchtime 1x ./capture/yardstick
func BenchmarkDecodeBeside(b *testing.B) {
	b.Run("generated", func(b *testing.B) { beside(b, generated(20_000)) })
	b.Run("real", func(b *testing.B) {
		dir := os.Getenv("NETCAP_GUARD_CAPTURES")
		if dir == "" {
			b.Skip("NETCAP_GUARD_CAPTURES is not set: no captures to decode")
		}
		beside(b, captured(b, dir))
	})
}

// racer is one decoder in the race.
type racer struct {
	name   string
	decode func(data []byte) bool // whether a transport layer was reached
	// batches are the nanoseconds of each batch, one entry a round.
	batches [][]float64
	warmed  byte
}

func beside(b *testing.B, all [][]byte) {
	field := []*racer{
		{name: "TCP and UDP records, as most rules ask for", decode: ours(false, transports()...)},
		{name: "TCP, UDP, IPv4 and IPv6 records", decode: ours(false, headers()...)},
		{name: "the same, TCP options, payload", decode: ours(true, headers()...)},
		{name: "gopacket DecodingLayerArray", decode: layerArray(b)},
	}
	peer := field[len(field)-1]
	for _, r := range field {
		for _, data := range all {
			if !r.decode(data) && r != peer { // gopacket gives some of the real ones up
				b.Fatalf("%s: nothing decoded of % x", r.name, data)
			}
		}
	}
	for b.Loop() {
		for range besideRounds {
			round(field, all)
		}
	}
	theirs := peer.perPacket(len(all))
	text := fmt.Sprintf("%d TCP and UDP packets, medians of %d interleaved rounds, ns a packet\n", len(all), len(field[0].batches[0]))
	for _, r := range field {
		text += fmt.Sprintf("  %-46s %6.1f   %4.2f times as fast as gopacket\n", r.name, r.perPacket(len(all)), theirs/r.perPacket(len(all)))
	}
	b.Log(text)
	b.ReportMetric(field[0].perPacket(len(all)), "ns/packet")
	b.ReportMetric(theirs/field[0].perPacket(len(all)), "ratio")
	b.ReportMetric(0, "ns/op")
}

// round has everybody decode all packets, batch by batch, each going first in
// its turn.
func round(field []*racer, all [][]byte) {
	for n := range (len(all) + batch - 1) / batch {
		packets := all[n*batch : min((n+1)*batch, len(all))]
		for i := range field {
			r := field[(i+n)%len(field)]
			r.warmed += warm(packets) // kept, or the compiler would leave it out
			began := time.Now()
			for _, data := range packets {
				r.decode(data)
			}
			spent := time.Since(began)
			if n == len(r.batches) {
				r.batches = append(r.batches, nil)
			}
			r.batches[n] = append(r.batches[n], float64(spent.Nanoseconds()))
		}
	}
}

// perPacket is the time a packet of the medians of all batches: a batch during
// which another process had the processor does not count.
func (r *racer) perPacket(packets int) float64 {
	sum := 0.0
	for _, rounds := range r.batches {
		sum += median(rounds)
	}
	return sum / float64(packets)
}

// warm reads a byte of every cache line.
func warm(packets [][]byte) (sum byte) {
	for _, data := range packets {
		for i := 0; i < len(data); i += 64 {
			sum += data[i]
		}
	}
	return sum
}

func transports() []record.Type { return []record.Type{record.TypeTCP, record.TypeUDP} }

func headers() []record.Type {
	return append(transports(), record.TypeIPv4, record.TypeIPv6)
}

// ours decodes with this project's decoder: all cheap fields of the types, with
// more the values of TCP's options and the payload as well. Every way fills the
// addresses, ports and the protocol.
func ours(more bool, types ...record.Type) func([]byte) bool {
	var want record.Want
	for _, t := range types {
		want.Add(t)
		if more {
			want.Add(t, "Payload", "MSS", "WindowScale", "HasSACK", "TSval", "TSecr")
		}
	}
	dec, set := decode.New(want), &record.Set{}
	reached := record.Of(transports()...)
	return func(data []byte) bool {
		_ = dec.Decode(1, data, len(data), set) // a broken option still leaves a record
		return set.Have&reached != 0
	}
}

// alone reports whether a packet is no fragment, which gopacket would not
// decode beyond IP.
func alone() func([]byte) bool {
	var want record.Want
	for _, t := range headers() {
		want.Add(t)
	}
	dec, set := decode.New(want), &record.Set{}
	return func(data []byte) bool {
		_ = dec.Decode(1, data, len(data), set)
		fragment := set.Have.Has(record.TypeIPv4) && set.IPv4.IsFragment || set.Have.Has(record.TypeIPv6) && set.IPv6.IsFragment
		return !fragment && set.Have&record.Of(transports()...) != 0
	}
}

// layerArray decodes with the fastest way of gopacket's.
func layerArray(b *testing.B) func([]byte) bool {
	b.Helper()
	var (
		eth layers.Ethernet
		tag layers.Dot1Q
		ip4 layers.IPv4
		ip6 layers.IPv6
		ext layers.IPv6ExtensionSkipper
		tcp layers.TCP
		udp layers.UDP
		pay gopacket.Payload
	)
	container := gopacket.DecodingLayerContainer(gopacket.DecodingLayerArray(nil))
	for _, l := range []gopacket.DecodingLayer{&eth, &tag, &ip4, &ip6, &ext, &tcp, &udp, &pay} {
		container = container.Put(l)
	}
	run := container.LayersDecoder(layers.LayerTypeEthernet, gopacket.NilDecodeFeedback)
	done := make([]gopacket.LayerType, 0, 16)
	return func(data []byte) bool {
		done = done[:0]
		_, _ = run(data, &done) // ends at a layer that it does not know
		return len(done) > 2
	}
}

// generated are the yardstick's TCP and UDP packets.
func generated(n int) [][]byte {
	keep := alone()
	g := yardstick.New(1)
	var all [][]byte
	for len(all) < n {
		if data, _ := g.Next(); keep(data) {
			all = append(all, bytes.Clone(data))
		}
	}
	return all
}

// captured are the TCP and UDP packets of the captures on Ethernet below dir, so
// many of each that no single one is all there is.
func captured(b *testing.B, dir string) [][]byte {
	b.Helper()
	keep := alone()
	var all [][]byte
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || len(all) >= realPackets {
			return err
		}
		src, err := capture.OpenFile(path)
		if err != nil {
			return nil //nolint:nilerr // a file that is no capture is none to decode
		}
		defer func() { _ = src.Close() }()
		var p capture.Packet
		for n := 0; n < realPackets/50 && src.Next(&p) == nil; n++ {
			if p.Link == capture.LinkEthernet && len(p.Data) == p.Length && keep(p.Data) {
				all = append(all, bytes.Clone(p.Data))
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	if len(all) == 0 {
		b.Fatalf("no TCP or UDP packets below %s", dir)
	}
	return all
}
