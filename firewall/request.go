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

// Request asks for one block, in the form the engine and the command line
// use; BlockIP and BlockCIDR are the page's form of the same.
type Request struct {
	Prefix    netip.Prefix // any form; it is made canonical
	Target    backend.Target
	Action    backend.Action
	Limit     backend.Limit // RateLimit only
	LogPrefix string        // Log only
	Duration  time.Duration // 0 = permanent; negative is an error
	Rule      string
	Reason    string
	// At is the packet time of the event behind the request. Only a Manager
	// that runs on packet time (replay) reads it.
	At time.Time
	// ByRule marks a block that a detection rule asked for: the breaker on
	// new blocks a minute counts it.
	ByRule bool
	// Force blocks a protected (not a whitelisted) address all the same.
	Force bool
}

// Result is what a Request led to.
type Result struct {
	Outcome Outcome
	// Block is the block in force for the request's identity, where there is
	// one (Created, Extended, Duplicate).
	Block BlockInfo
}
