package record

// Ethernet is the frame around a packet. It has no address that could be
// blocked.
type Ethernet struct {
	Timestamp             int64
	SrcMAC                string
	DstMAC                string
	EthernetType          int32
	PayloadEntropy        float64
	PayloadSize           int32
	EthernetTypeName      string
	IsBroadcast           bool
	IsMulticast           bool
	IsLocallyAdministered bool
}

// ARP is one ARP packet (RFC 826). Operation 1 asks, 2 answers. SrcIP and
// DstIP are the protocol addresses again, for InSubnet and its like.
type ARP struct {
	Timestamp           int64
	AddrType            int32
	Protocol            int32
	HwAddressSize       int32
	ProtocolAddressSize int32
	Operation           int32
	SrcHwAddress        string
	SrcProtocolAddress  string
	DstHwAddress        string
	DstProtocolAddress  string
	SrcIP               string
	DstIP               string
	IsGratuitous        bool
	IsProbe             bool
	IsAnnouncement      bool
	OperationName       string
}

// IPv4 is one IPv4 header (RFC 791). Flags holds the three flag bits as a
// number (1 more fragments, 2 don't fragment, 4 reserved), FragOffset counts
// units of 8 bytes. SrcPort and DstPort are the transport's, 0 where the
// packet shows none.
type IPv4 struct {
	Timestamp            int64
	Version              int32
	IHL                  int32
	TOS                  int32
	Length               int32
	Id                   int32
	Flags                int32
	FragOffset           int32
	TTL                  int32
	Protocol             int32
	Checksum             int32
	SrcIP                string
	DstIP                string
	Padding              []byte
	Options              []*IPv4Option
	PayloadEntropy       float64
	PayloadSize          int32
	SrcPort              int32
	DstPort              int32
	IsFragment           bool
	HasOptions           bool
	HasLooseSourceRoute  bool
	HasStrictSourceRoute bool
	HasRecordRoute       bool
	ProtocolName         string
	FlagsStr             string
	DSCP                 int32
	ECN                  int32
}

// IPv4Option is one option of an IPv4 header. OptionLength counts the whole
// option; the one-byte options have length 1.
type IPv4Option struct {
	OptionType   int32
	OptionLength int32
	OptionData   []byte
}

// IPv6 is one IPv6 header (RFC 8200). Length is the header's payload length,
// NextHeader the header's own field (an extension header's number where one
// follows). HopByHop is nil without such a header.
type IPv6 struct {
	Timestamp           int64
	Version             int32
	TrafficClass        int32
	FlowLabel           uint32
	Length              int32
	NextHeader          int32
	HopLimit            int32
	SrcIP               string
	DstIP               string
	PayloadEntropy      float64
	PayloadSize         int32
	HopByHop            *IPv6HopByHop
	SrcPort             int32
	DstPort             int32
	NextHeaderName      string
	HasExtensionHeaders bool
	IsFragment          bool
	DSCP                int32
	ECN                 int32
}

// IPv6HopByHop is a hop-by-hop options header (RFC 8200, 4.3).
type IPv6HopByHop struct {
	Options []*IPv6HopByHopOption
}

// IPv6HopByHopOption is one option of it, paddings included. OptionLength
// counts the data, ActualLength the whole option.
type IPv6HopByHopOption struct {
	OptionType   int32
	OptionLength int32
	ActualLength int32
	OptionData   []byte
}

// ICMPv4 is one ICMP message (RFC 792). TypeCode is type<<8|code. Id and Seq
// are the second word of the header, which only echo, timestamp and address
// mask messages use so.
type ICMPv4 struct {
	Timestamp            int64
	TypeCode             int32
	Checksum             int32
	Id                   int32
	Seq                  int32
	SrcIP                string
	DstIP                string
	PayloadSize          int32
	Type                 int32
	Code                 int32
	PayloadEntropy       float64
	TypeName             string
	Payload              []byte
	IsRedirect           bool
	IsTimestampRequest   bool
	IsAddressMaskRequest bool
	IsEchoRequest        bool
	IsEchoReply          bool
	IsDestUnreachable    bool
	IsTimeExceeded       bool
}

// ICMPv6 is one ICMPv6 message (RFC 4443). TypeCode is type<<8|code.
type ICMPv6 struct {
	Timestamp               int64
	TypeCode                int32
	Checksum                int32
	SrcIP                   string
	DstIP                   string
	PayloadSize             int32
	Type                    int32
	Code                    int32
	PayloadEntropy          float64
	TypeName                string
	Payload                 []byte
	IsRedirect              bool
	IsRouterSolicitation    bool
	IsRouterAdvertisement   bool
	IsNeighborSolicitation  bool
	IsNeighborAdvertisement bool
	IsEchoRequest           bool
	IsEchoReply             bool
}

// ICMPv6NeighborSolicitation asks for the link address of TargetAddress
// (RFC 4861, 4.3).
type ICMPv6NeighborSolicitation struct {
	Timestamp     int64
	TargetAddress string
	Options       []*ICMPv6Option
	SrcIP         string
	DstIP         string
}

// ICMPv6NeighborAdvertisement answers one (RFC 4861, 4.4). Flags holds the
// router, solicited and override bits.
type ICMPv6NeighborAdvertisement struct {
	Timestamp     int64
	Flags         int32
	TargetAddress string
	Options       []*ICMPv6Option
	SrcIP         string
	DstIP         string
}

// ICMPv6Option is one neighbour discovery option.
type ICMPv6Option struct {
	Type int32
	Data []byte
}
