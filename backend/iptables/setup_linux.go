package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/netcap-guard/netcap-guard/backend"
)

// made is what setup added to the kernel, so that it can be taken back.
type made struct {
	chain  bool
	guards bool
	jumps  []jump
	probes [][]string
}

// setup makes what is missing: the chain, the rules that pass before every
// block, the jumps. It returns what it found. If it fails, nothing that it made
// is left.
func (c *chain) setup(ctx context.Context) (s *structure, m made, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, c.undo(context.WithoutCancel(ctx), m))
			m = made{}
		}
	}()
	if s, err = c.read(ctx); err != nil {
		return nil, m, err
	}
	if s.hidden {
		return nil, m, opError("adopt chain "+c.name+" ("+c.label+")",
			fmt.Errorf("%w: it has rules that only nft can show (take them out, or remove the chain: netcap-guard cleanup)", backend.ErrUnsupported))
	}
	if err := c.probe(ctx, s, &m); err != nil {
		return nil, m, err
	}
	if err := c.restore(ctx, "make chain "+c.name+" and the jumps to it", s.mend()); err != nil {
		return nil, m, err
	}
	m.probes = nil // taken out
	m.chain = m.chain || !s.chain
	m.guards = len(c.guards) > 0 && len(s.guards) == 0
	for _, j := range s.jumps {
		if j.count == 0 {
			m.jumps = append(m.jumps, jump{from: j.from, count: 1})
		}
	}
	return s, m, nil
}

// undo takes back what setup made.
func (c *chain) undo(ctx context.Context, m made) error {
	var lines []string
	for _, j := range m.jumps {
		lines = append(lines, j.unjump(c.name)...)
	}
	switch {
	case m.chain:
		lines = append(lines, "-F "+c.name, "-X "+c.name)
	case m.guards:
		for _, n := range c.guards {
			lines = append(lines, "-D "+c.name+" "+quoteArgs(guard(n)))
		}
	}
	for _, rule := range m.probes {
		if !m.chain {
			lines = append(lines, "-D "+c.name+" "+quoteArgs(rule))
		}
	}
	return c.restore(ctx, "take back what was made", lines)
}

// need is one match or target that our rules use.
type need struct {
	module string
	rule   []string
	// without is called where it is missing; nil means that nothing works
	// without it.
	without func(*features)
}

func (c *chain) needs() []need {
	out := []need{
		{"xt_comment", c.neverRule("-m", "comment", "--comment", "NETCAP probe"), nil},
		{"xt_time", c.neverRule("-m", "time", "--datestop", "2030-01-01T00:00:00"), func(f *features) { f.noTime = true }},
		{"xt_iprange", c.neverRule("-m", "iprange", "!", "--src-range", c.never+"-"+c.never), func(f *features) { f.noRange = true }},
		{c.reject, c.neverRule("-j", "REJECT", "--reject-with", c.unreachable), func(f *features) { f.noReject = true }},
		{"xt_hashlimit", c.neverRule(above(defaultRejectRate)...), func(f *features) { f.noHashlimit = true }},
		{"xt_NFLOG", c.neverRule("-j", "NFLOG", "--nflog-group", strconv.Itoa(int(c.can.group))), func(f *features) { f.noLog = true }},
	}
	if len(c.guards) > 0 {
		out = append(out, need{"xt_hl", c.neverRule(guard(c.guards[0])...), nil})
	}
	return out
}

// probe finds out, once, which matches and targets the kernel and the program
// have, by adding rules that no packet can match. It makes the chain where it
// is missing, and leaves the rules to s.mend.
func (c *chain) probe(ctx context.Context, s *structure, m *made) error {
	if c.probed {
		return nil
	}
	var lines []string
	if !s.chain {
		lines = append(lines, "-N "+c.name)
	}
	var rules [][]string
	for _, n := range c.needs() {
		rules = append(rules, n.rule)
		at := "-A " + c.name
		if len(rules) == 1 {
			at = fmt.Sprintf("-I %s 1 -c %d %d", c.name, probePackets, probePackets)
		}
		lines = append(lines, at+" "+quoteArgs(n.rule))
	}
	err := c.restore(ctx, "try matches", lines)
	if err == nil {
		m.chain, m.probes = !s.chain, rules
		s.chain, s.probes, c.probed = true, append(s.probes, rules...), true
		return c.probeCounters(ctx)
	}
	c.can.noCounters = true // not known
	if !mayBeMissing(ctx, err) {
		return err
	}
	if !s.chain {
		err := c.step(ctx, "make chain "+c.name, func() error { return c.ipt.NewChain(table, c.name) })
		if err != nil {
			return err
		}
		m.chain, s.chain = true, true
	}
	for _, n := range c.needs() {
		if err := c.probeOne(ctx, n); err != nil {
			return err
		}
	}
	c.probed = true
	return nil
}

// probePackets is what the first probe pretends to have matched.
const probePackets = 7

// probeCounters finds out, from the first rule, whether the program gives a new
// rule the counters that it is told.
func (c *chain) probeCounters(ctx context.Context) error {
	return c.step(ctx, "try counters", func() error {
		text, err := c.output("-v", "-S", c.name, "1")
		if err != nil {
			return err
		}
		c.can.noCounters = !slices.ContainsFunc(text, func(t string) bool {
			args, ok := splitArgs(inlineCounters(t))
			_, n := cutCounters(args)
			return ok && n.packets == probePackets
		})
		return nil
	})
}

// probeOne tries one match or target.
func (c *chain) probeOne(ctx context.Context, n need) error {
	err := c.step(ctx, "try "+n.module, func() error { return c.ipt.Append(table, c.name, n.rule...) })
	switch {
	case err == nil:
		return c.step(context.WithoutCancel(ctx), "remove tried "+n.module, func() error {
			return c.ipt.Delete(table, c.name, n.rule...)
		})
	case !mayBeMissing(ctx, err):
		return err
	case n.without == nil:
		return fmt.Errorf("%w: kernel module %s is missing (load it, or use backend nft): %w", backend.ErrUnavailable, n.module, err)
	}
	n.without(&c.can)
	return nil
}

// mayBeMissing reports whether a failure can come from a missing module.
func mayBeMissing(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, backend.ErrLocked) && !errors.Is(err, backend.ErrPermission)
}
