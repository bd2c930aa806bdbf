package guard

import (
	"fmt"
	"strconv"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
)

// plural counts things: "1 block", "2 blocks".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// rulesRun is "1 rule runs", "2 rules run".
func rulesRun(n int) string {
	if n == 1 {
		return "1 rule runs"
	}
	return plural(n, "rule") + " run"
}

// tellDryRun says that what the guard answered is not so in the kernel, where
// the guard is a dry run.
func (r *remote) tellDryRun(std Streams, quiet bool) {
	if r.dryRun && !quiet {
		fmt.Fprintln(std.Err, "the running guard is a dry run: nothing of this is in the kernel")
	}
}

// made is what people read of a result that made a block: of a guard that is
// a dry run none was made.
func (v *Verb) made(result string) string {
	if r, ok := v.admin.(*remote); ok && r.dryRun && result == firewall.Created.String() {
		return "would block"
	}
	return result
}

// sayUnchanged says that a block stays as it is; asked is the action that was
// asked for.
func (v *Verb) sayUnchanged(b *BlockObject, asked string) error {
	if v.json {
		return writeJSON(v.std.Out, b)
	}
	what := "blocked"
	has, hasErr := backend.ParseAction(b.Action)
	if hasErr == nil && has == backend.RateLimit {
		what = "rate-limited"
	}
	suffix := ""
	if weaker, err := backend.ParseAction(asked); err == nil && hasErr == nil && has.Stronger(weaker) {
		suffix = ", which is stricter"
	}
	_, err := fmt.Fprintf(v.std.Out, "unchanged: %s is already %s (%s, %s)%s\n", b.address(), what, b.what(), b.life(), suffix)
	return err
}

// tellKept says that blocks outlast the run, where they were meant to.
func (r *runner) tellKept(n int, replay bool) {
	if n == 0 || r.manager.DryRun() || r.cfg.Quiet || !replay && !r.cfg.KeepOnClose {
		return
	}
	verb := " stay in the kernel"
	if n == 1 {
		verb = " stays in the kernel"
	}
	fmt.Fprintln(r.env.Err, plural(n, "block")+verb)
}
