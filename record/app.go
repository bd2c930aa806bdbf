package record

// SSH is one side of an SSH connection's beginning, oriented from sender to
// receiver: DstPort 22 selects the client's record. It is there as soon as the
// identification line is; HASSH (of a server: hasshServer) and Algorithms, what
// it is computed of, are known with the KEXINIT that follows, as are
// ServerHostKeyAlgorithms and HasWeak*: see LateFields. SoftwareVersion is the
// part of Ident between the protocol's version and a comment. HasWeakKex,
// HasWeakCipher and HasWeakMAC: the side offers an algorithm that should not be
// used, or must not (RFC 8758, RFC 9142), or one of DES, 3DES, Blowfish, CAST,
// MD5, truncated SHA-1, or none. Notes stays empty.
type SSH struct {
	Timestamp  int64
	HASSH      string
	Flow       string
	Notes      string
	Ident      string
	Algorithms string
	IsClient   bool
	SrcIP      string
	DstIP      string
	SrcPort    int32
	DstPort    int32

	SoftwareVersion         string
	ServerHostKeyAlgorithms string
	CommunityID             string
	HasWeakKex              bool
	HasWeakCipher           bool
	HasWeakMAC              bool
}

// FTP is one FTP command or answer.
type FTP struct {
	Timestamp          int64
	SrcIP              string
	DstIP              string
	SrcPort            int32
	DstPort            int32
	IsResponse         bool
	IsControl          bool
	Command            string
	Argument           string
	ResponseMessage    string
	Filename           string
	TransferMode       string
	DataConnectionMode string
	DataIP             string
	Username           string
	CommunityID        string
	ResponseCode       int32
	DataPort           int32
	FileSize           int64
}

// SIP is one SIP message. Headers holds its header lines.
type SIP struct {
	Timestamp      int64
	Version        int32
	Method         int32
	Headers        []string
	IsResponse     bool
	ResponseCode   int32
	ResponseStatus string
	SrcIP          string
	DstIP          string
	SrcPort        int32
	DstPort        int32
}

// NTP is one NTP packet (RFC 5905). Mode 7 is the private mode of monlist.
type NTP struct {
	Timestamp          int64
	LeapIndicator      int32
	Version            int32
	Mode               int32
	Stratum            int32
	Poll               int32
	Precision          int32
	RootDelay          uint32
	RootDispersion     uint32
	ReferenceID        uint32
	ReferenceTimestamp uint64
	OriginTimestamp    uint64
	ReceiveTimestamp   uint64
	TransmitTimestamp  uint64
	ExtensionBytes     []byte
	SrcIP              string
	DstIP              string
	SrcPort            int32
	DstPort            int32
	ModeName           string
	ReferenceIDStr     string
	IsControlMessage   bool
	IsPrivateMode      bool
	IsKissOfDeath      bool
}

// DHCPv4 is one DHCP message (RFC 2131). HardwareOpts is the hops field.
type DHCPv4 struct {
	Timestamp    int64
	Operation    int32
	HardwareType int32
	HardwareLen  int32
	HardwareOpts int32
	Xid          uint32
	Secs         int32
	Flags        int32
	ClientIP     string
	YourClientIP string
	NextServerIP string
	RelayAgentIP string
	ClientHWAddr string
	ServerName   []byte
	File         []byte
	Options      []*DHCPOption
	Fingerprint  string
	SrcIP        string
	DstIP        string
	SrcPort      int32
	DstPort      int32
}

// DHCPOption is one option of a DHCP message.
type DHCPOption struct {
	Type   int32
	Length int32
	Data   string
}
