package iptables

import (
	"errors"
	"fmt"
	"strings"

	"github.com/netcap-guard/netcap-guard/backend"
)

var (
	// errMissing: the program did not find the chain, the rule, or a match or
	// target that the rule uses; it does not say which.
	errMissing = errors.New("chain, rule, match or target is missing")
	// errNoTarget: the chain that a rule would jump to is missing.
	errNoTarget = fmt.Errorf("%w: no such chain to jump to", errMissing)
	// errInUse: somebody else's rule jumps to the chain.
	errInUse = errors.New("a rule that is not ours still jumps to the chain")
)

// translate says what a program's failure means, from its exit status and what
// it wrote to standard error. Its text is the only way to tell most failures
// apart, and this is the only place that reads it. Texts of iptables 1.8.9,
// legacy and nft variant; status 4 of the legacy program (and of no other) says
// that the xtables lock is held.
func translate(status int, text string) error {
	text = oneLine(text)
	if m := missingModule(text); m != "" {
		return fmt.Errorf("%w: kernel module %s is missing: %s", backend.ErrUnavailable, m, text)
	}
	for _, c := range []struct {
		kind  error
		texts []string
	}{
		{backend.ErrPermission, []string{"Permission denied", "you must be root", "Operation not permitted"}},
		{backend.ErrLocked, []string{"xtables lock", "Can't lock"}},
		{backend.ErrUnavailable, []string{
			"Table does not exist", "do you need to insmod", "Failed to initialize nft",
			"Protocol not supported", "Address family not supported", "Couldn't load match", "Couldn't load target `REJECT'",
		}},
		// A limit that overflows in the kernel; backend.CheckLimit refuses those.
		{backend.ErrUnsupported, []string{"Numerical result out of range"}},
		{errInUse, []string{"Too many links", "Device or resource busy", "Directory not empty"}},
		{backend.ErrFull, []string{"Cannot allocate memory", "Memory allocation problem", "No space left", "Out of memory"}},
		{errNoTarget, []string{"Couldn't load target", "does not exist"}},
		{errMissing, []string{
			"No chain/target/match by that name", "does a matching rule exist", "use 'nft' tool",
			"(No such file or directory): rule in chain", "(No such file or directory): chain",
		}},
	} {
		for _, t := range c.texts {
			if strings.Contains(text, t) {
				return fmt.Errorf("%w: %s", c.kind, text)
			}
		}
	}
	if text == "" {
		return fmt.Errorf("exit status %d", status)
	}
	return fmt.Errorf("%s (exit status %d)", text, status)
}

// missingModule finds the module in "Extension NAME revision 0 not supported,
// missing kernel module?". The program's warning stands beside the failure
// that follows from it.
func missingModule(text string) string {
	_, rest, ok := strings.Cut(text, "Extension ")
	if !ok || !strings.Contains(text, "missing kernel module") {
		return ""
	}
	ext, _, _ := strings.Cut(rest, " ")
	return "xt_" + ext
}

// oneLine joins what a program wrote into one line, without the lines that
// only point to its manual.
func oneLine(text string) string {
	var out []string
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "Try `") || strings.HasPrefix(l, "# Warning: ") {
			continue
		}
		out = append(out, l)
	}
	return strings.Join(out, "; ")
}

// opError names the operation that failed; nil stays nil.
func opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &backend.OpError{Backend: name, Op: op, Err: err}
}
