package firewall

import (
	"net/netip"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Outcome says what became of a Request.
type Outcome uint8

// The outcomes. Created, Extended, Duplicate and Whitelisted are successes.
const (
	Created     Outcome = iota // a new block is in force
	Extended                   // the address was blocked; its block now ends later
	Duplicate                  // the address is blocked at least as long already
	Whitelisted                // whitelisted or protected: nothing was done
	Refused                    // a cap or the breaker refused it
	Failed                     // bad input, or the kernel said no
)

var outcomeNames = [...]string{"created", "extended", "duplicate", "whitelisted", "refused", "failed"}

// String is the outcome's name in events.
func (o Outcome) String() string { return outcomeNames[o] }

// MaxEscalation is how many steps Request.Escalation may have.
const MaxEscalation = 16

// Request asks for one block, rate limit or kernel log rule, in the form the
// engine and the command line use; BlockIP and BlockCIDR are the page's form
// of the same.
//
// Of a rate limit and a block of one address the block wins: it replaces the
// rate limit in one step, and the later of both ends holds; what is weaker
// than what is there changes nothing. A kernel log rule stands beside any of
// them. The whitelist and the protected addresses are neither blocked nor
// rate-limited nor logged: their packets pass in front of everything.
type Request struct {
	Prefix    netip.Prefix // any form; it is made canonical
	Target    backend.Target
	Action    backend.Action
	Limit     backend.Limit // RateLimit only; see backend.CheckLimit
	LogPrefix string        // Log only; see backend.CheckLogPrefix
	Duration  time.Duration // 0 = permanent; negative is an error
	// Escalation, where it is not empty, stands for Duration: the n-th block
	// that is made of this prefix and target by requests with an escalation,
	// within EscalationMemory, lasts as long as the n-th step, those after the
	// last one as long as that; 0 = permanent. At most MaxEscalation steps. A
	// block that is extended, and a duplicate, is no further block: it is asked
	// for as long as the step that it has. A kernel log rule does not escalate.
	Escalation []time.Duration
	// EscalationMemory is how long a block counts, from when it was made;
	// 0 = ManagerConfig.EscalationMemory.
	EscalationMemory time.Duration
	// IPv6Prefix widens a single IPv6 address to its prefix of this length;
	// 0 = ManagerConfig.IPv6Prefix, 128 = the address itself. An address that
	// may not be blocked does not have its prefix blocked either; others in the
	// prefix that may not be are let through. A prefix that is asked for as such
	// stays as it is, and so does an address with Force.
	IPv6Prefix int
	Rule       string
	Reason     string
	// At is the packet time of the event behind the request. Only a Manager
	// that runs on packet time (replay) reads it.
	At time.Time
	// ByRule marks a block that a detection rule asked for: the breaker on
	// new blocks a minute counts it.
	ByRule bool
	// Force blocks a protected (not a whitelisted) address all the same. A kernel
	// log rule cannot be forced.
	Force bool
}

// Result is what a Request led to.
type Result struct {
	Outcome Outcome
	// Block is the block in force for the request's identity, where there is
	// one (Created, Extended, Duplicate).
	Block BlockInfo
}

// BulkResult is what a Request of BlockAll led to. Err is nil for every
// outcome but Refused (wraps ErrRefused) and Failed.
type BulkResult struct {
	Outcome Outcome
	Err     error
}
