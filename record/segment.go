package record

// The flags of a TCP segment as they stand in its header (RFC 9293, 3.1).
const (
	FlagFIN uint8 = 1 << iota
	FlagSYN
	FlagRST
	FlagPSH
	FlagACK
	FlagURG
	FlagECE
	FlagCWR
)

// Segment is a packet's TCP segment in the form that reassembly takes it.
// Addresses, ports, packet number and time are those of the Set's Header.
type Segment struct {
	Seq, Ack uint32
	Window   uint16
	Flags    uint8
	// Scale is the window scale option of a SYN or SYN-ACK (RFC 7323) plus one;
	// 0 where it has none.
	Scale uint8
	// Size is the number of payload bytes that were sent, by the IP header;
	// Payload has those of them that were captured, from the first on. It
	// aliases the packet (or the memory of IP reassembly) and is good until the
	// next packet is decoded.
	Size    int32
	Payload []byte
	// Whole is the segment from its header on, nil where not all of it was
	// captured. Inner: it came out of a tunnel, or of fragments. Check asks for its
	// checksum to be computed; a decoder leaves it false.
	Whole        []byte
	Inner, Check bool
	// Gate is the interface that the packet passes (its number plus one), where
	// this host stands between the two ends and sees either side of a
	// connection come in, or go out, by its own; 0 where that is not so.
	Gate uint32
}

// StreamTypes are the types whose records come, or can come, out of a TCP
// stream.
func StreamTypes() Mask {
	return Of(TypeHTTP, TypeSSH, TypeTLSClientHello, TypeTLSServerHello, TypeSMTP, TypeFTP, TypePOP3, TypeIMAP, TypeDNS, TypeSIP)
}
