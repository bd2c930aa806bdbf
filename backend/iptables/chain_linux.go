package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	goiptables "github.com/coreos/go-iptables/iptables"

	"github.com/netcap-guard/netcap-guard/backend"
)

const table = "filter"

// chain is our chain in the filter table of one family. Every method runs
// programs one after another and looks at ctx before each; a program that runs
// is not interrupted, because what it leaves behind would be unknown. The lock
// timeout bounds how long it can take.
type chain struct {
	family
	name        string
	ipt         *goiptables.IPTables
	variant     string // as configured
	path        string
	restorePath string
	wait        int // seconds
	can         features
	probed      bool
	foreign     int // rules of somebody else in the last listing
}

// openChain finds the family's programs. Nothing is changed.
func openChain(f family, cfg Config) (*chain, error) {
	tool := f.tool
	if cfg.Variant != "" {
		tool += "-" + cfg.Variant
	}
	c := &chain{family: f, name: cfg.Chain, variant: cfg.Variant, wait: cfg.lockSeconds(), can: features{rejectRate: cfg.RejectRate, chain: cfg.Chain, group: cfg.LogGroup}}
	var err error
	if c.path, err = program(tool); err != nil {
		return nil, err
	}
	if c.restorePath, err = program(tool + "-restore"); err != nil {
		return nil, err
	}
	proto := goiptables.ProtocolIPv4
	if f.index == 1 {
		proto = goiptables.ProtocolIPv6
	}
	c.ipt, err = goiptables.New(goiptables.IPFamily(proto), goiptables.Timeout(c.wait), goiptables.Path(tool))
	if err != nil {
		return nil, fmt.Errorf("%w: %s --version: %w", backend.ErrUnavailable, tool, err)
	}
	return c, nil
}

func program(name string) (path string, err error) {
	if path, err = exec.LookPath(name); err != nil {
		return "", fmt.Errorf("%w: no program %s in PATH (install package iptables)", backend.ErrUnavailable, name)
	}
	return path, nil
}

// step runs one operation, unless ctx has ended, and translates its error.
func (c *chain) step(ctx context.Context, op string, run func() error) error {
	if err := ctx.Err(); err != nil {
		return opError(op, err)
	}
	err := run()
	if e, ok := errors.AsType[*goiptables.Error](err); ok {
		// The error repeats the command, and with it texts that are not the
		// program's own (comments); what it wrote comes behind them.
		_, text := cutLast(e.Error(), "]: exit status "+strconv.Itoa(e.ExitStatus())+": ")
		err = translate(e.ExitStatus(), text)
	}
	return opError(op+" ("+c.label+")", err)
}

func cutLast(s, sep string) (before, after string) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):]
	}
	return "", s
}

// apply makes one edit of the chain: all of it or nothing. A single addition
// or removal is one run of iptables, everything else one transaction of
// iptables-restore; both take the same time.
func (c *chain) apply(ctx context.Context, e edit) error {
	switch {
	case len(e.mend) > 0:
	case len(e.add) == 1 && len(e.del) == 0:
		return c.step(ctx, "append rule", func() error {
			_, err := c.output(append(c.verb(e.add[0]), e.add[0].spec()...)...)
			return err
		})
	case len(e.del) == 1 && len(e.add) == 0:
		return c.step(ctx, "delete rule", func() error {
			_, err := c.output(append([]string{"-D", c.name}, e.del[0].spec()...)...)
			return err
		})
	}
	lines := make([]string, 0, len(e.mend)+len(e.del)+len(e.add))
	lines = append(lines, e.mend...)
	for _, l := range e.del {
		lines = append(lines, "-D "+c.name+" "+l.quoted())
	}
	for _, l := range e.add {
		lines = append(lines, strings.Join(c.verb(l), " ")+" "+l.quoted())
	}
	return c.restore(ctx, "change rules", lines)
}

// verb is how a rule gets into the chain: kernel log rules before all others,
// for they come before any block, and with what the rule has counted so far.
func (c *chain) verb(l *line) []string {
	v := []string{"-A", c.name}
	if l.rule.role == roleLog {
		v = []string{"-I", c.name, "1"}
	}
	if l.tally != (tally{}) && !c.can.noCounters {
		v = append(v, "-c", strconv.FormatUint(l.tally.packets, 10), strconv.FormatUint(l.tally.bytes, 10))
	}
	return v
}

