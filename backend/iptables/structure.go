package iptables

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/netcap-guard/netcap-guard/backend"
)

// structure is what one family's filter table has of ours: the chain with what
// is in it, and the jumps that lead there.
type structure struct {
	listing
	family family
	name   string
	chain  bool // it is there
	// hidden: it holds a rule that iptables cannot show (made with nft), and
	// then the program shows none.
	hidden bool
	jumps  []jump
}

// jump is how one built-in chain leads to ours.
type jump struct {
	from  string
	count int  // bare jumps
	first bool // one of them is the chain's first rule
}

func (j jump) right() bool { return j.count == 1 && j.first }

// readStructure sorts the lines of `iptables -v -S`, of the whole table or of our
// chain and the built-in ones.
func readStructure(f family, name string, text []string) structure {
	s := structure{family: f, name: name}
	rules := make([]int, len(builtins()))
	for _, from := range builtins() {
		s.jumps = append(s.jumps, jump{from: from})
	}
	for _, l := range text {
		s.chain = s.chain || l == "-N "+name
		rest, ok := strings.CutPrefix(inlineCounters(l), "-A ")
		from, spec, _ := strings.Cut(rest, " ")
		at := slices.Index(builtins(), from)
		if !ok || at < 0 {
			continue
		}
		if j := &s.jumps[at]; isJump(spec, name) {
			j.count++
			j.first = j.first || rules[at] == 0
		}
		rules[at]++
	}
	s.listing = readListing(f, name, text)
	return s
}

// isJump reports whether a rule is the bare jump to a chain, with counters or
// without.
func isJump(spec, name string) bool {
	if !strings.Contains(spec, "-j "+name) {
		return false
	}
	args, ok := splitArgs(spec)
	args, _ = cutCounters(args)
	return ok && slices.Equal(args, []string{"-j", name})
}

// faults says in words what is not as Init makes it.
func (s *structure) faults() []string {
	switch {
	case !s.chain:
		return []string{"chain " + s.name + " is missing"}
	case s.hidden:
		return []string{"chain " + s.name + " has rules that only nft can show"}
	}
	var out []string
	for _, j := range s.jumps {
		switch {
		case j.count == 0:
			out = append(out, "jump from "+j.from+" is missing")
		case !j.first:
			out = append(out, "jump from "+j.from+" is no longer first")
		case j.count > 1:
			out = append(out, fmt.Sprintf("%d jumps from %s", j.count, j.from))
		}
	}
	switch {
	case s.guarded:
	case len(s.guards) < len(s.family.guards):
		out = append(out, "rules for neighbour discovery are missing")
	default:
		out = append(out, "rules for neighbour discovery are no longer first")
	}
	return out
}

// mend is the commands that make the structure as it should be, and take out
// the probes that a killed process left. What is hidden goes.
func (s *structure) mend() []string {
	var out []string
	switch {
	case !s.chain:
		out = append(out, "-N "+s.name)
	case s.hidden:
		out = append(out, "-F "+s.name)
	}
	for _, args := range s.probes {
		out = append(out, "-D "+s.name+" "+quoteArgs(args))
	}
	if !s.guarded {
		for _, args := range s.guards {
			out = append(out, "-D "+s.name+" "+quoteArgs(args))
		}
		for i, n := range s.family.guards {
			out = append(out, fmt.Sprintf("-I %s %d %s", s.name, i+1, quoteArgs(guard(n))))
		}
	}
	for _, j := range s.jumps {
		if !j.right() {
			out = append(append(out, j.unjump(s.name)...), "-I "+j.from+" 1 -j "+s.name)
		}
	}
	return out
}

// unjump is the commands that take the bare jumps out.
func (j jump) unjump(name string) []string {
	return slices.Repeat([]string{"-D " + j.from + " -j " + name}, j.count)
}

// empty is the commands that leave the chain without jumps and rules.
func (s *structure) empty() []string {
	var out []string
	for _, j := range s.jumps {
		out = append(out, j.unjump(s.name)...)
	}
	return append(out, "-F "+s.name)
}

// reading is what the kernel has of ours, by family; nil is a family without
// iptables.
type reading struct {
	structures [numFamilies]*structure
	// changed: the blocks are not what they were taken for.
	changed bool
}

// lines is every rule of ours, along the chains.
func (r reading) lines() []line {
	var out []line
	for _, s := range r.structures {
		if s != nil {
			out = append(out, s.lines...)
		}
	}
	return out
}

// fault is backend.ErrGone where no family has our chain, backend.ErrDamaged
// with all reasons where something is not as Init makes it, and nil else.
func (r reading) fault() error {
	var (
		reasons []string
		there   bool
	)
	for _, s := range r.structures {
		if s == nil {
			continue
		}
		there = there || s.chain
		for _, f := range s.faults() {
			reasons = append(reasons, f+" ("+s.family.label+")")
		}
	}
	switch {
	case !there:
		return opError("list", backend.ErrGone)
	case len(reasons) > 0:
		return opError("list", fmt.Errorf("%w: %s", backend.ErrDamaged, strings.Join(reasons, "; ")))
	}
	return nil
}

// gone reports whether a family's chain is missing.
func (r reading) gone() bool {
	return slices.ContainsFunc(r.structures[:], func(s *structure) bool { return s != nil && !s.chain })
}

// misses is backend.ErrGone where the change names a block of a family whose
// chain is missing.
func (r reading) misses(c backend.Change) error {
	var errs []error
	for i, s := range r.structures {
		if s == nil || s.chain {
			continue
		}
		here := func(b backend.Block) bool { return familyOf(b.Prefix.Addr()) == i }
		if slices.ContainsFunc(c.Add, here) || slices.ContainsFunc(c.Remove, here) {
			errs = append(errs, fmt.Errorf("%w: chain %s is missing (%s)", backend.ErrGone, s.name, s.family.label))
		}
	}
	return errors.Join(errs...)
}
