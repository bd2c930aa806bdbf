package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
)

// stdinArg stands for standard input as an argument.
const stdinArg = "-"

// BlockRequest is what the flags of block say.
type BlockRequest struct {
	For    string // empty unless HasFor
	HasFor bool
	Reason string
	Target string
	Action string
	Force  bool
	Rate   string // empty = the default, of a rate limit
	Burst  int64  // 0 = the default
}

// Validate checks everything that can be wrong with a block before the kernel
// is touched; the error asks for exit code 2.
func (r *BlockRequest) Validate(address string) error {
	if _, err := r.entry(netip.Prefix{}); err != nil {
		return &ExitError{ExitUsage, err}
	}
	if err := ValidateAddress(address); err != nil || address == stdinArg || r.Force {
		return err
	}
	if p, err := firewall.ParsePrefix(address); err == nil && p.Bits() == 0 {
		return &ExitError{ExitUsage, fmt.Errorf("%w: %v would block everybody", backend.ErrInvalid, p)}
	}
	return nil
}

// ValidateAddress checks that an argument is an address, a CIDR or -; the
// error asks for exit code 2.
func ValidateAddress(address string) error {
	if address == stdinArg {
		return nil
	}
	if _, err := firewall.ParsePrefix(address); err != nil {
		return &ExitError{ExitUsage, err}
	}
	return nil
}

func (r *BlockRequest) entry(p netip.Prefix) (BlockEntry, error) {
	e := BlockEntry{Prefix: p, Target: r.Target, Action: r.Action, Reason: r.Reason, Force: r.Force, Rate: r.Rate, Burst: r.Burst}
	if r.HasFor {
		d, err := engine.ParseDuration(r.For)
		if err != nil {
			return e, fmt.Errorf("--for %q: %w", r.For, err)
		}
		e.Duration = &d
	}
	if _, err := backend.ParseTarget(r.Target); err != nil {
		return e, err
	}
	action, err := stopping(r.Action)
	if err != nil {
		return e, err
	}
	if _, err := e.limit(action); err != nil {
		return e, err
	}
	return e, nil
}

// Verb is one verb under way.
type Verb struct {
	admin admin
	std   Streams
	json  bool
	quiet bool
	// flushed: all blocks were lifted on purpose; chain or table stay.
	flushed bool
}

// VerbConfig is what a verb works with.
type VerbConfig struct {
	Config
	Netns string
	Log   *slog.Logger
	Streams
}

func (c *VerbConfig) verb(a admin) *Verb {
	return &Verb{admin: a, std: c.Streams, json: c.Output == OutputJSON, quiet: c.Quiet}
}

// WithAdmin calls work with the running guard, or where none runs with the
// kernel itself. In the kernel it leaves the blocks in force; without a block,
// nothing of ours stays behind, but for the chain or table that a flush found.
func WithAdmin(ctx context.Context, c VerbConfig, work func(*Verb) error) error {
	r, err := c.dial()
	if err != nil {
		return err
	}
	if r != nil {
		err := work(c.verb(r))
		r.tellDryRun(c.Streams, c.Quiet)
		return err
	}
	mcfg := c.Manager(c.Log)
	existed, err := chooseBackend(ctx, mcfg)
	if err != nil {
		return err
	}
	if c.KillConnections && !c.DryRun {
		if killer := newConnKiller(ctx, c.Log); killer != nil {
			defer killer.close()
			mcfg.Killer = killer
		}
	}
	m, err := firewall.NewManager(mcfg)
	if errors.Is(err, firewall.ErrInUse) {
		mcfg.Attach = true // a guard without a socket
		m, err = firewall.NewManager(mcfg)
	}
	if err != nil {
		return err
	}
	prefixes, _, err := c.whitelistFiles() // names are for a guard, which waits for answers
	if err == nil && !mcfg.Attach {
		err = m.SetWhitelist(originFiles, prefixes)
	}
	v := c.verb(&local{m: m, direct: true, evidence: c.Evidence.Directory})
	if err == nil {
		err = work(v)
	}
	end := m.Detach
	if !mcfg.Attach && len(m.GetActiveBlocks()) == 0 && (!existed || !v.flushed) {
		end = m.Close
	}
	return errors.Join(err, end())
}

