package record

// DNS is one DNS message (RFC 1035). QR false is a query; an answer's source
// is the resolver. Questions and resource records are those that could be
// decoded; the four counts are the header's own numbers. Names are in
// presentation form without the final dot.
type DNS struct {
	Timestamp        int64
	ID               int32
	QR               bool
	OpCode           int32
	AA               bool
	TC               bool
	RD               bool
	RA               bool
	Z                int32
	ResponseCode     int32
	QDCount          int32
	ANCount          int32
	NSCount          int32
	ARCount          int32
	Questions        []*DNSQuestion
	Answers          []*DNSResourceRecord
	Authorities      []*DNSResourceRecord
	Additionals      []*DNSResourceRecord
	SrcIP            string
	DstIP            string
	SrcPort          int32
	DstPort          int32
	QueryNameLength  int32
	SubdomainCount   int32
	PacketSize       int32
	EDNSPayloadSize  int32
	QueryNameEntropy float64
	QueryNameTLD     string
	ResponseCodeName string
	CommunityID      string
	IsNXDOMAIN       bool
	HasEDNS          bool
	// IsMalformed: something in the message cannot be: a name longer than 255
	// bytes or one that loops, a record cut short. What stands before that
	// place, and the long name itself, is decoded all the same.
	IsMalformed bool
}

// DNSQuestion is one entry of the question section.
type DNSQuestion struct {
	Name  string
	Type  int32
	Class int32
}

// DNSResourceRecord is one resource record. Data is the raw record data, and
// the field of its type is filled beside it; DataLength is the record's own
// statement.
type DNSResourceRecord struct {
	Name       string
	Type       int32
	Class      int32
	TTL        uint32
	DataLength int32
	Data       []byte
	IP         string
	NS         []byte
	CNAME      []byte
	PTR        []byte
	SOA        *DNSSOA
	SRV        *DNSSRV
	MX         *DNSMX
	TXTs       [][]byte
}

// DNSSOA is the data of an SOA record.
type DNSSOA struct {
	MName   []byte
	RName   []byte
	Serial  uint32
	Refresh uint32
	Retry   uint32
	Expire  uint32
	Minimum uint32
}

// DNSSRV is the data of an SRV record (RFC 2782).
type DNSSRV struct {
	Priority int32
	Weight   int32
	Port     int32
	Name     []byte
}

// DNSMX is the data of an MX record.
type DNSMX struct {
	Preference int32
	Name       string
}
