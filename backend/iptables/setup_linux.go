package iptables

import (
	"context"
	"errors"
	"fmt"

	"github.com/netcap-guard/netcap-guard/backend"
)

// made is what setup added to the kernel, so that it can be taken back.
type made struct {
	chain  bool
	guards bool
	jumps  []string
}

// setup makes what is missing: the chain, the rules that pass before every
// block, the jumps. If it fails, nothing that it made is left.
func (c *chain) setup(ctx context.Context) (m made, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, c.undo(context.WithoutCancel(ctx), m))
		}
	}()
	there, err := c.exists(ctx)
	if err != nil {
		return m, err
	}
	if !there {
		err = c.step(ctx, "make chain "+c.name, func() error { return c.ipt.NewChain(table, c.name) })
		if err != nil {
			return m, err
		}
		m.chain = true
	}
	if err := c.probe(ctx); err != nil {
		return m, err
	}
	if m.guards, err = c.guard(ctx); err != nil {
		return m, err
	}
	for _, from := range builtins() {
		added, err := c.jump(ctx, from)
		if err != nil {
			return m, err
		}
		if added {
			m.jumps = append(m.jumps, from)
		}
	}
	return m, nil
}

// undo takes back what setup made.
func (c *chain) undo(ctx context.Context, m made) error {
	var errs []error
	for _, from := range m.jumps {
		errs = append(errs, c.unjump(ctx, from))
	}
	if m.guards && !m.chain {
		var lines []string
		for _, n := range c.guards {
			lines = append(lines, "-D "+c.name+" "+quoteArgs(guard(n)))
		}
		errs = append(errs, c.restore(ctx, "delete neighbour discovery rules", lines))
	}
	if m.chain {
		errs = append(errs, c.step(ctx, "delete chain "+c.name, func() error {
			return c.ipt.ClearAndDeleteChain(table, c.name)
		}))
	}
	return errors.Join(errs...)
}

// guard puts the neighbour discovery rules in front, and removes probes that a
// killed process left. It reports whether there were no such rules before.
func (c *chain) guard(ctx context.Context) (added bool, err error) {
	l, err := c.list(ctx)
	if err != nil || l.guarded && len(l.probes) == 0 {
		return false, err
	}
	var lines []string
	for _, args := range l.probes {
		lines = append(lines, "-D "+c.name+" "+quoteArgs(args))
	}
	if !l.guarded {
		for _, args := range l.guards {
			lines = append(lines, "-D "+c.name+" "+quoteArgs(args))
		}
		for i, n := range c.guards {
			lines = append(lines, fmt.Sprintf("-I %s %d %s", c.name, i+1, quoteArgs(guard(n))))
		}
	}
	err = c.restore(ctx, "insert neighbour discovery rules", lines)
	return err == nil && len(c.guards) > 0 && len(l.guards) == 0, err
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
	}
	if c.can.rejectRate > 0 {
		out = append(out, need{"xt_hashlimit", c.neverRule(above(c.can.rejectRate)...), func(f *features) { f.noHashlimit = true }})
	}
	if len(c.guards) > 0 {
		out = append(out, need{"xt_hl", c.neverRule(guard(c.guards[0])...), nil})
	}
	return out
}

// probe finds out, once, which matches and targets the kernel and the program
// have, by adding rules that no packet can match and removing them again.
func (c *chain) probe(ctx context.Context) error {
	if c.probed {
		return nil
	}
	var add, del []string
	for _, n := range c.needs() {
		add = append(add, "-A "+c.name+" "+quoteArgs(n.rule))
		del = append(del, "-D "+c.name+" "+quoteArgs(n.rule))
	}
	err := c.restore(ctx, "try matches", add)
	if err == nil {
		c.probed = true
		return c.restore(context.WithoutCancel(ctx), "remove tried matches", del)
	}
	if !mayBeMissing(ctx, err) {
		return err
	}
	for _, n := range c.needs() {
		if err := c.probeOne(ctx, n); err != nil {
			return err
		}
	}
	c.probed = true
	return nil
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
