package decode_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

// seen is what a dissector says of a packet's innermost layers.
type seen struct {
	src, dst     netip.Addr
	proto        uint8
	sport, dport uint16
	flags        uint8
	// payload is the number of bytes captured of a TCP or UDP payload, -1
	// without such a layer.
	payload  int
	fragment bool
}

// gopacketSees dissects a packet with gopacket, which panics on some: then, and
// where it refuses some layer, ok is false.
func gopacketSees(link uint32, data []byte) (s seen, ok bool) {
	defer func() {
		if recover() != nil {
			s, ok = seen{}, false
		}
	}()
	// Lazy decoding would hide a panic until a layer is looked at.
	packet := gopacket.NewPacket(data, layers.LinkType(link), gopacket.DecodeOptions{NoCopy: true, SkipDecodeRecovery: true})
	s.payload = -1
	for _, l := range packet.Layers() {
		s.layer(l)
	}
	return s, packet.ErrorLayer() == nil
}

// layer takes one more layer in; an IP header begins anew.
func (s *seen) layer(l gopacket.Layer) {
	switch l := l.(type) {
	case *layers.IPv4:
		*s = seen{payload: -1, proto: uint8(l.Protocol), fragment: l.Flags&layers.IPv4MoreFragments != 0 || l.FragOffset != 0}
		s.src, _ = netip.AddrFromSlice(l.SrcIP)
		s.dst, _ = netip.AddrFromSlice(l.DstIP)
	case *layers.IPv6:
		*s = seen{payload: -1, proto: uint8(l.NextHeader)}
		s.src, _ = netip.AddrFromSlice(l.SrcIP)
		s.dst, _ = netip.AddrFromSlice(l.DstIP)
	case *layers.IPv6HopByHop:
		s.proto = uint8(l.NextHeader)
	case *layers.IPv6Routing:
		s.proto = uint8(l.NextHeader)
	case *layers.IPv6Destination:
		s.proto = uint8(l.NextHeader)
	case *layers.IPSecAH:
		s.proto = uint8(l.NextHeader)
	case *layers.IPv6Fragment:
		s.proto, s.fragment = uint8(l.NextHeader), true
	case *layers.TCP:
		s.sport, s.dport, s.payload = uint16(l.SrcPort), uint16(l.DstPort), len(l.Payload)
		s.flags = flagBits(l.FIN, l.SYN, l.RST, l.PSH, l.ACK, l.URG, l.ECE, l.CWR)
	case *layers.UDP:
		s.sport, s.dport, s.payload = uint16(l.SrcPort), uint16(l.DstPort), len(l.Payload)
	case *layers.SCTP:
		s.sport, s.dport = uint16(l.SrcPort), uint16(l.DstPort)
	case *layers.ARP:
		if s.src.IsValid() { // inside a tunnel
			*s = seen{payload: -1}
		}
		s.src, _ = netip.AddrFromSlice(l.SourceProtAddress)
		s.dst, _ = netip.AddrFromSlice(l.DstProtAddress)
	}
}

// flagBits are the flags as they stand in a header, the lowest first.
func flagBits(flags ...bool) (bits uint8) {
	for i, set := range flags {
		if set {
			bits |= 1 << i
		}
	}
	return bits
}

// weSee says the same of what we decoded.
func weSee(set *record.Set) seen {
	s := seen{src: set.Src, dst: set.Dst, proto: set.Proto, sport: set.SrcPort, dport: set.DstPort, payload: -1,
		fragment: set.Have.Has(record.TypeIPv4) && set.IPv4.IsFragment || set.Have.Has(record.TypeIPv6) && set.IPv6.IsFragment}
	switch {
	case set.Have.Has(record.TypeTCP):
		r := &set.TCP
		s.payload, s.flags = len(r.Payload), flagBits(r.FIN, r.SYN, r.RST, r.PSH, r.ACK, r.URG, r.ECE, r.CWR)
	case set.Have.Has(record.TypeUDP):
		s.payload = len(set.UDP.Payload)
	}
	return s
}

// contradicts compares what both could read. A datagram in fragments we put
// together and gopacket does not: there the addresses count.
func (s seen) contradicts(other seen) string {
	if s.fragment && other.fragment {
		if s.src == other.src && s.dst == other.dst {
			return ""
		}
	}
	if s == other {
		return ""
	}
	return fmt.Sprintf("%v, gopacket %v", s, other)
}

func (s seen) String() string {
	return fmt.Sprintf("%v:%d > %v:%d, protocol %d, flags %#x, payload %d, fragment %v", s.src, s.sport, s.dst, s.dport, s.proto, s.flags, s.payload, s.fragment)
}

// reasons reads testdata/gopacket.tsv: the captures in which gopacket sees
// something else, and why.
func reasons(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "gopacket.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	all := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, why, ok := strings.Cut(lines.Text(), "\t"); ok && !strings.HasPrefix(name, "#") {
			all[name] = why
		}
	}
	return all
}

// TestCapturesAgainstGopacket decodes every packet of every capture with both:
// addresses, protocol, ports, flags and payload sizes are the same, but for
// the captures that testdata/gopacket.tsv gives a reason for.
func TestCapturesAgainstGopacket(t *testing.T) {
	dir := os.Getenv("NETCAP_GUARD_CAPTURES")
	if dir == "" {
		t.Skip("NETCAP_GUARD_CAPTURES is not set: no captures to read")
	}
	known := reasons(t)
	var packets, compared, differ int
	names := make([]string, 0, 900)
	for name := range manifest(t, dir) {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		n := against(t, filepath.Join(dir, name))
		packets += n.packets
		compared += n.compared
		differ += n.differ
		why, listed := known[filepath.ToSlash(name)]
		switch {
		case n.differ > 0 && !listed:
			t.Errorf("%s: %d of %d packets differ, the first: %s", name, n.differ, n.compared, n.first)
		case n.differ == 0 && listed:
			t.Errorf("%s: no difference, although testdata/gopacket.tsv says %q", name, why)
		}
	}
	t.Logf("%d captures, %d packets, %d of them read by gopacket to the end, %d differ in %d captures, each with a reason",
		len(names), packets, compared, differ, len(known))
	if compared*10 < packets*9 {
		t.Errorf("only %d of %d packets were compared", compared, packets)
	}
}

type tally struct {
	packets, compared, differ int
	first                     string
}

func against(t *testing.T, path string) (n tally) {
	t.Helper()
	src, err := capture.OpenFile(path)
	if err != nil {
		return n
	}
	defer func() { _ = src.Close() }()
	var (
		pkt capture.Packet
		set record.Set
	)
	want := everything()
	want.Add(record.TypeHTTP) // the segment with its flags
	dec := decode.New(want)
	dec.SetDecap(true)
	for src.Next(&pkt) == nil {
		n.packets++
		set.Time, set.Packet = pkt.Time, pkt.Number
		err := dec.Decode(uint32(pkt.Link), pkt.Data, pkt.Length, &set)
		var known *decode.Error
		if err != nil && !errors.As(err, &known) {
			t.Fatalf("%s: packet %d: %v", path, pkt.Number, err)
		}
		theirs, ok := gopacketSees(uint32(pkt.Link), pkt.Data)
		if !ok {
			continue
		}
		n.compared++
		if d := weSee(&set).contradicts(theirs); d != "" {
			if n.differ++; n.first == "" {
				n.first = fmt.Sprintf("packet %d (%v): %s", pkt.Number, err, d)
			}
		}
	}
	return n
}
