package record

// TLSClientHello is a client's first TLS message. The field OSCP is spelt as
// NETCAP spells it (it means OCSP). Version is what the message names (TLS 1.3
// says 1.2 there), HandshakeVersion the highest that the client offers.
// IsSuspiciousCipherOrder: the first cipher is a NULL, export, RC4, DES or 3DES
// one. The link addresses stay empty.
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

// TLSServerHello is the server's answer to it. SupportedVersion is the version
// that was chosen. Ja4s and the link addresses stay empty.
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
