package iptables

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// role is what one rule does for its block.
type role uint8

const (
	roleDrop   role = iota
	roleOver        // drops what is above the rate of reject answers
	roleReset       // answers TCP with a reset
	roleReject      // answers with port-unreachable
	roleLimit       // drops what is above the rate of the block
	roleLog         // copies the packet to an NFLOG group and lets it go on

	numRoles
)

const (
	// dateLayout is what --datestop takes and what -S prints.
	dateLayout = "2006-01-02T15:04:05"
	// commentLimit is XT_MAX_COMMENT_LEN (256) without its NUL.
	commentLimit = 255
	// bucket begins the name of the shared hashlimit table. Rules that name
	// the same table share its budget, so the rate, which a table takes from
	// its first rule, is part of the name. 14 bytes with the highest rate, of
	// 15 possible.
	bucket = "NETCAP-"
	// limitMark begins a second comment, which carries the rate of a rate limit
	// as it was asked for: the listing turns 60/minute into 1/sec, and 3,600 a
	// second into 3,610.
	limitMark = "limit "
	// untilMark begins a second comment, which carries the end of a block where
	// the kernel has no xt_time to carry it: the first second in which the
	// block is over, in Unix time.
	untilMark = "until @"
)

// rule is one line of the chain that belongs to a block.
type rule struct {
	prefix netip.Prefix // masked
	target backend.Target
	role   role
	rate   int // roleOver: answers a second
	// part narrows the rule to a range of the prefix; the zero span does not.
	// A prefix of length 0 is always written as a range: without any address
	// the listing would not say which target it is.
	part  span
	holes []span
	// stop is the last second, in Unix time, in which the rule matches; 0 is
	// for ever. xt_time compares whole seconds and includes the last one.
	stop int64
	// noted: the end is a note for the next process, the kernel does not stop.
	noted   bool
	comment string // as backend.Comment encodes it

	limit backend.Limit // roleLimit
	meter string        // roleLimit: the name of the hashlimit table

	logPrefix string // roleLog
	group     uint16 // roleLog: the NFLOG group
}

// side names the address option and the iprange option of a target.
func side(t backend.Target) (addr, ranged string) {
	if t == backend.Destination {
		return "-d", "--dst-range"
	}
	return "-s", "--src-range"
}

// args is the rule as iptables takes it after `-A CHAIN`, in the order in
// which -S prints it.
func (r rule) args() []string {
	addr, ranged := side(r.target)
	a := make([]string, 0, 48+5*len(r.holes))
	part := r.part
	switch {
	case r.prefix.Bits() > 0:
		a = append(a, addr, r.prefix.String())
	case part == (span{}):
		part = spanOf(r.prefix)
	}
	if r.role == roleReset {
		a = append(a, "-p", "tcp")
	}
	if part != (span{}) {
		a = append(a, "-m", "iprange", ranged, part.String())
	}
	for _, h := range r.holes {
		a = append(a, "-m", "iprange", "!", ranged, h.String())
	}
	if r.stop != 0 && !r.noted {
		a = append(a, "-m", "time", "--datestop", time.Unix(r.stop, 0).UTC().Format(dateLayout))
	}
	switch r.role {
	case roleOver:
		// Behind the end: matches are asked in order, and a rule that has
		// ended must not use up the budget of the others.
		a = append(a, above(r.rate)...)
	case roleLimit:
		a = append(a, r.meterArgs()...)
	}
	a = append(a, "-m", "comment", "--comment", r.comment)
	if r.role == roleLimit {
		a = append(a, "-m", "comment", "--comment", limitMark+r.limit.String())
	}
	if r.stop != 0 && r.noted {
		a = append(a, "-m", "comment", "--comment", untilMark+strconv.FormatInt(r.stop+1, 10))
	}
	a = append(a, "-j")
	switch r.role {
	case roleReset:
		return append(a, "REJECT", "--reject-with", "tcp-reset")
	case roleReject:
		return append(a, "REJECT", "--reject-with", families()[familyOf(r.prefix.Addr())].unreachable)
	case roleLog:
		a = append(a, "NFLOG")
		if r.logPrefix != "" {
			a = append(a, "--nflog-prefix", r.logPrefix)
		}
		return append(a, "--nflog-group", strconv.Itoa(int(r.group)))
	}
	return append(a, "DROP")
}

// above is the match for packets above a rate, in packets a second.
func above(rate int) []string {
	n := strconv.Itoa(rate)
	return []string{
		"-m", "hashlimit", "--hashlimit-above", perSecond(rate), "--hashlimit-burst", n, "--hashlimit-name", bucket + n,
	}
}

func perSecond(rate int) string { return strconv.Itoa(rate) + "/sec" }