// WithGuard calls work with the running guard; without one it fails.
func WithGuard(c VerbConfig, work func(*Verb, Daemon) error) error {
	r, err := c.dial()
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("no guard is running (nobody answers on %s for this network namespace)", c.ControlPath(c.Netns))
	}
	err = work(c.verb(r), r)
	r.tellDryRun(c.Streams, c.Quiet)
	return err
}

// chooseBackend settles auto: a backend that holds blocks of ours wins over
// the one a new guard would choose, so that a verb finds what a guard with
// --backend=iptables made. It reports whether something of ours is there.
func chooseBackend(ctx context.Context, mcfg *firewall.ManagerConfig) (existed bool, err error) {
	if mcfg.DryRun {
		return false, nil
	}
	held, err := firewall.Inspect(ctx, mcfg)
	if err != nil || len(held) == 0 {
		return false, err
	}
	if mcfg.Backend == firewall.BackendAuto {
		mcfg.Backend = held[0].Backend
	}
	return true, nil
}

// Block blocks one address or prefix, or with "-" those of a list on standard
// input.
func (v *Verb) Block(ctx context.Context, address string, r BlockRequest) error {
	if address == stdinArg {
		return v.blockList(ctx, r)
	}
	p, err := firewall.ParsePrefix(address)
	if err != nil {
		return &ExitError{ExitUsage, err}
	}
	e, err := r.entry(p)
	if err != nil {
		return &ExitError{ExitUsage, err}
	}
	answers, err := v.admin.Block(ctx, []BlockEntry{e})
	if err != nil {
		return err
	}
	return v.settle(answers, judgeBlock, e.Action)
}

// judgeBlock is what is wrong with the answer to a block.
func judgeBlock(a Answer) error {
	switch {
	case a.Error != "":
		return errors.New(a.Error)
	case a.Result != firewall.Whitelisted.String():
		return nil
	case a.Why != "":
		return fmt.Errorf("%v is protected (%s): not blocked; --force blocks it all the same", a.Prefix, a.Why)
	}
	return fmt.Errorf("%v is whitelisted: not blocked", a.Prefix)
}

// Unblock lifts the block of one prefix, or with "-" of those of a list.
func (v *Verb) Unblock(ctx context.Context, address string) error {
	if address == stdinArg {
		return v.unblockList(ctx)
	}
	p, err := firewall.ParsePrefix(address)
	if err != nil {
		return &ExitError{ExitUsage, err}
	}
	answers, err := v.admin.Unblock(ctx, []netip.Prefix{p})
	if err != nil {
		return err
	}
	return v.settle(answers, judgeUnblock, "")
}

// judgeUnblock is what is wrong with the answer to an unblock.
func judgeUnblock(a Answer) error {
	switch {
	case a.Error != "":
		return errors.New(a.Error)
	case len(a.Blocks) > 0:
		return nil
	case a.Why != "":
		return Exit(ExitNotFound, "%v is not blocked by itself: it is inside the blocked %s", a.Prefix, a.Why)
	}
	return Exit(ExitNotFound, "%v is not blocked", a.Prefix)
}

// settle prints what became of one address; asked is the action of a block.
func (v *Verb) settle(answers []Answer, judge func(Answer) error, asked string) error {
	if len(answers) != 1 {
		return fmt.Errorf("the guard answered %d of 1", len(answers))
	}
	a := answers[0]
	if err := judge(a); err != nil {
		return err
	}
	for _, b := range a.Blocks {
		var err error
		if a.Result == firewall.Duplicate.String() {
			err = v.sayUnchanged(&b, asked)
		} else {
			err = v.say(&b, v.made(a.Result))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Cleanup takes everything of ours out of the kernel. A running guard would
// put it back, so it is told to end first.
func Cleanup(ctx context.Context, c VerbConfig) error {
	r, err := c.dial()
	if err != nil {
		return err
	}
	if r != nil {
		if err := r.Stop(ctx); err != nil {
			return fmt.Errorf("end the running guard: %w", err)
		}
		if err := waitGone(ctx, r.path); err != nil {
			return err
		}
	}
	if err := firewall.Cleanup(ctx, c.Manager(c.Log)); err != nil {
		return err
	}
	if !c.Quiet {
		_, err = io.WriteString(c.Err, "nothing of ours is left in the kernel\n")
	}
	return err
}

// waitGone waits until nobody answers on a control socket any more: the guard
// closes it after it has left the kernel.
func waitGone(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*drainLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for answers(path) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the guard does not end: %w", ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
