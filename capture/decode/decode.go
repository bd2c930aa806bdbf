// Package decode turns the bytes of one packet into records. It is a parser of
// its own over flat structs, because it runs for every packet: no allocation
// for TCP and UDP, nothing computed that no rule asks for.
//
// Link headers lead to network, network to transport, transport to
// application; each step is a method that gets the bytes left and how many
// there were on the wire. A further encapsulation is one more case in network
// or transport that calls network again.
package decode

import (
	"net/netip"
	"sync/atomic"

	"github.com/netcap-guard/netcap-guard/record"
)

// Decoder fills record sets. It belongs to one goroutine; Errors may be
// called from any.
type Decoder struct {
	plan plan
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
	dns     dnsScratch

	errors [numLayers]atomic.Uint64
}

// New returns a decoder for what want asks for.
func New(want record.Want) *Decoder {
	d := &Decoder{}
	d.SetWant(want)
	return d
}

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
	set.Src, set.Dst = netip.Addr{}, netip.Addr{}
	set.SrcPort, set.DstPort, set.Proto = 0, 0, 0
	length = max(length, len(data))
	switch link {
	case linkEthernet:
		return d.ethernet(data, length, set)
	case linkNull, linkLoop:
		return d.loopback(data, length, set)
	case linkRawBSD, linkRawOpenBSD, linkRaw:
		return d.raw(data, length, set)
	case linkSLL:
		return d.cooked(data, length, set)
	case linkSLL2:
		return d.cooked2(data, length, set)
	case linkIPv4:
		return d.ipv4(data, length, set)
	case linkIPv6:
		return d.ipv6(data, length, set)
	}
	return d.fail(errLinkType)
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
