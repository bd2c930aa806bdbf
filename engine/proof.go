package engine

import (
	"slices"

	"github.com/netcap-guard/netcap-guard/record"
)

// Confirmed is a rule's option of that name: for what a full TCP handshake
// must have been seen, which nobody can do in another's name.
type Confirmed uint8

// The zero Confirmed is the default.
const (
	// ConfirmedStreams: live, records of TCP streams, if the rule blocks,
	// rejects or limits.
	ConfirmedStreams Confirmed = iota
	// ConfirmedAlways (confirmed: true): every packet and record, in a replay
	// too.
	ConfirmedAlways
	// ConfirmedNever (confirmed: false): nothing.
	ConfirmedNever
)

// proof is the same as the rule is evaluated.
type proof uint8

const (
	noProof proof = iota
	streamProof
	fullProof
)

// proofOf says what proof the engine wants of what a rule looks at.
func (e *Engine) proofOf(r *Rule) proof {
	switch {
	case r.Confirmed == ConfirmedAlways:
		return fullProof
	case r.Confirmed == ConfirmedNever || !e.cfg.Forgeable:
		return noProof
	case slices.ContainsFunc(r.Actions, func(a Action) bool { return a.Enabled && a.blocks() }):
		return streamProof
	}
	return noProof
}

// admits reports whether what the rule matched counts: there is the proof that
// the rule wants.
func (ev *evaluator) admits(h *record.Header) bool {
	return h.Confirmed || ev.proof == noProof || ev.proof == streamProof && !h.Stream
}
