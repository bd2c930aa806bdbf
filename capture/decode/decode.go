// Package decode turns the bytes of one packet into records. It is a parser of
// its own over flat structs, because it runs for every packet: no allocation
// for TCP and UDP, nothing computed that no rule asks for.
//
// Link headers lead to network, network to transport, transport to
// application; each step is a method that gets the bytes left and how many
// there were on the wire. An encapsulation is a method, too, which goes back
// to network, ethernet, ipv4 or ipv6; maxLayers and maxNesting bound that. What
// an IP packet carries takes its place: the records and the Header are those
// of the innermost one.
//
// Fragments are collected by package fragment. The transport's record comes
// with the fragment that completes the datagram, as the receiver sees it;
// every fragment has its IPv4 or IPv6 record.
package decode

import (
	"net/netip"
	"sync/atomic"

	"github.com/netcap-guard/netcap-guard/capture/fragment"
	"github.com/netcap-guard/netcap-guard/record"
)

// Decoder fills record sets. It belongs to one goroutine; Errors may be
// called from any.
type Decoder struct {
	plan plan
	// decap: tunnels are taken off.
	decap bool
	// layers and depth count the encapsulations and the IP headers of the
	// packet so far; outer is what the first of those said, once there is a
	// second.
	layers, depth int
	outer         Outer
	// frags collects fragments. again: the packets have been decoded before,
	// by the decoder whose table that is.
	// collected: this packet has added to it.
	frags            *fragment.Table
	again, collected bool
	// short: an IP header of the packet says that there is more than was on
	// the wire. Receivers drop such a packet, so its segment is no part of a
	// stream.
	short bool
	// last is the set that the plan has been applied to: fields that nobody
	// asks for are never written, so they must be zero to begin with.
	last *record.Set

	addrs   *addrCache
	strings *stringCache
	flags   *flagNames
	header  [tcpHeader]byte // a cut TCP header, filled up
	text    []byte          // scratch for a string being built
	hop     record.IPv6HopByHop
	hopOpts list[record.IPv6HopByHopOption]
	ipOpts  list[record.IPv4Option]
	tcpOpts list[record.TCPOption]
	ndOpts  list[record.ICMPv6Option]
	dns     dnsScratch

	errors [numLayers]atomic.Uint64
}

// New returns a decoder for what want asks for. Tunnels stay on.
func New(want record.Want) *Decoder {
	d := &Decoder{frags: fragment.New()}
	d.SetWant(want)
	return d
}

// Again returns a decoder for packets that first has just decoded, for other
// fields of the same packets: what first has put together of fragments it
// finds there, instead of collecting them a second time.
func Again(first *Decoder, want record.Want) *Decoder {
	d := &Decoder{frags: first.frags, again: true, decap: first.decap}
	d.SetWant(want)
	return d
}

// SetDecap says whether tunnels are taken off: GRE, ERSPAN, IP in IP, 6in4,
// VXLAN, Geneve, GTP, Teredo. Live that is dangerous, because anybody can send a
// UDP packet that looks like VXLAN and carries any address. VLAN tags, MPLS,
// PPPoE and the like are always taken off. It is called from the decoder's own
// goroutine.
func (d *Decoder) SetDecap(on bool) { d.decap = on }

// Outer are the ends of the outermost IP packet. Port is the destination port
// of its UDP datagram, 0 where it is none.
type Outer struct {
	Src, Dst netip.Addr
	Proto    uint8
	Port     uint16
}

// Outer returns the outermost header of the packet that was decoded last, into
// set: that of the tunnel, where the records are those of a packet inside one.
func (d *Decoder) Outer(set *record.Set) Outer {
	if d.depth > 1 {
		return d.outer
	}
	return outermost(set)
}

func outermost(set *record.Set) Outer {
	o := Outer{Src: set.Src, Dst: set.Dst, Proto: set.Proto}
	if o.Proto == protoUDP {
		o.Port = set.DstPort
	}
	return o
}

// Fragments reads the counters of fragmented datagrams. It may be called from
// any goroutine.
func (d *Decoder) Fragments() fragment.Stats { return d.frags.Stats() }

// SetWant changes what is asked for, from the next packet on. It is called
// from the decoder's own goroutine.
func (d *Decoder) SetWant(want record.Want) {
	d.plan = compile(&want)
	d.last = nil
	if d.addrs == nil && d.plan.needsAddrs() {
		d.addrs = newAddrCache()
	}
	if d.strings == nil {
		d.strings = newStringCache()
	}
	if d.flags == nil && d.plan.tcpMore&moreFlags != 0 {
		d.flags = newFlagNames()
	}
}

// Decode decodes one packet: data is what was captured, beginning with the
// header of the link type (numbered as in capture files), length its length on
// the wire. The caller has filled set.Time, set.Packet and set.Outgoing; all
// else in the header and the records that the packet has are filled here, and
// set.Have says which. A TCP segment stands in set.Segment where a type of
// record.StreamTypes is asked for: what package stream takes. Slices in the records alias data or the decoder: they
// are good until either is used again.
//
// An error (an *Error) means that some layer could not be decoded; the records
// of the layers around it are there all the same. It is counted already.
func (d *Decoder) Decode(link uint32, data []byte, length int, set *record.Set) error {
	if set != d.last {
		*set = record.Set{Header: set.Header}
		d.last = set
	}
	set.Have, set.HasSegment = 0, false
	d.layers, d.depth, d.short = 0, 0, false
	if d.collected {
		d.collected = false
		d.frags.Begin()
	}
	length = max(length, len(data))
	var err error
	switch {
	case link != linkEthernet:
		err = d.link(link, data, length, set)
	case len(data) > ethernetHeader && data[12] == etherIPv4>>8 && data[13] == etherIPv4&0xff && !d.plan.ether:
		// What nearly every packet is, without the calls.
		err = d.ipv4(data[ethernetHeader:], length-ethernetHeader, set)
	default:
		err = d.ethernet(data, length, set)
	}
	if d.depth == 0 { // no IP: what the last packet left
		set.Src, set.Dst = netip.Addr{}, netip.Addr{}
		set.SrcPort, set.DstPort, set.Proto = 0, 0, 0
	}
	return err
}

// DNS decodes a whole DNS message that came over TCP, without its two bytes of
// length, into set.DNS. The caller has filled set.Header. It does nothing
// where no rule asks for DNS; errors are those of Decode, and counted.
func (d *Decoder) DNS(msg []byte, set *record.Set) error {
	if !d.plan.dns {
		return nil
	}
	return d.dnsMessage(msg, len(msg), set)
}

// fail counts an error and returns it.
func (d *Decoder) fail(err *Error) error {
	d.errors[err.Layer].Add(1)
	return err
}

// Errors reads the counters of packets that could not be decoded.
func (d *Decoder) Errors() Errors {
	var e Errors
	for i := range e {
		e[i] = d.errors[i].Load()
	}
	return e
}

// addr is an address as records spell it.
func (d *Decoder) addr(a netip.Addr) string { return d.addrs.get(a) }

// u16 and u32 read network byte order.
func u16(b []byte) uint16 { return uint16(b[1]) | uint16(b[0])<<8 }

func u32(b []byte) uint32 {
	return uint32(b[3]) | uint32(b[2])<<8 | uint32(b[1])<<16 | uint32(b[0])<<24
}
