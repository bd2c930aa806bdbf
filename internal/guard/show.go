package guard

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/netcap-guard/netcap-guard/firewall"
)

// say prints what became of one block.
func (v *Verb) say(b *BlockObject, what string) error {
	if v.json {
		return writeJSON(v.std.Out, b)
	}
	_, err := fmt.Fprintf(v.std.Out, "%s %s (%s, %s, %s)\n", what, b.address(), b.what(), b.Target, b.life())
	return err
}

// address is the bare address of a single host, and the CIDR of a prefix.
func (b *BlockObject) address() string {
	p, err := netip.ParsePrefix(b.Prefix)
	if err != nil {
		return b.Prefix
	}
	return bare(p)
}

// what is the action as people read it, with the rate of a rate limit and the
// text of a log rule.
func (b *BlockObject) what() string {
	switch {
	case b.Limit != "":
		return b.Action + " " + b.Limit
	case b.LogPrefix != "":
		return b.Action + " " + strconv.Quote(b.LogPrefix)
	}
	return b.Action
}

// life is the remaining time as people read it.
func (b *BlockObject) life() string {
	if b.Remaining == nil {
		return "permanent"
	}
	return time.Duration(*b.Remaining*float64(time.Second)).Round(time.Second).String() + " left"
}

// List prints what the kernel enforces: a running guard's listing, else the
// kernel's own, in which it changes nothing.
func List(ctx context.Context, c VerbConfig) error {
	r, err := c.dial()
	if err != nil {
		return err
	}
	var blocks []BlockObject
	if r != nil {
		blocks, err = r.List(ctx)
		defer r.tellDryRun(c.Streams, c.Quiet)
	} else {
		blocks, err = inspected(ctx, c)
	}
	if err != nil {
		return err
	}
	if c.Output == OutputJSON {
		return eachJSON(c.Out, blocks)
	}
	return printBlocks(c.Streams, blocks)
}

func inspected(ctx context.Context, c VerbConfig) ([]BlockObject, error) {
	held, err := firewall.Inspect(ctx, c.Manager(c.Log))
	var out []BlockObject
	for _, h := range held {
		blocks := (&local{}).objects(h.Blocks)
		for i, n := range h.Packets {
			blocks[i].Packets = n
		}
		out = append(out, blocks...)
	}
	return out, err
}

func printBlocks(std Streams, blocks []BlockObject) error {
	if len(blocks) == 0 {
		_, err := fmt.Fprintln(std.Err, "no blocks")
		return err
	}
	w := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ADDRESS\tTARGET\tACTION\tLIFETIME\tPACKETS\tRULE\tREASON")
	for _, b := range blocks {
		packets := "-"
		if b.Packets != nil {
			packets = strconv.FormatUint(*b.Packets, 10)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", b.address(), b.Target, b.what(), b.life(), packets,
			orDash(b.Rule), orDash(b.Reason))
	}
	return w.Flush()
}

// Show prints everything about one address. Where it is not blocked, the exit
// code is 3.
func (v *Verb) Show(ctx context.Context, a netip.Addr) error {
	s, err := v.admin.Show(ctx, a)
	if err != nil {
		return err
	}
	if v.json {
		err = writeJSON(v.std.Out, s)
	} else {
		err = s.print(v.std)
	}
	if err == nil && len(s.Blocks) == 0 {
		return Exit(ExitNotFound, "%s is not blocked", s.IP)
	}
	return err
}

func (s *ShowObject) print(std Streams) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: blocked %v, whitelisted %v", s.IP, s.Blocked, s.Whitelisted)
	if s.Protected != nil {
		fmt.Fprintf(&b, ", protected (%s)", *s.Protected)
	}
	b.WriteByte('\n')
	for _, k := range s.Blocks {
		fmt.Fprintf(&b, "  %s %s (%s, %s), since %s", k.what(), k.address(), k.Target, k.life(), k.Created)
		if k.Packets != nil {
			did := "stopped"
			if k.LogPrefix != "" {
				did = "seen"
			}
			fmt.Fprintf(&b, ", %d packets %s", *k.Packets, did)
		}
		fmt.Fprintf(&b, "\n    rule %s, reason %s, origin %s\n", orDash(k.Rule), orDash(k.Reason), k.Origin)
	}
	for _, e := range s.Escalation {
		fmt.Fprintf(&b, "  %s %s blocked %d times, the last time %s\n", e.Target, e.Prefix, len(e.Blocked), e.Blocked[len(e.Blocked)-1])
	}
	for _, file := range s.Evidence {
		fmt.Fprintf(&b, "  evidence %s\n", file)
	}
	for _, ev := range s.Alerts {
		b.WriteString("  " + ev.human())
	}
	_, err := io.WriteString(std.Out, b.String())
	return err
}

// orDash is a text for people; a dash where there is none.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}

// Flush lifts every block.
func (v *Verb) Flush(ctx context.Context) error {
	n, err := v.admin.Flush(ctx)
	v.flushed = err == nil
	if err == nil && !v.quiet {
		_, err = fmt.Fprintf(v.std.Err, "%s lifted\n", plural(n, "block"))
	}
	return err
}

// Whitelist prints the entries in force.
func (v *Verb) Whitelist(ctx context.Context) error {
	list, err := v.admin.Whitelist(ctx)
	if err != nil {
		return err
	}
	if v.json {
		return eachJSON(v.std.Out, list)
	}
	w := tabwriter.NewWriter(v.std.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PREFIX\tORIGIN")
	for _, e := range list {
		fmt.Fprintf(w, "%s\t%s\n", e.Prefix, printable(strings.Join(e.Origins, ", ")))
	}
	return w.Flush()
}

// EditWhitelist adds or removes one entry, and says so on standard error.
func (v *Verb) EditWhitelist(ctx context.Context, entry string, remove bool) error {
	p, err := firewall.ParsePrefix(entry)
	if err != nil {
		return &ExitError{ExitUsage, err}
	}
	edit := WhitelistEdit{Add: []netip.Prefix{p}}
	if remove {
		edit = WhitelistEdit{Remove: []netip.Prefix{p}}
	}
	done, err := v.admin.EditWhitelist(ctx, edit)
	if err != nil || v.quiet {
		return coded(err)
	}
	said := p.String() + " whitelisted until the guard ends"
	if remove {
		said = p.String() + " is off the whitelist until the guard ends"
	}
	if done.Lifted > 0 {
		said += "; " + plural(done.Lifted, "block") + " lifted"
	}
	_, err = fmt.Fprintln(v.std.Err, said)
	return err
}

// Stats prints the guard's counters.
func (v *Verb) Stats(ctx context.Context, d Daemon) error {
	s, err := d.Stats(ctx)
	if err != nil {
		return err
	}
	if v.json {
		return writeJSON(v.std.Out, s)
	}
	_, err = io.WriteString(v.std.Out, s.human())
	return err
}

// Reload has the guard read its rules anew.
func (v *Verb) Reload(ctx context.Context, d Daemon) error {
	r, err := d.Reload(ctx)
	if err != nil {
		return err
	}
	for _, w := range r.Warnings {
		if !v.quiet {
			fmt.Fprintln(v.std.Err, "warning:", w)
		}
	}
	if !v.quiet {
		_, err = fmt.Fprintf(v.std.Err, "reloaded: %s\n", rulesRun(r.Rules))
	}
	return err
}

func eachJSON[T any](w io.Writer, list []T) error {
	for _, v := range list {
		if err := writeJSON(w, v); err != nil {
			return err
		}
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
