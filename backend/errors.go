package backend

import "errors"

// Sentinels that callers branch on with errors.Is. A backend translates what
// its kernel interface says (errno, a tool's text) into them in one place.
var (
	// ErrInvalid: the request itself is wrong; nothing was tried.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported: this backend cannot do what was asked for.
	ErrUnsupported = errors.New("not supported by this backend")
	// ErrUnavailable: the backend cannot work here at all (no nf_tables in
	// the kernel, no iptables program, not Linux).
	ErrUnavailable = errors.New("not available")
	// ErrPermission: root or CAP_NET_ADMIN is missing.
	ErrPermission = errors.New("permission denied (root or CAP_NET_ADMIN is needed)")
	// ErrFull: the set or table holds no more blocks.
	ErrFull = errors.New("set is full")
	// ErrLocked: another program holds the xtables lock.
	ErrLocked = errors.New("xtables lock is held by another program")
	// ErrGone: table, chain, set or jump of ours was removed by someone else.
	ErrGone = errors.New("table or chain is gone")
	// ErrDamaged: the structure around the blocks is not as we make it.
	ErrDamaged = errors.New("table or chain was changed by someone else")
	// ErrClosed: the backend was closed.
	ErrClosed = errors.New("closed")
)

// OpError says which operation of which backend failed. Unwrap gives the
// cause, which wraps one of the sentinels where one fits.
type OpError struct {
	Backend string
	Op      string // "add element", "create chain"
	Err     error
}

func (e *OpError) Error() string { return e.Backend + ": " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }
