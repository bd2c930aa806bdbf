// Package nflog reads an NFLOG group: what kernel log rules copy of the packets
// that they see. The messages are parsed here, strictly bounded, because who
// sends the packets chooses what they hold; the door to the kernel is Open.
package nflog

import (
	"errors"
	"net/netip"
	"time"
)

// Sentinels of Open.
var (
	// ErrInUse: somebody else reads the group.
	ErrInUse = errors.New("is read by another program")
	// ErrPermission: CAP_NET_ADMIN is missing.
	ErrPermission = errors.New("permission denied (root or CAP_NET_ADMIN is needed)")
	// ErrUnsupported: this kernel or system has no NFLOG.
	ErrUnsupported = errors.New("NFLOG is not supported here")
)

const (
	// DefaultCopyLength is what is copied of a packet: an IPv6 header, some
	// extension headers and the ports.
	DefaultCopyLength = 128
	// DefaultBuffer is the socket's receive buffer in bytes: about 2,000
	// packets wait in it.
	DefaultBuffer = 2 << 20
)

// Config says what is read. The zero value of each field but Group has the
// meaning its comment gives.
type Config struct {
	// Group is the NFLOG group; 0 is a group as any other.
	Group uint16
	// CopyLength is how many bytes of each packet the kernel copies, from the
	// network header on. Zero = DefaultCopyLength.
	CopyLength uint32
	// Buffer is the size of the socket's receive buffer in bytes; what does
	// not fit is lost and counted. Zero = DefaultBuffer.
	Buffer int
}

func (c Config) withDefaults() Config {
	if c.CopyLength == 0 {
		c.CopyLength = DefaultCopyLength
	}
	if c.Buffer == 0 {
		c.Buffer = DefaultBuffer
	}
	return c
}

// Packet is one packet as a log rule saw it.
type Packet struct {
	// Time is when the kernel received the packet; zero where it does not say,
	// as for packets of this host.
	Time time.Time
	// Prefix is the text of the rule that logged it.
	Prefix string
	// Hook is the netfilter hook, NF_INET_PRE_ROUTING (0) to
	// NF_INET_POST_ROUTING (4).
	Hook uint8
	// InDev and OutDev are interface indexes, 0 = none; Mark is the packet's.
	InDev, OutDev, Mark uint32
	// Src and Dst are invalid where the payload is no IP packet.
	Src, Dst netip.Addr
	// Proto is the IANA number of the transport; 0 where there is none.
	Proto uint8
	// The ports of TCP, UDP, UDP-Lite, SCTP and DCCP; 0 for others, for a later fragment,
	// and where the copy ends before them.
	SrcPort, DstPort uint16

	sequence    uint32
	hasSequence bool
}

// Stats counts since Open.
type Stats struct {
	// Received packets were handed over.
	Received uint64
	// Lost packets found the socket's buffer full, by the kernel's sequence
	// numbers; Overruns is how often the kernel said so.
	Lost, Overruns uint64
	// Malformed messages could not be read.
	Malformed uint64
}
