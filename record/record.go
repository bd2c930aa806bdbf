// Package record is the vocabulary of detection: the record types that a rule
// can ask for, with NETCAP's field names and Go types, and the reusable set
// that the decoders fill and the engine reads. It imports the standard
// library alone.
//
// Left out are the fields whose content is looked up in a database of known
// fingerprints, which does not exist here: Ja4Description and its kin
// (Ja4tDescription, Ja4tsDescription, Ja4sDescription, Ja4hDescription), and
// IsKnownMalware and ThreatCategory of TLSClientHello.
package record

import (
	"math/bits"
	"net/netip"
	"strings"
)

// Type names a record type. The zero Type is none.
type Type uint8

// The record types of the first release. A rule may name every one of them;
// Served says which ones some decoder emits.
const (
	NoType Type = iota
	TypeTCP
	TypeUDP
	TypeIPv4
	TypeIPv6
	TypeICMPv4
	TypeICMPv6
	TypeICMPv6NeighborSolicitation
	TypeICMPv6NeighborAdvertisement
	TypeARP
	TypeEthernet
	TypeDNS
	TypeHTTP
	TypeSSH
	TypeTLSClientHello
	TypeTLSServerHello
	TypeDHCPv4
	TypeNTP
	TypeSIP
	TypeSMTP
	TypeFTP
	TypePOP3
	TypeIMAP
	TypeConnection

	NumTypes
)

// Mask is a set of record types, one bit each.
type Mask uint32

// Of makes the mask of the given types.
func Of(types ...Type) Mask {
	var m Mask
	for _, t := range types {
		m |= 1 << t
	}
	return m
}

// Has reports whether t is in the mask.
func (m Mask) Has(t Type) bool { return m>>t&1 != 0 }

// Next removes the lowest type from the mask and returns it; NoType when the
// mask is empty.
func (m *Mask) Next() Type {
	if *m == 0 {
		return NoType
	}
	t := Type(bits.TrailingZeros32(uint32(*m)))
	*m &= *m - 1
	return t
}

// Header is what every record of one packet shares, in the form the engine
// computes with. A stream's record has its own, oriented as the record is.
type Header struct {
	Time             int64  // packet time, Unix nanoseconds
	Packet           uint64 // number of the packet in its source, from 1
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8 // IANA protocol number of the transport; 0 without IP
	// Outgoing: this host sent the packet (live capture only).
	Outgoing bool
	// Stream: the record comes from a TCP stream. Confirmed: the packet belongs
	// to a TCP connection whose handshake was seen in full, so its addresses are
	// not forged; on packets without a stream's record it is filled where Want
	// has Handshakes.
	Stream, Confirmed bool
	// Late: this is the second record of its subject, see LateFields.
	Late bool
	// Via is the trusted proxy that sent an HTTP request, whose client Src is
	// then; the zero Addr without one. Nobody may be blocked for such a record:
	// the packets are the proxy's.
	Via netip.Addr
}

// ProtoName is the transport's name in events: TCP, UDP, ICMP, IPv6-ICMP, or
// the number; empty without IP.
func (h *Header) ProtoName() string {
	if h.Proto == 0 {
		return ""
	}
	return ProtocolName(int32(h.Proto))
}

// Set is one worker's reusable record set: a decoder fills the records of one
// packet, the engine reads them, and the next packet overwrites them. Slices,
// byte fields and (in records of streams) strings in it alias the packet and
// live as long as it does: Snapshot or strings.Clone what is kept.
type Set struct {
	Header
	// Have says which records this packet filled.
	Have Mask
	// HasSegment: the packet has a TCP segment, and it stands in Segment. The
	// decoder fills it where a type of StreamTypes is asked for.
	HasSegment bool
	Segment    Segment

	TCP                   TCP
	UDP                   UDP
	IPv4                  IPv4
	IPv6                  IPv6
	ICMPv4                ICMPv4
	ICMPv6                ICMPv6
	NeighborSolicitation  ICMPv6NeighborSolicitation
	NeighborAdvertisement ICMPv6NeighborAdvertisement
	ARP                   ARP
	Ethernet              Ethernet
	DNS                   DNS
	HTTP                  HTTP
	SSH                   SSH
	ClientHello           TLSClientHello
	ServerHello           TLSServerHello
	DHCPv4                DHCPv4
	NTP                   NTP
	SIP                   SIP
	SMTP                  SMTP
	FTP                   FTP
	POP3                  POP3
	IMAP                  IMAP
	Connection            Connection
}

// Want says which record types, and which fields of each, some enabled rule
// asks for. The zero Want asks for nothing. It is built once at load and read
// by many goroutines afterwards.
type Want struct {
	Types Mask
	// Handshakes asks for Header.Confirmed of plain TCP packets.
	Handshakes bool

	fields [NumTypes]map[string]bool
}

// Add asks for type t and the named top-level fields of it.
func (w *Want) Add(t Type, fields ...string) {
	w.Types |= Of(t)
	if w.fields[t] == nil {
		w.fields[t] = map[string]bool{}
	}
	for _, f := range fields {
		w.fields[t][f] = true
	}
}

// Field reports whether some rule on type t reads the named field.
func (w *Want) Field(t Type, name string) bool { return w.fields[t][name] }

// ParseType reads a record type's name as rules spell it: any case, with or
// without the prefix NC_. The aliases ICMP and TLS stand for two types each.
func ParseType(s string) ([]Type, bool) {
	name := strings.ToLower(s)
	name = strings.TrimPrefix(name, "nc_")
	switch name {
	case "icmp":
		return []Type{TypeICMPv4, TypeICMPv6}, true
	case "tls":
		return []Type{TypeTLSClientHello, TypeTLSServerHello}, true
	}
	for t := NoType + 1; t < NumTypes; t++ {
		if strings.ToLower(t.String()) == name {
			return []Type{t}, true
		}
	}
	return nil, false
}
