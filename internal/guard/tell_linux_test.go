package guard

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
)

// TestVerbsOfADryRun: who asks a guard that is a dry run is told so, by every
// verb and on standard error alone.
func TestVerbsOfADryRun(t *testing.T) {
	const note = "the running guard is a dry run: nothing of this is in the kernel\n"
	path := socketPath(t)
	c, err := startControl(path, newInert(t), slog.New(slog.DiscardHandler), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	with := func(do func(v *Verb) error) func(VerbConfig) error {
		return func(c VerbConfig) error { return WithAdmin(t.Context(), c, do) }
	}
	block := BlockRequest{Target: "source", Action: "drop", For: "1h", HasFor: true}
	for _, tc := range []struct {
		name string
		do   func(VerbConfig) error
		out  string
	}{
		{"block", with(func(v *Verb) error { return v.Block(t.Context(), "192.0.2.1", block) }), "would block 192.0.2.1 (DROP, source, 1h0m0s left)\n"},
		{"list", func(c VerbConfig) error { return List(t.Context(), c) }, "192.0.2.1"},
		{"show", with(func(v *Verb) error { return v.Show(t.Context(), netip.MustParseAddr("192.0.2.1")) }), "blocked true"},
		{"whitelist", with(func(v *Verb) error { return v.Whitelist(t.Context()) }), "203.0.113.0/24"},
		{"stats", func(c VerbConfig) error {
			return WithGuard(c, func(v *Verb, d Daemon) error { return v.Stats(t.Context(), d) })
		}, "42"},
		{"unblock", with(func(v *Verb) error { return v.Unblock(t.Context(), "192.0.2.1") }), "unblocked"},
		{"flush", with(func(v *Verb) error { return v.Flush(t.Context()) }), ""},
	} {
		for _, quiet := range []bool{false, true} {
			var out, errOut bytes.Buffer
			err := tc.do(VerbConfig{Config: Config{Control: path, Quiet: quiet}, Streams: Streams{Out: &out, Err: &errOut}})
			if quiet {
				if strings.Contains(errOut.String(), note) {
					t.Errorf("%s -q says %q", tc.name, errOut.String())
				}
				continue
			}
			if err != nil || !strings.HasSuffix(errOut.String(), note) || !strings.Contains(out.String(), tc.out) {
				t.Errorf("%s: %v, standard output %q, want %q; standard error %q", tc.name, err, out.String(), tc.out, errOut.String())
			}
		}
	}
}

// TestNoDryRun: a guard that is none does not say so.
func TestNoDryRun(t *testing.T) {
	_, path := serveInert(t)
	var out, errOut bytes.Buffer
	c := VerbConfig{Config: Config{Control: path}, Streams: Streams{Out: &out, Err: &errOut}}
	block := BlockRequest{Target: "source", Action: "drop"}
	err := WithAdmin(t.Context(), c, func(v *Verb) error { return v.Block(t.Context(), "192.0.2.1", block) })
	if err != nil || errOut.Len() > 0 || !strings.HasPrefix(out.String(), "created 192.0.2.1 ") {
		t.Errorf("%v, %q, %q", err, out.String(), errOut.String())
	}
}

// TestBlockUnchanged: a block that stays as it is is told as that.
func TestBlockUnchanged(t *testing.T) {
	for _, tc := range []struct{ name, first, second, want string }{
		{"the same", "drop", "drop", "unchanged: 192.0.2.1 is already blocked (DROP, 2h0m0s left)\n"},
		{"weaker", "drop", "rate-limit", "unchanged: 192.0.2.1 is already blocked (DROP, 2h0m0s left), which is stricter\n"},
		{"a rate limit", "rate-limit", "rate-limit", "unchanged: 192.0.2.1 is already rate-limited (RATE_LIMIT 10/minute burst 5, 2h0m0s left)\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			v := &Verb{admin: &local{m: newInert(t).m}, std: Streams{Out: &out}}
			ask := func(action, life string) error {
				return v.Block(t.Context(), "192.0.2.1", BlockRequest{Target: "source", Action: action, For: life, HasFor: true})
			}
			err := ask(tc.first, "2h")
			out.Reset()
			if err = errors.Join(err, ask(tc.second, "1h")); err != nil || out.String() != tc.want {
				t.Errorf("%v, %q, want %q", err, out.String(), tc.want)
			}
		})
	}
}

// TestWhitelistEditIsTold: for people, and not with -q.
func TestWhitelistEditIsTold(t *testing.T) {
	l := &local{m: newInert(t).m}
	for _, a := range []string{"192.0.2.10/32", "192.0.2.11/32"} {
		if _, err := l.Block(t.Context(), []BlockEntry{{Prefix: netip.MustParsePrefix(a)}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		entry         string
		remove, quiet bool
		want          string
	}{
		{"192.0.2.10", false, false, "192.0.2.10/32 whitelisted until the guard ends; 1 block lifted\n"},
		{"198.51.100.0/24", false, false, "198.51.100.0/24 whitelisted until the guard ends\n"},
		{"192.0.2.10", true, false, "192.0.2.10/32 is off the whitelist until the guard ends\n"},
		{"192.0.2.11", false, true, ""},
	} {
		var errOut bytes.Buffer
		v := &Verb{admin: l, quiet: tc.quiet, std: Streams{Err: &errOut}}
		if err := v.EditWhitelist(t.Context(), tc.entry, tc.remove); err != nil || errOut.String() != tc.want {
			t.Errorf("%s: %v, %q, want %q", tc.entry, err, errOut.String(), tc.want)
		}
	}
}
