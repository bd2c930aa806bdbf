package record

// TLSClientHello is a client's first TLS message, from a single packet. The
// field OSCP is spelt as NETCAP spells it (it means OCSP).
type TLSClientHello struct {
	Timestamp               int64
	Type                    int32
	Version                 int32
	MessageLen              int32
	HandshakeType           int32
	HandshakeLen            uint32
	HandshakeVersion        int32
	Random                  []byte
	SessionIDLen            uint32
	SessionID               []byte
	CipherSuiteLen          int32
	ExtensionLen            int32
	SNI                     string
	OSCP                    bool
	CipherSuites            []int32
	CompressMethods         []int32
	SignatureAlgs           []int32
	SupportedGroups         []int32
	SupportedPoints         []int32
	ALPNs                   []string
	Ja3                     string
	SrcIP                   string
	DstIP                   string
	SrcMAC                  string
	DstMAC                  string
	SrcPort                 int32
	DstPort                 int32
	Extensions              []int32
	HasGreaseExtensions     bool
	IsSuspiciousCipherOrder bool
	Ja4                     string
	CommunityID             string
	ExtensionCount          int32
}

// TLSServerHello is the server's answer to it.
type TLSServerHello struct {
	Timestamp                    int64
	Version                      int32
	Random                       []byte
	SessionID                    []byte
	CipherSuite                  int32
	CompressionMethod            int32
	NextProtoNeg                 bool
	NextProtos                   []string
	OCSPStapling                 bool
	TicketSupported              bool
	SecureRenegotiationSupported bool
	SecureRenegotiation          []byte
	AlpnProtocol                 string
	Ems                          bool
	Scts                         [][]byte
	SupportedVersion             int32
	SelectedIdentityPresent      bool
	SelectedIdentity             int32
	Cookie                       []byte
	SelectedGroup                int32
	Extensions                   []int32
	SrcIP                        string
	DstIP                        string
	SrcMAC                       string
	DstMAC                       string
	SrcPort                      int32
	DstPort                      int32
	Ja3s                         string
	Ja4s                         string
	CommunityID                  string
}
