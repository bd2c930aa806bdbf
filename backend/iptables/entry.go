package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

const (
	// maxHoles is how many holes one rule may have. iptables-restore takes
	// 255 arguments a line, a hole needs five, and one rule of nf_tables at
	// most 4,095 bytes of expressions.
	maxHoles = 32
)

// lastStop is the last second that --datestop takes: iptables refuses years
// from 2039 on, and the kernel's default end is the largest signed 32-bit
// number.
func lastStop() time.Time { return time.Unix(1<<31-1, 0).UTC() }

// line is one rule and its text.
type line struct {
	rule rule
	text string // canonical, for comparison
	// listed is the rule as iptables listed it, where that is not how we write
	// it, because a deletion must repeat it word for word (the legacy program
	// compares the matches in their order).
	listed []string
	// tally is what the rule has matched, as far as is known, those before it
	// included whose place it took.
	tally tally
	// base is the part of tally that the kernel's counter does not hold.
	base tally
}

// tally is the counters of a rule.
type tally struct{ packets, bytes uint64 }

func (c tally) plus(d tally) tally { return tally{c.packets + d.packets, c.bytes + d.bytes} }

func newLine(r rule) line { return line{rule: r, text: quoteArgs(r.args())} }

// spec is the rule as iptables takes it.
func (l *line) spec() []string {
	if l.listed != nil {
		return l.listed
	}
	return l.rule.args()
}

// quoted is spec as iptables-restore takes it.
func (l *line) quoted() string {
	if l.listed != nil {
		return quoteArgs(l.listed)
	}
	return l.text
}

// parseLine reads a line of `iptables -S CHAIN` without its `-A CHAIN`.
func parseLine(args []string) (line, bool) {
	r, ok := parseRule(args)
	if !ok {
		return line{}, false
	}
	ours, listed := r.args(), exactSpec(args, r)
	l := line{rule: r, text: quoteArgs(ours)}
	if !slices.Equal(ours, listed) {
		l.listed = listed
	}
	return l, true
}

// exactSpec copies a listed rule and undoes the rounding of its rate.
func exactSpec(args []string, r rule) []string {
	switch r.role {
	case roleLimit:
		return exactMeter(args, r)
	case roleOver:
		return exactRate(args)
	}
	return args
}

// exactRate is exactSpec for a bound on reject answers: its burst is its rate,
// and is not rounded.
func exactRate(args []string) []string {
	args = slices.Clone(args)
	above, burst := slices.Index(args, "--hashlimit-above"), slices.Index(args, "--hashlimit-burst")
	if above >= 0 && burst >= 0 && max(above, burst)+1 < len(args) {
		args[above+1] = args[burst+1] + "/sec"
	}
	return args
}

// entry is one block and the lines it has in the chain: none where the allow
// list covers it wholly.
type entry struct {
	block   backend.Block
	comment string
	lines   []line
	seq     int64 // grows along the chain
}

func (e *entry) slot() backend.Slot { return e.block.Slot() }

func (e *entry) family() int { return familyOf(e.block.Prefix.Addr()) }

// sameLines reports whether two entries have the same rules.
func sameLines(a, b []line) bool {
	return slices.EqualFunc(a, b, func(x, y line) bool { return x.text == y.text })
}

// features is what the kernel and the program of one family can do.
type features struct {
	noTime, noRange, noHashlimit, noReject, noLog bool
	// noCounters: a rule always begins to count at zero (ip6tables-nft 1.8.9
	// takes counters and does not use them).
	noCounters bool

	rejectRate int    // not above 0: without bound
	chain      string // the chain's name
	group      uint16 // the NFLOG group of kernel log rules
}

// newEntry makes the entry of a block that is to be added. The block is kept
// as the kernel will give it back, but for its end, which is kept exactly.
func newEntry(b backend.Block) *entry {
	comment := backend.Comment{Rule: b.Rule, Reason: b.Reason, Created: b.CreatedAt}.Encode(commentLimit)
	c, _ := backend.DecodeComment(comment)
	b.Rule, b.Reason, b.CreatedAt = c.Rule, c.Reason, c.Created
	return &entry{block: b, comment: comment}
}

// stop is the value of --datestop for a block's end: the last whole second
// before it, the end rounded up. The rule matches through that second, so the
// block never ends early and less than a second late.
func stop(end time.Time) int64 {
	if end.IsZero() {
		return 0
	}
	s := end.Unix()
	if end.Nanosecond() == 0 {
		s--
	}
	return max(s, 1)
}

// endOf is the reverse of stop.
func endOf(stop int64) time.Time {
	if stop == 0 {
		return time.Time{}
	}
	return time.Unix(stop+1, 0)
}

