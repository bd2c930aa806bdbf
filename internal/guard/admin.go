package guard

import (
	"context"
	"errors"
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
	EditWhitelist(ctx context.Context, edit WhitelistEdit) error
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
}

// Block carries the entries out one after another; what goes wrong with one is
// in its answer.
func (l *local) Block(ctx context.Context, entries []BlockEntry) ([]Answer, error) {
	answers := make([]Answer, len(entries))
	for i, e := range entries {
		answers[i] = l.block(ctx, e)
		if err := ctx.Err(); err != nil {
			return answers[:i+1], err
		}
	}
	return answers, nil
}

func (l *local) block(ctx context.Context, e BlockEntry) Answer {
	a := Answer{Prefix: e.Prefix, Result: firewall.Failed.String()}
	req := firewall.Request{
		Prefix: e.Prefix, Duration: l.m.DefaultDuration(), Rule: firewall.ManualRule, Reason: e.Reason, Force: e.Force,
	}
	if e.Duration != nil {
		req.Duration = *e.Duration
	}
	var perr, terr, aerr error
	req.Prefix, perr = backend.Canonical(e.Prefix)
	req.Target, terr = backend.ParseTarget(e.Target)
	req.Action, aerr = stopping(e.Action)
	if err := errors.Join(perr, terr, aerr); err != nil {
		a.Error = err.Error()
		return a
	}
	res, err := l.m.Block(ctx, req)
	a.Result = res.Outcome.String()
	switch {
	case err != nil:
		a.Error = err.Error()
	case res.Outcome == firewall.Whitelisted:
		if !l.m.Whitelisted(req.Prefix) {
			a.Why = l.m.Protected(req.Prefix)
		}
	default:
		a.Blocks = []BlockObject{*blockJSON(res.Block, time.Now())}
	}
	return a
}

// stopping reads an action that a person may ask for: one that keeps packets
// out.
func stopping(s string) (backend.Action, error) {
	action, err := backend.ParseAction(s)
	if err == nil && !action.Stops() {
		err = fmt.Errorf("%w: action %q (use drop, reject or reject-reset)", backend.ErrInvalid, s)
	}
	return action, err
}

// Unblock lifts what exactly these prefixes have.
func (l *local) Unblock(ctx context.Context, prefixes []netip.Prefix) ([]Answer, error) {
	answers := make([]Answer, len(prefixes))
	for i, given := range prefixes {
		answers[i] = Answer{Prefix: given, Result: firewall.Failed.String()}
		p, err := backend.Canonical(given)
		if err != nil {
			answers[i].Error = err.Error()
			continue
		}
		lifted, err := l.m.Unblock(ctx, p)
		answers[i].Blocks = objects(lifted)
		switch {
		case err != nil:
			answers[i].Error = err.Error()
		case len(lifted) > 0:
			answers[i].Result = "unblocked"
		default:
			answers[i].Result = "not blocked"
			if around := l.m.Covering(p); len(around) > 0 {
				answers[i].Why = around[0].IP
			}
		}
	}
	return answers, nil
}

func objects(blocks []firewall.BlockInfo) []BlockObject {
	now := time.Now()
	out := make([]BlockObject, len(blocks))
	for i, b := range blocks {
		out[i] = *blockJSON(b, now)
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
	out := objects(blocks)
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
	blocks, err := l.withPackets(ctx, l.m.Covering(p))
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
	if l.alerts != nil {
		s.Alerts = append(s.Alerts, l.alerts(a.Unmap())...)
	}
	return s, nil
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
func (l *local) EditWhitelist(_ context.Context, edit WhitelistEdit) error {
	for _, p := range slices.Concat(edit.Remove, edit.Add) {
		if _, err := backend.Canonical(p); err != nil {
			return &ExitError{ExitUsage, err}
		}
	}
	for _, p := range edit.Remove {
		if err := l.m.RemoveFromWhitelist(p.String()); err != nil {
			return err
		}
	}
	for _, p := range edit.Add {
		if err := l.m.AddToWhitelist(p.String()); err != nil {
			return err
		}
	}
	return nil
}
