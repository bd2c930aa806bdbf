package iptables

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

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
		for _, mark := range []string{untilMark, limitMark} {
			if rest, ok := strings.CutPrefix(value, mark); ok {
				opt, value = mark, rest
			}
		}
	case "-s", "-d", "-p", "-j", "--datestop", "--reject-with", "--nflog-prefix", "--nflog-group",
		"--hashlimit-above", "--hashlimit-burst", "--hashlimit-name", "--hashlimit-mode",
		"--hashlimit-srcmask", "--hashlimit-dstmask", "--hashlimit-htable-size",
		"--hashlimit-htable-max", "--hashlimit-htable-gcinterval", "--hashlimit-htable-expire":
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
	with := p.values["--reject-with"]
	metered := p.has("--hashlimit-")
	switch verdict := p.values["-j"]; {
	case verdict == "NFLOG" && !isProto && with == "" && !metered && !p.has(limitMark):
		return p.log(r)
	case p.has("--nflog-"):
		return false
	case verdict == "REJECT" && isProto && proto == "tcp" && with == "tcp-reset" && !metered && !p.has(limitMark):
		r.role = roleReset
		return true
	case isProto:
		return false
	case verdict == "REJECT" && !metered && with == families()[familyOf(r.prefix.Addr())].unreachable && !p.has(limitMark):
		r.role = roleReject
		return true
	case verdict != "DROP" || with != "":
		return false
	case p.has(limitMark):
		return p.meter(r)
	case metered:
		return p.over(r)
	}
	r.role = roleDrop
	return true
}

// count is how many options that begin so have been read.
func (p *parser) count(prefix string) int {
	n := 0
	for opt := range p.values {
		if strings.HasPrefix(opt, prefix) {
			n++
		}
	}
	return n
}

func (p *parser) has(prefix string) bool { return p.count(prefix) > 0 }

// over reads the bound on reject answers. The listing rounds some rates (3,600
// a second comes back as 3,610); burst and name have it exactly.
func (p *parser) over(r *rule) bool {
	digits := p.values["--hashlimit-burst"]
	rate, err := strconv.Atoi(digits)
	r.role, r.rate = roleOver, rate
	return err == nil && rate > 0 && rate <= maxRejectRate && strconv.Itoa(rate) == digits && p.count("--hashlimit-") == 3 &&
		strings.HasSuffix(p.values["--hashlimit-above"], "/sec") && p.values["--hashlimit-name"] == bucket+digits
}

// meter reads a rate limit. Its rate is that of the comment; what the listing
// makes of it says the rest.
func (p *parser) meter(r *rule) bool {
	var ok bool
	r.role, r.meter = roleLimit, p.values["--hashlimit-name"]
	if r.limit, ok = parseLimit(p.values[limitMark]); !ok || !isMeterName(r.meter) {
		return false
	}
	_, unit, ok := strings.Cut(p.values["--hashlimit-above"], "/")
	want := r.meterArgs()
	read := 0
	for i := 2; i+1 < len(want); i += 2 {
		opt := want[i]
		got, there := p.values[opt]
		if there {
			read++
		}
		switch {
		case opt == "--hashlimit-above":
		case !there && opt == "--hashlimit-htable-expire":
			// The listing leaves out what is the default for the unit it shows.
			ok = ok && want[i+1] == defaultExpire(unit)
		default:
			ok = ok && got == want[i+1]
		}
	}
	return ok && read == p.count("--hashlimit-")
}

// log reads a kernel log rule. The listing leaves group 0 out.
func (p *parser) log(r *rule) bool {
	r.role, r.logPrefix = roleLog, p.values["--nflog-prefix"]
	digits, ok := p.values["--nflog-group"]
	if !ok {
		digits = "0"
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	r.group = uint16(n)
	return err == nil && backend.CheckLogPrefix(r.logPrefix) == nil
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