// render makes the entry's lines, with the allow list's holes.
func (e *entry) render(allow []netip.Prefix, can features) error {
	hs, covered := holes(e.block.Prefix, allow)
	if covered {
		e.lines = nil
		return nil
	}
	return e.renderHoles(hs, can)
}

// renderHoles makes the entry's lines with these holes.
func (e *entry) renderHoles(hs []span, can features) error {
	if err := e.expressible(hs, can); err != nil {
		return err
	}
	r := rule{
		prefix: e.block.Prefix, target: e.block.Target, comment: e.comment,
		stop: stop(e.block.ExpiresAt), noted: can.noTime && !e.block.Permanent(),
	}
	switch e.block.Action {
	case backend.RateLimit:
		r.limit, r.meter = e.block.Limit, meterName(can.chain, e.block)
	case backend.Log:
		r.logPrefix, r.group = e.block.LogPrefix, can.group
	}
	e.lines = nil
	for _, part := range parts(e.block.Prefix, hs) {
		r.part, r.holes = part.span, part.holes
		for _, role := range roles(e.block.Action, can.rejectRate > 0) {
			r.role, r.rate = role, 0
			if role == roleOver {
				r.rate = can.rejectRate
			}
			e.lines = append(e.lines, newLine(r))
		}
	}
	return nil
}

// expressible says what this machine's iptables lacks for the entry.
func (e *entry) expressible(hs []span, can features) error {
	rejects := e.block.Action == backend.Reject || e.block.Action == backend.RejectReset
	switch {
	case can.noRange && len(hs) > 0:
		return fmt.Errorf("%w: %s with exceptions needs the kernel module xt_iprange", backend.ErrUnsupported, e.block.Key)
	case can.noRange && e.block.Prefix.Bits() == 0:
		return fmt.Errorf("%w: %s needs the kernel module xt_iprange", backend.ErrUnsupported, e.block.Key)
	case can.noReject && rejects:
		return fmt.Errorf("%w: %s needs the kernel module %s (use drop)", backend.ErrUnsupported, e.block.Action, families()[e.family()].reject)
	case can.noHashlimit && can.rejectRate > 0 && rejects:
		return fmt.Errorf("%w: bounded reject answers need the kernel module xt_hashlimit (use drop, or no reject rate)", backend.ErrUnsupported)
	case can.noHashlimit && e.block.Action == backend.RateLimit:
		return fmt.Errorf("%w: %s of %s needs the kernel module xt_hashlimit", backend.ErrUnsupported, e.block.Action, e.block.Key)
	case can.noLog && e.block.Action == backend.Log:
		return fmt.Errorf("%w: %s needs the kernel module xt_NFLOG", backend.ErrUnsupported, e.block.Key)
	case !can.noTime && e.block.ExpiresAt.After(lastStop()):
		return fmt.Errorf("%w: %s until %s: iptables knows no date after %s (make it permanent)", backend.ErrUnsupported,
			e.block.Key, e.block.ExpiresAt.UTC().Format(time.DateOnly), lastStop().Format(time.DateOnly))
	}
	return nil
}

// roles are the rules that an action needs, in their order. The plain REJECT
// stays a rule of its own, as an administrator expects to find it; what is
// above the rate is dropped in front of it.
func roles(a backend.Action, bounded bool) []role {
	var out []role
	switch a {
	case backend.Reject:
		out = []role{roleOver, roleReject}
	case backend.RejectReset:
		out = []role{roleOver, roleReset, roleReject}
	case backend.RateLimit:
		return []role{roleLimit}
	case backend.Log:
		return []role{roleLog}
	default:
		return []role{roleDrop}
	}
	if !bounded {
		out = out[1:]
	}
	return out
}

// actionOf is the action whose blocks have rules of this role: of several the
// first.
func actionOf(r role) backend.Action {
	switch r {
	case roleDrop:
		return backend.Drop
	case roleLimit:
		return backend.RateLimit
	case roleLog:
		return backend.Log
	}
	return backend.Reject
}

// part is a piece of a prefix that one rule can express. The zero span is the
// whole prefix.
type part struct {
	span
	holes []span
}

// parts cuts a prefix with many holes behind each maxHoles-th hole. The holes
// are sorted and disjoint.
func parts(p netip.Prefix, hs []span) []part {
	if len(hs) <= maxHoles {
		return []part{{holes: hs}}
	}
	var out []part
	whole := spanOf(p)
	from := whole.from
	for chunk := range slices.Chunk(hs, maxHoles) {
		end := chunk[len(chunk)-1].to
		out = append(out, part{span{from, end}, chunk})
		from = end.Next()
	}
	// Behind the last hole the last part goes on to the end of the prefix.
	out[len(out)-1].to = whole.to
	return out
}
