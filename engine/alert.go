package engine

import (
	"net/netip"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/record"
)

// AlertWriter takes alerts. WriteAlert is called from one goroutine at a
// time; the alert is the writer's to keep. An error is counted.
type AlertWriter interface {
	WriteAlert(*Alert) error
}

// Alert says that a rule fired.
type Alert struct {
	Time time.Time // of the packet, UTC
	// Rule, Description, Severity, Tags and MITRE are the rule's own; the
	// slices must not be changed.
	Rule, Description string
	Severity          Severity
	Tags, MITRE       []string
	Record            record.Type
	// Src, Dst and the ports are zero where the record has none.
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	// Via is the trusted proxy between the two, whose client is never blocked;
	// the zero Addr where there is none.
	Via   netip.Addr
	Proto uint8 // IANA protocol number, 0 without IP
	// Count matches (or different values) within Window reached Threshold; where
	// a rule asks for both it is about the values. A rule that fires on every
	// match has Count 1 and Threshold 0 or 1.
	Count, Threshold int
	Window           time.Duration
	// Fields is the matched record: a pointer to a copy of its struct, ready
	// for encoding/json.
	Fields any
	Packet uint64 // number of the packet in its source, from 1
}

// ProtoName is the transport's name in events; empty without IP.
func (a *Alert) ProtoName() string {
	h := record.Header{Proto: a.Proto}
	return h.ProtoName()
}

// Match is what an action and a log event know of the record that led to
// them.
type Match struct {
	Time             time.Time // of the packet, UTC
	Rule             string
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8
	Packet           uint64
}

// ActionEvent says what became of one block, reject or rate limit.
type ActionEvent struct {
	Match
	Kind   ActionKind
	Prefix netip.Prefix // what was to be blocked
	Target backend.Target
	// Duration is what was asked for, or what an escalation came to, of a block
	// that was there what is left of it; 0 = permanent. Limit is a rate limit's.
	Duration time.Duration
	Limit    backend.Limit
	// Result holds the outcome and the block in force. With an Err it is
	// Failed or Refused.
	Result firewall.Result
	Err    error
}

// LogEvent is one iptables_log.
type LogEvent struct {
	Match
	Prefix string
	// Kernel: a kernel log rule is in force for the address. Err says why not
	// where one was asked for.
	Kernel bool
	Err    error
}
