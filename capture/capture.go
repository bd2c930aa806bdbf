// Package capture brings packets in: from capture files (pcap and pcapng,
// gzip of either, standard input) and, on Linux, from a network interface. It
// knows link types, and nothing of what is in a packet.
//
// A Source belongs to one goroutine, which calls Next; Stats and Close may be
// called from any.
package capture

import (
	"errors"
	"fmt"
)

// Errors that callers branch on. They come wrapped.
var (
	// ErrFormat: the input is no capture file that this package reads.
	ErrFormat = errors.New("not a capture file")
	// ErrLinkType: the capture's link type is not supported. The text around
	// it names the number.
	ErrLinkType = errors.New("unsupported link type")
	// ErrTruncated: the file ends, or is damaged, in the middle. A read that the
	// system fails is another error, the system's own.
	// Every packet before that place has been delivered.
	ErrTruncated = errors.New("capture is cut short")
	// ErrInterface: there is no such interface, or it has gone away.
	ErrInterface = errors.New("no such interface")
)

// Packet is one captured packet.
type Packet struct {
	// Data is what was captured, from the link layer on. It is valid until
	// the next call of Next and belongs to the source.
	Data []byte
	// Time is the packet's time stamp in Unix nanoseconds.
	Time int64
	// Length is the packet's length on the wire, in bytes; Data is shorter
	// where the capture had a snap length.
	Length int
	Link   LinkType
	// Number counts the source's packets from 1, those of an unsupported link
	// type among them, so that it is the number other tools show.
	Number uint64
	// Sum says what is known of the transport's checksum.
	Sum Sum
	// Outgoing: this host sent the packet. Files do not say so; false there.
	Outgoing bool
	// Iface is the interface's index (live) or number in its section of the
	// file (pcapng); 0 in a pcap file.
	Iface int
}

// Sum says what the kernel knows of a packet's transport checksum.
type Sum uint8

// What can be known of it.
const (
	// SumUnknown: nobody says. It is so in files: those of a host whose card
	// computes checksums hold wrong ones.
	SumUnknown Sum = iota
	// SumUnchecked: it stands in the packet, and nobody has looked at it.
	SumUnchecked
	// SumMissing: it is computed later, by the card, or never, where the packet
	// does not leave the host. The same is said of segments that were put
	// together after they had been checked.
	SumMissing
	// SumRight: the outermost one was found right.
	SumRight
)

// Stats are a source's counters so far.
type Stats struct {
	// Received counts the packets that Next has delivered from a file, or that
	// the kernel has handed to a live source; Dropped those that the kernel
	// threw away because Next was not called soon enough.
	Received, Dropped uint64
	// Full counts how often a live source's ring was full: the kernel threw
	// packets away from then on, until there was room again.
	Full uint64
	// Unsupported counts packets that were skipped because their interface,
	// one of several in the file, has a link type that is not supported.
	Unsupported uint64
}

// Source gives packets one after another.
type Source interface {
	// Next fills p with the next packet. At the end it returns io.EOF; where
	// a file ends or is damaged in the middle, an error wrapping ErrTruncated; after Close,
	// one wrapping os.ErrClosed. An error of a source is final: the next call
	// returns it again.
	Next(p *Packet) error
	// Stats reads the counters. Those of a file lag behind by up to
	// 1,024 packets until Next has returned an error.
	Stats() Stats
	// Close ends the source; a waiting Next of a live source returns.
	Close() error
}

// LinkType is a link-layer header type, as numbered in capture files
// (www.tcpdump.org/linktypes.html).
type LinkType uint32

// The link types that are supported.
const (
	LinkNull      LinkType = 0   // BSD loopback, family in the writer's byte order
	LinkEthernet  LinkType = 1   // IEEE 802.3
	LinkSLIP      LinkType = 8   // SLIP, with BSD's pseudo header
	LinkPPP       LinkType = 9   // PPP, with or without address and control
	LinkRawBSD    LinkType = 12  // raw IP, as most platforms number it
	LinkRawOBSD   LinkType = 14  // raw IP, as OpenBSD numbers it
	LinkPPPHDLC   LinkType = 50  // PPP in HDLC-like framing, or Cisco's HDLC
	LinkPPPoE     LinkType = 51  // PPPoE session
	LinkATM       LinkType = 100 // LLC/SNAP over ATM (RFC 2684)
	LinkRaw       LinkType = 101 // raw IP
	LinkCiscoHDLC LinkType = 104 // Cisco's HDLC
	LinkWiFi      LinkType = 105 // IEEE 802.11
	LinkFrameRly  LinkType = 107 // frame relay
	LinkLoop      LinkType = 108 // OpenBSD loopback, family in network byte order
	LinkLinuxSLL  LinkType = 113 // Linux cooked, version 1
	LinkRadiotap  LinkType = 127 // IEEE 802.11 behind a radiotap header
	LinkIPv4      LinkType = 228 // raw IPv4
	LinkIPv6      LinkType = 229 // raw IPv6
	LinkNFLOG     LinkType = 239 // Linux's packet log
	LinkLinuxSLL2 LinkType = 276 // Linux cooked, version 2
)

// Supported reports whether packets of the link type can be decoded.
func (t LinkType) Supported() bool {
	switch t {
	case LinkNull, LinkEthernet, LinkSLIP, LinkPPP, LinkRawBSD, LinkRawOBSD, LinkPPPHDLC, LinkPPPoE,
		LinkATM, LinkRaw, LinkCiscoHDLC, LinkWiFi, LinkFrameRly, LinkLoop, LinkLinuxSLL, LinkRadiotap,
		LinkIPv4, LinkIPv6, LinkNFLOG, LinkLinuxSLL2:
		return true
	}
	return false
}

// check returns an error wrapping ErrLinkType unless t is supported.
func (t LinkType) check() error {
	if t.Supported() {
		return nil
	}
	return fmt.Errorf("%w %d", ErrLinkType, t)
}
