package guard

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
)

// admin is what the verbs ask for: of a running guard over its control socket,
// or of the kernel itself where none runs.
type admin interface {
	Block(ctx context.Context, entries []BlockEntry) ([]Answer, error)
	Unblock(ctx context.Context, prefixes []netip.Prefix) ([]Answer, error)
	Flush(ctx context.Context) (int, error)
	List(ctx context.Context) ([]BlockObject, error)
	Show(ctx context.Context, a netip.Addr) (*ShowObject, error)
	Whitelist(ctx context.Context) ([]WhitelistObject, error)
	// EditWhitelist also says how many blocks it lifted.
	EditWhitelist(ctx context.Context, edit WhitelistEdit) (WhitelistEdited, error)
}

// Daemon is what only a running guard can answer.
type Daemon interface {
	admin
	Stats(ctx context.Context) (*statsBody, error)
	Reload(ctx context.Context) (*ReloadObject, error)
	Stop(ctx context.Context) error
}

// BlockEntry asks for one block.
type BlockEntry struct {
	Prefix netip.Prefix `json:"prefix"`
	Target string       `json:"target,omitempty"` // empty = source
	Action string       `json:"action,omitempty"` // empty = drop
	// Duration in nanoseconds; 0 = permanent, absent = the default.
	Duration *time.Duration `json:"duration,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Force    bool           `json:"force,omitempty"`
	// Rate and Burst of a rate limit, as rules have them; absent = the page's
	// defaults.
	Rate  string `json:"rate,omitempty"`
	Burst int64  `json:"burst,omitempty"`
}

// Answer says what became of one entry of a request.
type Answer struct {
	Prefix netip.Prefix `json:"prefix"`
	// Result is an action event's result, "unblocked" or "not blocked".
	Result string `json:"result"`
	// Blocks are the blocks made, in force, or lifted.
	Blocks []BlockObject `json:"blocks,omitempty"`
	// Why the address is protected, or the CIDR around one that is not blocked
	// by itself.
	Why   string `json:"why,omitempty"`
	Error string `json:"error,omitempty"`
}

// ShowObject is everything about one address.
type ShowObject struct {
	IP          string        `json:"ip"`
	Blocked     bool          `json:"blocked"`
	Blocks      []BlockObject `json:"blocks"`
	Whitelisted bool          `json:"whitelisted"`
	Protected   *string       `json:"protected"`
	Alerts      []*event      `json:"alerts"`
	// Evidence are the files of the packets that led to blocks of the address,
	// the oldest first; absent = none.
	Evidence []string `json:"evidence,omitempty"`
	// Escalation is what is remembered of earlier blocks; absent = nothing.
	Escalation []EscalationObject `json:"escalation,omitempty"`
}

// EscalationObject says when a prefix was blocked by actions with an
// escalation, the oldest first.
type EscalationObject struct {
	Prefix  string   `json:"prefix"`
	Target  string   `json:"target"`
	Blocked []string `json:"blocked"`
}

// WhitelistObject is one entry of the whitelist.
type WhitelistObject struct {
	Prefix  netip.Prefix `json:"prefix"`
	Origins []string     `json:"origins"`
}

// WhitelistEdit adds and removes entries.
type WhitelistEdit struct {
	Add    []netip.Prefix `json:"add,omitempty"`
	Remove []netip.Prefix `json:"remove,omitempty"`
}

// WhitelistEdited says what an edit led to.
type WhitelistEdited struct {
	Lifted int `json:"lifted"` // blocks of what was added
}

// ReloadObject says what a reload found.
type ReloadObject struct {
	Rules    int      `json:"rules"` // that run
	Warnings []string `json:"warnings"`
}

// local is an admin on a Manager of this process.
type local struct {
	m *firewall.Manager
	// alerts are the last alerts of an address; nil = none are kept.
	alerts func(netip.Addr) []*event
	// evidence is the directory of the packets that led to blocks; may be empty.
	evidence string
	// direct: no guard runs, the Manager lives for one verb.
	direct bool
}

// object is a block as it is shown.
func (l *local) object(b firewall.BlockInfo, now time.Time) *BlockObject {
	o := blockJSON(b, now)
	if l.direct && b.Origin == firewall.OriginAdopted {
		o.Origin = string(firewall.OriginKernel) // no guard was asked
	}
	return o
}

func (l *local) objects(blocks []firewall.BlockInfo) []BlockObject {
	now := time.Now()
	out := make([]BlockObject, len(blocks))
	for i, b := range blocks {
		out[i] = *l.object(b, now)
	}
	return out
}

// Flush lifts every block and says how many there were.
func (l *local) Flush(context.Context) (int, error) {
	n := len(l.m.GetActiveBlocks())
	return n, l.m.Flush()
}

// List returns the active blocks, with the packets they stopped.
func (l *local) List(ctx context.Context) ([]BlockObject, error) {
	return l.withPackets(ctx, l.m.GetActiveBlocks())
}

// withPackets asks the kernel for the counters of single blocks.
func (l *local) withPackets(ctx context.Context, blocks []firewall.BlockInfo) ([]BlockObject, error) {
	out := l.objects(blocks)
	packets, err := l.m.Packets(ctx, blocks)
	if err != nil {
		return nil, fmt.Errorf("read packet counters: %w", err)
	}
	for i, n := range packets {
		out[i].Packets = n
	}
	return out, nil
}

// Show says why an address is blocked, or why not.
func (l *local) Show(ctx context.Context, a netip.Addr) (*ShowObject, error) {
	if !a.IsValid() || a.Zone() != "" {
		return nil, Exit(ExitUsage, "%q is not an IP address", a)
	}
	p := backend.Host(a)
	blocks, err := l.withPackets(ctx, append(l.m.Covering(p), l.m.LogRules(a, a)...))
	if err != nil {
		return nil, err
	}
	s := &ShowObject{
		IP: a.Unmap().String(), Blocked: l.m.IsBlocked(a.String()), Blocks: blocks,
		Whitelisted: l.m.Whitelisted(p), Alerts: []*event{},
	}
	if why := l.m.Protected(p); why != "" {
		s.Protected = &why
	}
	for _, e := range l.m.Escalated(p) {
		o := EscalationObject{Prefix: e.Prefix.String(), Target: e.Target.String()}
		for _, at := range e.Blocks {
			o.Blocked = append(o.Blocked, stamp(at))
		}
		s.Escalation = append(s.Escalation, o)
	}
	if l.alerts != nil {
		s.Alerts = append(s.Alerts, l.alerts(a.Unmap())...)
	}
	return s, l.addEvidence(s, p)
}

// Whitelist lists the entries in force.
func (l *local) Whitelist(context.Context) ([]WhitelistObject, error) {
	var out []WhitelistObject
	for _, e := range l.m.Whitelist() {
		out = append(out, WhitelistObject(e))
	}
	return out, nil
}

// EditWhitelist adds and removes entries, the ones to be removed first; it
// ends at the first that is not there. A prefix that is none changes nothing.
func (l *local) EditWhitelist(_ context.Context, edit WhitelistEdit) (done WhitelistEdited, err error) {
	for _, p := range slices.Concat(edit.Remove, edit.Add) {
		if _, err := backend.Canonical(p); err != nil {
			return done, &ExitError{ExitUsage, err}
		}
	}
	for _, p := range edit.Remove {
		if err := l.m.RemoveFromWhitelist(p.String()); err != nil {
			return done, err
		}
	}
	for _, p := range edit.Add {
		before := l.inside(p)
		if err := l.m.AddToWhitelist(p.String()); err != nil {
			return done, err
		}
		done.Lifted += before - l.inside(p)
	}
	done.Lifted = max(0, done.Lifted) // somebody else may block meanwhile
	return done, nil
}

// inside counts the blocks of what is in a prefix.
func (l *local) inside(p netip.Prefix) int {
	p, err := backend.Canonical(p)
	if err != nil {
		return 0
	}
	n := 0
	for _, b := range l.m.GetActiveBlocks() {
		if b.Prefix.Bits() >= p.Bits() && p.Contains(b.Prefix.Addr()) {
			n++
		}
	}
	return n
}
