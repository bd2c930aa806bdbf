package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
)

// stdinArg stands for standard input as an argument of block and unblock.
const stdinArg = "-"

// maxLine bounds a line of a list of addresses.
const maxLine = 64 << 10

// BlockRequest is what the flags of block say.
type BlockRequest struct {
	For    string // empty unless HasFor
	HasFor bool
	Reason string
	Target string
	Action string
	Force  bool
}

// Validate checks everything that can be wrong with a block before the kernel
// is touched; the error asks for exit code 2.
func (r *BlockRequest) Validate(address string) error {
	_, err := r.request(netip.Prefix{}, 0)
	if err == nil && address != stdinArg {
		return ValidateAddress(address)
	}
	if err != nil {
		return &ExitError{ExitUsage, err}
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

// request makes the firewall's request; fallback is the duration without --for.
func (r *BlockRequest) request(p netip.Prefix, fallback time.Duration) (firewall.Request, error) {
	req := firewall.Request{Prefix: p, Duration: fallback, Rule: firewall.ManualRule, Reason: r.Reason, Force: r.Force}
	var err error
	if r.HasFor {
		if req.Duration, err = engine.ParseDuration(r.For); err != nil {
			return req, fmt.Errorf("--for %q: %w", r.For, err)
		}
	}
	if req.Target, err = backend.ParseTarget(r.Target); err != nil {
		return req, err
	}
	if req.Action, err = backend.ParseAction(r.Action); err != nil {
		return req, err
	}
	if !req.Action.Stops() {
		return req, fmt.Errorf("%w: action %q (use drop, reject or reject-reset)", backend.ErrInvalid, r.Action)
	}
	return req, nil
}

// Kernel is the kernel's blocks, opened for one verb.
type Kernel struct {
	m      *firewall.Manager
	std    Streams
	output string
}

// WithKernel opens the kernel, beside a running guard if there is one, calls
// work and leaves the blocks in force. Without a guard and without a block,
// nothing of ours stays behind.
func WithKernel(ctx context.Context, cfg Config, log *slog.Logger, std Streams, work func(*Kernel) error) error {
	mcfg := cfg.Manager(log)
	if err := chooseBackend(ctx, mcfg); err != nil {
		return err
	}
	m, err := firewall.NewManager(mcfg)
	if errors.Is(err, firewall.ErrInUse) {
		mcfg.Attach = true
		m, err = firewall.NewManager(mcfg)
	}
	if err != nil {
		return err
	}
	err = work(&Kernel{m: m, std: std, output: cfg.Output})
	end := m.Detach
	if !mcfg.Attach && len(m.GetActiveBlocks()) == 0 {
		end = m.Close
	}
	return errors.Join(err, end())
}

// chooseBackend settles auto: a backend that holds blocks of ours wins over
// the one a new guard would choose, so that a verb finds what a guard with
// --backend=iptables made.
func chooseBackend(ctx context.Context, mcfg *firewall.ManagerConfig) error {
	if mcfg.Backend != firewall.BackendAuto || mcfg.DryRun {
		return nil
	}
	held, err := firewall.Inspect(ctx, mcfg)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		mcfg.Backend = held[0].Backend
	}
	return nil
}

// Block blocks one address or prefix, or with "-" one a line from standard
// input.
func (k *Kernel) Block(ctx context.Context, address string, r BlockRequest) error {
	return k.each(address, func(p netip.Prefix) error {
		req, err := r.request(p, k.m.DefaultDuration())
		if err != nil {
			return err
		}
		res, err := k.m.Block(ctx, req)
		if err != nil {
			return err
		}
		if res.Outcome == firewall.Whitelisted {
			if why := k.m.Protected(p); why != "" && !k.m.Whitelisted(p) {
				return fmt.Errorf("%v is protected (%s): not blocked; --force blocks it all the same", p, why)
			}
			return fmt.Errorf("%v is whitelisted: not blocked", p)
		}
		return k.say(res.Block, res.Outcome.String())
	})
}

// Unblock lifts the block of one prefix, or with "-" of one a line.
func (k *Kernel) Unblock(ctx context.Context, address string) error {
	return k.each(address, func(p netip.Prefix) error {
		lifted, err := k.m.Unblock(ctx, p)
		if err != nil {
			return err
		}
		for _, b := range lifted {
			if err := k.say(b, "unblocked"); err != nil {
				return err
			}
		}
		if len(lifted) > 0 {
			return nil
		}
		if around := k.m.Covering(p); len(around) > 0 {
			return Exit(ExitNotFound, "%v is not blocked by itself: it is inside the blocked %s", p, around[0].IP)
		}
		return Exit(ExitNotFound, "%v is not blocked", p)
	})
}

// Flush lifts every block.
func (k *Kernel) Flush(context.Context) error { return k.m.Flush() }

// each calls f for the one address, or for each line of standard input. Of a
// list the good lines are carried out, the others named with their number,
// and the exit code is 1.
func (k *Kernel) each(address string, f func(netip.Prefix) error) error {
	if address != stdinArg {
		p, err := firewall.ParsePrefix(address)
		if err != nil {
			return &ExitError{ExitUsage, err}
		}
		return f(p)
	}
	var errs []error
	sc := bufio.NewScanner(k.std.In)
	sc.Buffer(nil, maxLine)
	for n := 1; sc.Scan(); n++ {
		line, _, _ := strings.Cut(sc.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		p, err := firewall.ParsePrefix(line)
		if err == nil {
			err = f(p)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
		}
	}
	if err := sc.Err(); err != nil {
		errs = append(errs, fmt.Errorf("standard input: %w", err))
	}
	if len(errs) > 0 {
		return &ExitError{ExitFailed, errors.Join(errs...)}
	}
	return nil
}

// say prints what became of one block.
func (k *Kernel) say(b firewall.BlockInfo, what string) error {
	if k.output == OutputJSON {
		return writeJSON(k.std.Out, blockJSON(b, time.Now()))
	}
	_, err := fmt.Fprintf(k.std.Out, "%s %s (%s, %s, %s)\n", what, b.IP, b.Action, b.Target, lifetime(b, time.Now()))
	return err
}

func lifetime(b firewall.BlockInfo, now time.Time) string {
	if b.ExpiresAt.IsZero() {
		return "permanent"
	}
	return max(b.ExpiresAt.Sub(now), 0).Round(time.Second).String() + " left"
}

// List prints what the kernel enforces; it changes nothing there.
func List(ctx context.Context, cfg Config, log *slog.Logger, std Streams) error {
	held, err := firewall.Inspect(ctx, cfg.Manager(log))
	if err != nil {
		return err
	}
	var blocks []firewall.BlockInfo
	for _, h := range held {
		blocks = append(blocks, h.Blocks...)
	}
	now := time.Now()
	if cfg.Output == OutputJSON {
		for _, b := range blocks {
			if err := writeJSON(std.Out, blockJSON(b, now)); err != nil {
				return err
			}
		}
		return nil
	}
	if len(blocks) == 0 {
		_, err := fmt.Fprintln(std.Err, "no blocks")
		return err
	}
	w := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ADDRESS\tTARGET\tACTION\tLIFETIME\tRULE\tREASON")
	for _, b := range blocks {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", b.IP, b.Target, b.Action, lifetime(b, now), b.RuleName, b.Reason)
	}
	return w.Flush()
}

// Cleanup takes everything of ours out of the kernel.
func Cleanup(ctx context.Context, cfg Config, log *slog.Logger, std Streams) error {
	if err := firewall.Cleanup(ctx, cfg.Manager(log)); err != nil {
		return err
	}
	if !cfg.Quiet {
		fmt.Fprintln(std.Err, "nothing of ours is left in the kernel")
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = w.Write(append(data, '\n'))
	return err
}
