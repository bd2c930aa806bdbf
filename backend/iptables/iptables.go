// Package iptables keeps blocks as rules of one chain, NETCAP, in the filter
// tables of iptables and ip6tables, through coreos/go-iptables and
// iptables-restore.
//
// The chain is reached by a bare `-j NETCAP`, the first rule of INPUT, FORWARD
// and OUTPUT; List says where it no longer is, and Watch when it is time to
// ask. The jump carries no comment: `iptables -D INPUT -j NETCAP`, as an
// administrator types it to clean up, finds only a jump without one. Each block
// is one rule (`-s A -j DROP`), or two or three where it rejects, and each rule
// carries the comment of package backend, so that a later process can read
// every block back: the kernel is the database.
//
// A block with an end carries `-m time --datestop` in UTC: the kernel stops
// matching it by itself, process or no process. The dead rule stays in the
// chain until a Change removes it (package firewall's Manager sends one when a
// block ends) or the next Init clears it away. List passes it over.
//
// A rate limit is a rule with a bucket in a hashlimit table, one for the whole
// prefix; a second comment carries the limit as it was asked for. A packet from
// this host to itself passes the chain twice and costs two of the bucket. A
// bucket that takes more than 12 hours to fill may get back less than it should
// after a long rest: the kernel's sum overflows there (rateinfo_recalc in
// xt_hashlimit.c). A block that is taken out and put in again within the time
// that its bucket takes to fill may find it as it was.
//
// A kernel log rule hands packets to an NFLOG group and lets them go on. Those
// rules stand at the front of the chain, before every block, and before the
// rules for neighbour discovery: a logged host's neighbour discovery is logged
// as well, unlike with backend nft, where it passes before everything.
//
// A rule that takes another's place goes on with its counters. For that, and so
// that Dropped loses nothing, a change that removes rules reads the chain first.
//
// The chain is linear: the kernel compares every packet with every rule. Above
// a thousand rules backend nft is the answer; Backend.Rules counts them.
package iptables

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

const (
	name         = "iptables"
	defaultChain = "NETCAP"
	// maxChain is XT_EXTENSION_MAXNAMELEN (29) without its NUL.
	maxChain           = 28
	defaultLockTimeout = 5 * time.Second
	// defaultCheck: what somebody else does to the chain is noticed at most
	// this much later.
	defaultCheck      = 10 * time.Second
	defaultRejectRate = 1000
	defaultLogGroup   = 77
	// maxRejectRate is the highest rate that xt_hashlimit's program takes
	// ("Rate too fast" above it, iptables 1.8.9).
	maxRejectRate = 1_000_000
)

// Config says how the chain is made. The zero Config is usable.
type Config struct {
	// Chain is the chain's name, 1 to 28 of A-Z a-z 0-9 _ -; empty is NETCAP.
	Chain string
	// IPv4 and IPv6 choose the families; neither means both.
	IPv4, IPv6 bool
	// Variant chooses the program: "" is the system's iptables, "legacy" and
	// "nft" are iptables-legacy and iptables-nft (and ip6tables-...).
	Variant string
	// Logger gets warnings; nil discards them.
	Logger *slog.Logger
	// LockTimeout bounds the wait for the xtables lock, in whole seconds
	// (rounded up); 0 is 5 s.
	LockTimeout time.Duration
	// RejectRate bounds the answers that all rejecting blocks of a family
	// send together, in packets a second; what is above it is dropped. 0 is
	// 1,000, negative is no bound, 1,000,000 the highest bound.
	RejectRate int
	// LogGroup is the NFLOG group of kernel log rules; 0 is 77.
	LogGroup uint16
	// CheckInterval is the time between two events of Watch; 0 is 10 s.
	CheckInterval time.Duration
}

// complete checks the configuration and fills in the defaults.
func (c Config) complete() (Config, error) {
	if c.Chain == "" {
		c.Chain = defaultChain
	}
	if err := checkChain(c.Chain); err != nil {
		return c, err
	}
	if !c.IPv4 && !c.IPv6 {
		c.IPv4, c.IPv6 = true, true
	}
	switch c.Variant {
	case "", "legacy", "nft":
	default:
		return c, fmt.Errorf("%w: iptables variant %q (use legacy, nft or nothing)", backend.ErrInvalid, c.Variant)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.LockTimeout < 0 {
		return c, fmt.Errorf("%w: lock timeout %v is negative", backend.ErrInvalid, c.LockTimeout)
	}
	if c.LockTimeout == 0 {
		c.LockTimeout = defaultLockTimeout
	}
	if c.CheckInterval < 0 {
		return c, fmt.Errorf("%w: check interval %v is negative", backend.ErrInvalid, c.CheckInterval)
	}
	if c.CheckInterval == 0 {
		c.CheckInterval = defaultCheck
	}
	if c.LogGroup == 0 {
		c.LogGroup = defaultLogGroup
	}
	if c.RejectRate > maxRejectRate {
		return c, fmt.Errorf("%w: reject rate %d (iptables counts up to %d a second)", backend.ErrInvalid, c.RejectRate, maxRejectRate)
	}
	if c.RejectRate == 0 {
		c.RejectRate = defaultRejectRate
	}
	return c, nil
}

// lockSeconds is the lock timeout as the programs take it.
func (c Config) lockSeconds() int {
	return int((c.LockTimeout + time.Second - 1) / time.Second)
}

// checkChain refuses a name that iptables would not take, or would take for
// something else.
func checkChain(s string) error {
	for _, r := range s {
		if r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return fmt.Errorf("%w: chain name %q (use A-Z a-z 0-9 _ -)", backend.ErrInvalid, s)
		}
	}
	if len(s) == 0 || len(s) > maxChain {
		return fmt.Errorf("%w: chain name %q (use 1 to %d characters)", backend.ErrInvalid, s, maxChain)
	}
	if strings.HasPrefix(s, "-") {
		return fmt.Errorf("%w: chain name %q (iptables takes a leading - for an option)", backend.ErrInvalid, s)
	}
	for _, taken := range []string{
		"INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING",
		"ACCEPT", "DROP", "QUEUE", "RETURN", "REJECT", "LOG", "NFLOG",
	} {
		if strings.EqualFold(s, taken) {
			return fmt.Errorf("%w: chain name %q is a built-in name", backend.ErrInvalid, s)
		}
	}
	return nil
}

// builtins are the chains that jump to ours.
func builtins() []string { return []string{"INPUT", "FORWARD", "OUTPUT"} }
