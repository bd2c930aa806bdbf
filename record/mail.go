package record

// SMTP is one SMTP conversation.
type SMTP struct {
	Timestamp   int64
	IsEncrypted bool
	IsResponse  bool
	SrcIP       string
	DstIP       string
	SrcPort     int32
	DstPort     int32
	MailIDs     []string
	Commands    []string
}

// POP3 is one POP3 conversation. Its addresses are called ClientIP and
// ServerIP.
type POP3 struct {
	Timestamp int64
	ClientIP  string
	ServerIP  string
	AuthToken string
	User      string
	Pass      string
	MailIDs   []string
	Commands  []string
}

// IMAP is one IMAP command or answer.
type IMAP struct {
	Timestamp         int64
	SrcIP             string
	DstIP             string
	SrcPort           int32
	DstPort           int32
	IsResponse        bool
	STARTTLSRequested bool
	STARTTLSSuccess   bool
	IsEncrypted       bool
	Tag               string
	Command           string
	Response          string
	ResponseText      string
	Username          string
	AuthMethod        string
	Mailbox           string
	Arguments         []string
	Flags             []string
	Capabilities      []string
	MessageCount      int32
	RecentCount       int32
	UIDNext           int32
	UIDValidity       int32
	MessageID         int32
	UID               int32
}
