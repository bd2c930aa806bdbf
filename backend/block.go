package backend

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Target says which side of a packet a block looks at.
type Target uint8

// The two targets. The zero Target is Source, the default of the
// specification.
const (
	Source Target = iota
	Destination
)

// ParseTarget reads source, src, destination or dst; the empty string is
// Source.
func ParseTarget(s string) (Target, error) {
	switch strings.ToLower(s) {
	case "", "source", "src":
		return Source, nil
	case "destination", "dst":
		return Destination, nil
	}
	return 0, fmt.Errorf("%w: target %q (use source or destination)", ErrInvalid, s)
}

// String is "source" or "destination".
func (t Target) String() string {
	if t == Destination {
		return "destination"
	}
	return "source"
}

// Action is what the kernel does with a packet of a blocked address.
type Action uint8

// The actions, in no order of strength (see Stronger).
const (
	Drop Action = iota
	// Reject answers with port-unreachable.
	Reject
	// RejectReset answers TCP with a reset and the rest with
	// port-unreachable.
	RejectReset
	// RateLimit drops what is above a rate.
	RateLimit
	// Log copies the packet's header to an NFLOG group and lets it pass.
	Log

	numActions
)

var actionNames = [numActions]string{"DROP", "REJECT", "REJECT_RESET", "RATE_LIMIT", "LOG"}

// Actions lists every action, for backends that keep one set an action.
func Actions() []Action {
	return []Action{Drop, Reject, RejectReset, RateLimit, Log}
}

// String is the action's name in listings: DROP, REJECT, REJECT_RESET,
// RATE_LIMIT or LOG.
func (a Action) String() string {
	if a < numActions {
		return actionNames[a]
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// ParseAction reads an action's name in any case, with - or _; the empty
// string is Drop.
func ParseAction(s string) (Action, error) {
	if s == "" {
		return Drop, nil
	}
	want := strings.ToUpper(strings.ReplaceAll(s, "-", "_"))
	for i, n := range actionNames {
		if n == want {
			return Action(i), nil
		}
	}
	return 0, fmt.Errorf("%w: action %q (use drop, reject, reject-reset or rate-limit)", ErrInvalid, s)
}

// Stops reports whether the action keeps every packet out.
func (a Action) Stops() bool { return a == Drop || a == Reject || a == RejectReset }

// Stronger reports whether a replaces b on the same address: what stops all
// packets replaces a rate limit, nothing else replaces anything.
func (a Action) Stronger(b Action) bool { return a.Stops() && b == RateLimit }

// Key is a block's identity. It is comparable and used as the map key
// everywhere: Prefix is masked, without a zone and never an IPv4-mapped IPv6
// prefix. A kernel log rule (Log) has an identity of its own beside the block
// of the same address.
type Key struct {
	Prefix netip.Prefix
	Target Target
	Log    bool
}

// String is "source 192.0.2.1/32".
func (k Key) String() string {
	s := k.Target.String() + " " + k.Prefix.String()
	if k.Log {
		s += " log"
	}
	return s
}

// Block is one active block: what the kernel enforces and why.
type Block struct {
	Key
	Action    Action
	Limit     Limit  // RateLimit only
	LogPrefix string // Log only; see CheckLogPrefix
	// Rule is the rule's name, or "manual-block" and the like; Reason is free
	// text. Both come back from the kernel as Comment left them.
	Rule, Reason string
	CreatedAt    time.Time
	ExpiresAt    time.Time // zero = permanent
}

// Permanent reports whether the block has no end.
func (b Block) Permanent() bool { return b.ExpiresAt.IsZero() }

// Expired reports whether the block's end has come at now.
func (b Block) Expired(now time.Time) bool {
	return !b.Permanent() && !now.Before(b.ExpiresAt)
}

// String is the block as one line: action, key, limit or log prefix, lifetime,
// rule and reason.
func (b Block) String() string {
	life := "permanent"
	if !b.Permanent() {
		life = "for " + b.ExpiresAt.Sub(b.CreatedAt).String()
	}
	s := fmt.Sprintf("%s %s", b.Action, b.Key)
	switch b.Action {
	case RateLimit:
		s += " " + b.Limit.String()
	case Log:
		s += " prefix " + quote(b.LogPrefix)
	}
	s += " " + life
	if b.Rule != "" {
		s += " rule " + quote(b.Rule)
	}
	if b.Reason != "" {
		s += " reason " + quote(b.Reason)
	}
	return s
}

func quote(s string) string { return `"` + s + `"` }

// Canonical turns a prefix into the form a Key holds: IPv4-mapped IPv6
// unmapped, host bits masked. An invalid prefix and a mapped prefix wider
// than ::ffff:0:0/96 are errors, as is a zone.
func Canonical(p netip.Prefix) (netip.Prefix, error) {
	a := p.Addr()
	if !p.IsValid() || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%w: prefix %v", ErrInvalid, p)
	}
	if !a.Is4In6() {
		return p.Masked(), nil
	}
	if p.Bits() < 96 {
		return netip.Prefix{}, fmt.Errorf("%w: prefix %v is wider than the IPv4-mapped range", ErrInvalid, p)
	}
	return netip.PrefixFrom(a.Unmap(), p.Bits()-96).Masked(), nil
}

// Host is the prefix of a single address, in canonical form. The address must
// be valid and without a zone.
func Host(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen())
}
