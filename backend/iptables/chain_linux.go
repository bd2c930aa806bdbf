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
	c := &chain{family: f, name: cfg.Chain, wait: cfg.lockSeconds(), can: features{rejectRate: cfg.RejectRate}}
	for _, program := range []string{tool, tool + "-restore"} {
		path, err := exec.LookPath(program)
		if err != nil {
			return nil, fmt.Errorf("%w: no program %s in PATH (install package iptables)", backend.ErrUnavailable, program)
		}
		c.restorePath = path
	}
	proto := goiptables.ProtocolIPv4
	if f.index == 1 {
		proto = goiptables.ProtocolIPv6
	}
	var err error
	c.ipt, err = goiptables.New(goiptables.IPFamily(proto), goiptables.Timeout(c.wait), goiptables.Path(tool))
	if err != nil {
		return nil, fmt.Errorf("%w: %s --version: %w", backend.ErrUnavailable, tool, err)
	}
	return c, nil
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
	case e.empty():
		return nil
	case len(e.add) == 1 && len(e.del) == 0:
		return c.step(ctx, "append rule", func() error { return c.ipt.Append(table, c.name, e.add[0].spec...) })
	case len(e.del) == 1 && len(e.add) == 0:
		return c.step(ctx, "delete rule", func() error { return c.ipt.Delete(table, c.name, e.del[0].spec...) })
	}
	lines := make([]string, 0, len(e.del)+len(e.add))
	for _, l := range e.del {
		lines = append(lines, "-D "+c.name+" "+quoteArgs(l.spec))
	}
	for _, l := range e.add {
		lines = append(lines, "-A "+c.name+" "+quoteArgs(l.spec))
	}
	return c.restore(ctx, "change rules", lines)
}

// restore commits commands as one transaction.
func (c *chain) restore(ctx context.Context, op string, commands []string) error {
	return c.step(ctx, op, func() error {
		var in, stderr bytes.Buffer
		in.WriteString("*" + table + "\n")
		for _, l := range commands {
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

// exists reports whether the chain is there.
func (c *chain) exists(ctx context.Context) (ok bool, err error) {
	err = c.step(ctx, "look for chain "+c.name, func() error {
		var err error
		ok, err = c.ipt.ChainExists(table, c.name)
		return err
	})
	return ok, err
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

// jumps counts the bare jumps to our chain in a built-in chain, and reports
// whether one is its first rule.
func (c *chain) jumps(ctx context.Context, from string) (count int, first bool, err error) {
	err = c.step(ctx, "list chain "+from, func() error {
		text, err := c.ipt.List(table, from)
		rules := 0
		for _, l := range text {
			if !strings.HasPrefix(l, "-A ") {
				continue
			}
			if l == "-A "+from+" -j "+c.name {
				count++
				first = first || rules == 0
			}
			rules++
		}
		return err
	})
	return count, first, err
}

// jump makes a bare jump to our chain the first rule of a built-in chain, and
// the only one. It reports whether it added one where there was none.
func (c *chain) jump(ctx context.Context, from string) (added bool, err error) {
	count, first, err := c.jumps(ctx, from)
	switch {
	case err != nil || count == 1 && first:
		return false, err
	case count == 0:
		err = c.step(ctx, "insert jump into "+from, func() error { return c.ipt.Insert(table, from, 1, "-j", c.name) })
		return err == nil, err
	}
	// In one transaction, so that no packet comes past the blocks.
	var lines []string
	for range count {
		lines = append(lines, "-D "+from+" -j "+c.name)
	}
	lines = append(lines, "-I "+from+" 1 -j "+c.name)
	return false, c.restore(ctx, "move jump to the front of "+from, lines)
}

// unjump removes our jumps from a built-in chain.
func (c *chain) unjump(ctx context.Context, from string) error {
	count, _, err := c.jumps(ctx, from)
	for ; count > 0 && err == nil; count-- {
		err = c.step(ctx, "delete jump from "+from, func() error { return c.ipt.Delete(table, from, "-j", c.name) })
	}
	return err
}

// remove takes our jumps out and deletes the chain with all that is in it.
func (c *chain) remove(ctx context.Context) error {
	var errs []error
	for _, from := range builtins() {
		errs = append(errs, c.unjump(ctx, from))
	}
	errs = append(errs, c.step(ctx, "delete chain "+c.name, func() error {
		return c.ipt.ClearAndDeleteChain(table, c.name)
	}))
	return errors.Join(errs...)
}
