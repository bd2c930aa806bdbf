package record

// TCP is one TCP segment (RFC 9293). PayloadSize is the length that the
// headers state, whatever a snap length cut off; Payload is what was captured
// of it. MSS and WindowScale are 0, TSval and TSecr are 0, without the option.
type TCP struct {
	Timestamp          int64
	SrcPort            int32
	DstPort            int32
	SeqNum             uint32
	AckNum             uint32
	DataOffset         int32
	FIN                bool
	SYN                bool
	RST                bool
	PSH                bool
	ACK                bool
	URG                bool
	ECE                bool
	CWR                bool
	NS                 bool
	Window             int32
	Checksum           int32
	Urgent             int32
	Padding            []byte
	Options            []*TCPOption
	PayloadEntropy     float64
	PayloadSize        int32
	Payload            []byte
	SrcIP              string
	DstIP              string
	OptionsFingerprint string
	FlagsStr           string
	Ja4t               string
	Ja4ts              string
	CommunityID        string
	MSS                int32
	WindowScale        int32
	HasSACK            bool
	IsRSTWithData      bool
	IsSYNWithData      bool
	TSval              uint32
	TSecr              uint32
}

// TCPOption is one option of a TCP header. OptionLength counts the whole
// option; the one-byte options have length 1.
type TCPOption struct {
	OptionType   int32
	OptionLength int32
	OptionData   []byte
}

// UDP is one UDP datagram (RFC 768). Length is the header's field,
// PayloadSize the bytes of data that the headers state.
type UDP struct {
	Timestamp      int64
	SrcPort        int32
	DstPort        int32
	Length         int32
	Checksum       int32
	PayloadEntropy float64
	PayloadSize    int32
	Payload        []byte
	SrcIP          string
	DstIP          string
}

// Connection sums up one connection, in both directions. Durations are in
// nanoseconds. Unlike NETCAP's, its ports are numbers.
type Connection struct {
	TimestampFirst      int64
	LinkProto           string
	NetworkProto        string
	TransportProto      string
	ApplicationProto    string
	SrcMAC              string
	DstMAC              string
	SrcIP               string
	SrcPort             int32
	DstIP               string
	DstPort             int32
	TotalSize           int32
	AppPayloadSize      int32
	NumPackets          int32
	UID                 string
	TimestampLast       int64
	Duration            int64
	BytesServerToClient int64
	BytesClientToServer int64
	NumFINFlags         int32
	NumRSTFlags         int32
	NumACKFlags         int32
	NumSYNFlags         int32
	NumURGFlags         int32
	NumECEFlags         int32
	NumPSHFlags         int32
	NumCWRFlags         int32
	NumNSFlags          int32
	MeanWindowSize      int32
}
