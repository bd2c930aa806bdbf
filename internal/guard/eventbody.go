package guard

import (
	"net/netip"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
)

// timestampFormat is RFC 3339 with microseconds; times are in UTC.
const timestampFormat = "2006-01-02T15:04:05.000000Z07:00"

// event is one line of the event stream, EVE style. Exactly one of the bodies
// is set, the one its type names.
type event struct {
	Timestamp string       `json:"timestamp"`
	EventType string       `json:"event_type"`
	SrcIP     string       `json:"src_ip,omitempty"`
	SrcPort   uint16       `json:"src_port,omitempty"`
	DestIP    string       `json:"dest_ip,omitempty"`
	DestPort  uint16       `json:"dest_port,omitempty"`
	Proto     string       `json:"proto,omitempty"`
	Start     *startBody   `json:"start,omitempty"`
	Alert     *alertBody   `json:"alert,omitempty"`
	Action    *actionBody  `json:"action,omitempty"`
	Log       *logBody     `json:"log,omitempty"`
	Block     *BlockObject `json:"block,omitempty"`
	By        string       `json:"by,omitempty"`
	Resync    *resyncBody  `json:"resync,omitempty"`
	Stats     *statsBody   `json:"stats,omitempty"`
	Packet    uint64       `json:"packet,omitempty"`
	File      string       `json:"file,omitempty"`
}

type startBody struct {
	Version    string   `json:"version"`
	Backend    string   `json:"backend"`
	Interfaces []string `json:"interfaces"`
	Rules      int      `json:"rules"`
	DryRun     bool     `json:"dry_run"`
}

type alertBody struct {
	Signature       string   `json:"signature"`
	Severity        string   `json:"severity"`
	Description     string   `json:"description"`
	Tags            []string `json:"tags"`
	MITRE           []string `json:"mitre"`
	Record          string   `json:"record"`
	Count           int      `json:"count"`
	Threshold       int      `json:"threshold"`
	ThresholdWindow float64  `json:"threshold_window"` // seconds
	Via             string   `json:"via,omitempty"`    // the trusted proxy, for which nothing is blocked
	Fields          any      `json:"fields"`
}

type actionBody struct {
	Type     string  `json:"type"`
	Result   string  `json:"result"`
	IP       string  `json:"ip"`
	Target   string  `json:"target"`
	Duration string  `json:"duration"`
	Expires  *string `json:"expires"`         // null: permanent, or nothing was made
	Limit    string  `json:"limit,omitempty"` // of a rate limit
	Rule     string  `json:"rule"`
	Backend  string  `json:"backend"`
	DryRun   bool    `json:"dry_run"`
	Error    string  `json:"error,omitempty"`
	// Evidence is the file of the packets that led to the block.
	Evidence string `json:"evidence,omitempty"`
}

type logBody struct {
	Prefix string `json:"prefix"`
	Rule   string `json:"rule"`
	Kernel bool   `json:"kernel"` // a packet that a kernel log rule saw
	Error  string `json:"error,omitempty"`
}

type resyncBody struct {
	Reason   string `json:"reason"`
	Restored int    `json:"restored"`
}

// BlockObject is a block in JSON, in events and in listings alike.
type BlockObject struct {
	Prefix    string   `json:"prefix"`
	Target    string   `json:"target"`
	Action    string   `json:"action"`
	Rule      string   `json:"rule"`
	Reason    string   `json:"reason"`
	Origin    string   `json:"origin"`
	Created   string   `json:"created"`
	Expires   *string  `json:"expires"`   // null = permanent
	Remaining *float64 `json:"remaining"` // seconds; null = permanent
	Packets   *uint64  `json:"packets"`   // null = not known
	// Limit of a rate limit, as "10/second burst 5"; LogPrefix of a log rule.
	Limit     string `json:"limit,omitempty"`
	LogPrefix string `json:"log_prefix,omitempty"`
}

func blockJSON(b firewall.BlockInfo, now time.Time) *BlockObject {
	o := &BlockObject{
		Prefix: b.Prefix.String(), Target: b.Target, Action: b.Action, Rule: b.RuleName, Reason: b.Reason,
		Origin: string(b.Origin), Created: stamp(b.CreatedAt), Expires: stampOrNil(b.ExpiresAt), LogPrefix: b.LogPrefix,
	}
	if b.Limit != (backend.Limit{}) {
		o.Limit = b.Limit.String()
	}
	if o.Expires != nil {
		seconds := max(b.ExpiresAt.Sub(now), 0).Round(time.Millisecond).Seconds()
		o.Remaining = &seconds
	}
	return o
}

func stamp(t time.Time) string { return t.UTC().Format(timestampFormat) }

func stampOrNil(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// nonNil keeps an empty list from being encoded as null.
func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// printable keeps what a packet carried from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, s)
}