// restore commits commands as one transaction. Without commands it does
// nothing.
func (c *chain) restore(ctx context.Context, op string, commands []string) error {
	if len(commands) == 0 {
		return nil
	}
	return c.step(ctx, op, func() error {
		var in, stderr bytes.Buffer
		in.WriteString("*" + table + "\n")
		for _, l := range commands {
			if strings.ContainsAny(l, "\n\x00") {
				// Comments hold none, but the rules of somebody else may.
				return fmt.Errorf("%w: a rule with a line break: %q", backend.ErrInvalid, l)
			}
			in.WriteString(l)
			in.WriteByte('\n')
		}
		in.WriteString("COMMIT\n")
		cmd := exec.Command(c.restorePath, "--noflush", "--wait", strconv.Itoa(c.wait))
		cmd.Stdin, cmd.Stderr = &in, &stderr
		err := cmd.Run()
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			return translate(e.ExitCode(), stderr.String())
		}
		return err
	})
}

// list reads the chain. A missing chain is backend.ErrGone.
func (c *chain) list(ctx context.Context) (listing, error) {
	var text []string
	err := c.step(ctx, "list chain "+c.name, func() error {
		var err error
		text, err = c.ipt.List(table, c.name)
		return err
	})
	if errors.Is(err, errMissing) {
		err = opError("list chain "+c.name+" ("+c.label+")", backend.ErrGone)
	}
	if err != nil {
		return listing{}, err
	}
	l := readListing(c.family, c.name, text)
	c.foreign = l.foreign
	return l, nil
}

// read reads the chain and what leads to it. A missing chain is no error.
//
// One listing of the whole table is one moment of it. Where somebody else's
// rules are beyond iptables-nft, the listing fails though our chain can be
// read: then chain by chain.
func (c *chain) read(ctx context.Context) (*structure, error) {
	var (
		text   []string
		hidden bool
	)
	err := c.step(ctx, "list table "+table, func() (err error) {
		text, err = c.output("-v", "-S")
		return err
	})
	if errors.Is(err, errMissing) {
		text, hidden, err = c.readChains(ctx)
	}
	if err != nil {
		return nil, err
	}
	s := readStructure(c.family, c.name, text)
	s.hidden = hidden
	c.foreign = s.foreign
	return &s, nil
}

// readChains reads the built-in chains and ours. hidden reports that ours is
// there and cannot be read.
func (c *chain) readChains(ctx context.Context) (text []string, hidden bool, err error) {
	var own []string
	for _, n := range append(builtins(), c.name) {
		err = c.step(ctx, "list chain "+n, func() (err error) {
			own, err = c.output("-v", "-S", n)
			return err
		})
		if n == c.name && errors.Is(err, errMissing) {
			return c.isHidden(ctx, text)
		}
		if errors.Is(err, errMissing) {
			err = opError("list chain "+n+" ("+c.label+")",
				fmt.Errorf("%w: it has rules that only nft can show (use backend nft): %w", backend.ErrUnsupported, err))
		}
		if err != nil {
			return nil, false, err
		}
		text = append(text, own...)
	}
	return text, false, nil
}

// isHidden tells a chain that is missing from one that cannot be read: a jump
// to one that is missing is refused in other words.
func (c *chain) isHidden(ctx context.Context, text []string) ([]string, bool, error) {
	err := c.step(ctx, "look for chain "+c.name, func() error {
		_, err := c.output("-C", "INPUT", "-j", c.name)
		return err
	})
	switch {
	case errors.Is(err, errNoTarget):
		return text, false, nil
	case err == nil || errors.Is(err, errMissing):
		return append(text, "-N "+c.name), true, nil
	}
	return nil, false, err
}

// output runs the program on the table and returns its lines.
func (c *chain) output(args ...string) ([]string, error) {
	var out, stderr bytes.Buffer
	cmd := exec.Command(c.path, append([]string{"--wait", strconv.Itoa(c.wait), "-t", table}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, translate(e.ExitCode(), stderr.String())
	}
	return strings.Split(out.String(), "\n"), err
}

// count lists our rules with the packets that they matched. A missing chain is
// backend.ErrGone.
func (c *chain) count(ctx context.Context) ([]line, error) {
	var text []string
	err := c.step(ctx, "count packets of chain "+c.name, func() (err error) {
		text, err = c.output("-v", "-S", c.name)
		return err
	})
	if errors.Is(err, errMissing) {
		return nil, opError("count packets of chain "+c.name+" ("+c.label+")", backend.ErrGone)
	}
	return readListing(c.family, c.name, text).lines, err
}

// remove takes our jumps out and deletes the chain with all that is in it, as
// they were read. Where somebody else's rule jumps to the chain, the rest goes
// and the error says so.
func (c *chain) remove(ctx context.Context, s *structure) error {
	if !s.chain {
		return nil
	}
	commands := s.empty()
	err := c.restore(ctx, "delete chain "+c.name, append(commands, "-X "+c.name))
	if err == nil || final(err) {
		return err
	}
	// The legacy program does not say why a transaction failed, but it does
	// for a single command.
	if err := c.restore(ctx, "empty chain "+c.name, commands); err != nil {
		return err
	}
	return c.step(ctx, "delete chain "+c.name, func() error { return c.ipt.DeleteChain(table, c.name) })
}
