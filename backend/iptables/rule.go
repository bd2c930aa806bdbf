package iptables

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
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
	a := make([]string, 0, 28+5*len(r.holes))
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
	if r.role == roleOver {
		// Behind the end: matches are asked in order, and a rule that has
		// ended must not use up the budget of the others.
		a = append(a, above(r.rate)...)
	}
	a = append(a, "-m", "comment", "--comment", r.comment)
	if r.stop != 0 && r.noted {
		a = append(a, "-m", "comment", "--comment", untilMark+strconv.FormatInt(r.stop+1, 10))
	}
	a = append(a, "-j")
	switch r.role {
	case roleReset:
		return append(a, "REJECT", "--reject-with", "tcp-reset")
	case roleReject:
		return append(a, "REJECT", "--reject-with", families()[familyOf(r.prefix.Addr())].unreachable)
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

// parseRule reads what args wrote, in any order of the matches. It reports
// false for a rule that args cannot have written: such a rule is not ours.
func parseRule(args []string) (rule, bool) {
	p := parser{args: args, values: map[string]string{}}
	for len(p.args) > 0 {
		if !p.option() {
			return rule{}, false
		}
	}
	return p.rule()
}

// parser walks over the arguments of one rule.
type parser struct {
	args   []string
	values map[string]string // option -> value, for options that occur once
	holes  []string
	ranged string // the iprange option that holes and part use
}

// option reads one option with its value.
func (p *parser) option() bool {
	not := p.args[0] == "!"
	if not {
		p.args = p.args[1:]
	}
	if len(p.args) < 2 {
		return false
	}
	opt, value := p.args[0], p.args[1]
	p.args = p.args[2:]
	switch opt {
	case "--src-range", "--dst-range":
		if p.ranged != "" && p.ranged != opt {
			return false
		}
		p.ranged = opt
		if not {
			p.holes = append(p.holes, value)
			return true
		}
	case "-m":
		known := slices.Contains([]string{"iprange", "hashlimit", "time", "comment", "tcp"}, value)
		return known && !not
	case "--comment":
		if end, ok := strings.CutPrefix(value, untilMark); ok {
			opt, value = untilMark, end
		}
	case "-s", "-d", "-p", "-j", "--datestop", "--reject-with",
		"--hashlimit-above", "--hashlimit-burst", "--hashlimit-name":
	default:
		return false
	}
	_, twice := p.values[opt]
	p.values[opt] = value
	return !twice && !not
}

// rule puts the options together.
func (p *parser) rule() (rule, bool) {
	r := rule{comment: p.values["--comment"]}
	if _, ok := backend.DecodeComment(r.comment); !ok || len(r.comment) > commentLimit {
		return rule{}, false
	}
	return r, p.place(&r) && p.verdict(&r) && p.end(&r)
}

// end reads when the rule stops to match, or should.
func (p *parser) end(r *rule) bool {
	date, isDate := p.values["--datestop"]
	note, isNote := p.values[untilMark]
	switch {
	case isDate && isNote:
		return false
	case isDate:
		t, err := time.Parse(dateLayout, date)
		r.stop = t.Unix()
		return err == nil && r.stop > 0
	case isNote:
		end, err := strconv.ParseInt(note, 10, 64)
		r.stop, r.noted = end-1, true
		return err == nil && r.stop > 0
	}
	return true
}

// place reads which packets the rule looks at.
func (p *parser) place(r *rule) bool {
	source, isSource := p.values["-s"]
	dest, isDest := p.values["-d"]
	switch {
	case isSource && isDest:
		return false
	case !isSource && !isDest:
		return p.everywhere(r)
	case isDest:
		r.target = backend.Destination
	}
	var err error
	r.prefix, err = netip.ParsePrefix(source + dest)
	if err != nil || r.prefix.Bits() == 0 {
		return false
	}
	if c, err := backend.Canonical(r.prefix); err != nil || c != r.prefix {
		return false
	}
	if p.ranged == "" {
		return true
	}
	if _, ranged := side(r.target); p.ranged != ranged {
		return false
	}
	if text, ok := p.values[p.ranged]; ok {
		if r.part, ok = r.parseSpan(text); !ok {
			return false
		}
	}
	return p.except(r)
}

// everywhere reads a rule without an address: a prefix of length 0, of which
// the range is the whole or a part.
func (p *parser) everywhere(r *rule) bool {
	text, ok := p.values[p.ranged]
	from, _, _ := strings.Cut(text, "-")
	a, err := netip.ParseAddr(from)
	if !ok || err != nil || a.Is4In6() || a.Zone() != "" {
		return false
	}
	if _, ranged := side(backend.Destination); p.ranged == ranged {
		r.target = backend.Destination
	}
	r.prefix = netip.PrefixFrom(a, 0).Masked()
	if r.part, ok = r.parseSpan(text); !ok {
		return false
	}
	if r.part == spanOf(r.prefix) {
		r.part = span{}
	}
	return p.except(r)
}

// except reads the holes of a rule.
func (p *parser) except(r *rule) bool {
	for _, text := range p.holes {
		h, ok := r.parseSpan(text)
		if !ok {
			return false
		}
		r.holes = append(r.holes, h)
	}
	return true
}

// verdict reads what the rule does with a packet.
func (p *parser) verdict(r *rule) bool {
	proto, isProto := p.values["-p"]
	above, isOver := p.values["--hashlimit-above"]
	with := p.values["--reject-with"]
	switch verdict := p.values["-j"]; {
	case verdict == "REJECT" && isProto && proto == "tcp" && with == "tcp-reset" && !isOver:
		r.role = roleReset
		return true
	case isProto:
		return false
	case verdict == "REJECT" && !isOver && with == families()[familyOf(r.prefix.Addr())].unreachable:
		r.role = roleReject
		return true
	case verdict != "DROP" || with != "":
		return false
	case !isOver:
		r.role = roleDrop
		return p.values["--hashlimit-burst"]+p.values["--hashlimit-name"] == ""
	}
	// The listing rounds some rates (3,600 a second comes back as 3,610); burst
	// and name have it exactly.
	digits := p.values["--hashlimit-burst"]
	rate, err := strconv.Atoi(digits)
	r.role, r.rate = roleOver, rate
	return err == nil && rate > 0 && rate <= maxRejectRate && strconv.Itoa(rate) == digits &&
		strings.HasSuffix(above, "/sec") && p.values["--hashlimit-name"] == bucket+digits
}

// parseSpan reads "from-to", a range inside the rule's prefix.
func (r rule) parseSpan(s string) (span, bool) {
	from, to, _ := strings.Cut(s, "-")
	f, err := netip.ParseAddr(from)
	if err != nil {
		return span{}, false
	}
	t, err := netip.ParseAddr(to)
	ok := err == nil && r.prefix.Contains(f) && r.prefix.Contains(t) && !t.Less(f) && f.Zone()+t.Zone() == ""
	return span{f, t}, ok
}
