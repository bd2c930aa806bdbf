package guard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestLongList: the good lines of 12,000 are blocked and lifted again, the bad
// ones named with their number, with a guard and without one alike.
func TestLongList(t *testing.T) {
	const lines, step = 12_000, 331 // more than a batch, 36 bad ones
	const bad = lines / step
	d, path := serveInert(t)
	for name, a := range map[string]admin{"with a guard": dialed(t, path), "without one": &local{m: newInert(t).m, direct: true}} {
		t.Run(name, func(t *testing.T) {
			m := d.m
			if l, ok := a.(*local); ok {
				m = l.m
			}
			for _, tc := range []struct {
				do   func(*Verb) error
				says string
				left int
			}{
				{func(v *Verb) error { return v.Block(t.Context(), "-", BlockRequest{Target: "source", Action: "drop"}) }, "11964 created, 36 failed", lines - bad},
				{func(v *Verb) error { return v.Block(t.Context(), "-", BlockRequest{Target: "source", Action: "drop"}) }, "11964 extended", lines - bad},
				{func(v *Verb) error { return v.Unblock(t.Context(), "-") }, "36 failed, 11964 unblocked", 0},
			} {
				var out bytes.Buffer
				err := tc.do(&Verb{admin: a, std: Streams{In: strings.NewReader(longList(lines, step)), Out: &out}})
				if ExitCode(err) != ExitFailed || strings.Count(err.Error(), "\n") != bad-1 || !strings.Contains(err.Error(), "line 331: ") {
					t.Errorf("exit code %d: %.200v", ExitCode(err), err)
				}
				for _, part := range strings.Split(tc.says, ", ") {
					if !strings.Contains(out.String(), part) {
						t.Errorf("says %q, want %q", out.String(), part)
					}
				}
				if n := len(m.GetActiveBlocks()); n != tc.left {
					t.Errorf("%d blocks, want %d", n, tc.left)
				}
			}
		})
	}
}

// TestListErrors: bad lines without end are counted, a broken pipe ends it
// with what was read carried out.
func TestListErrors(t *testing.T) {
	m := newInert(t).m
	run := func(in io.Reader) (string, error) {
		var out bytes.Buffer
		v := &Verb{admin: &local{m: m}, std: Streams{In: in, Out: &out}}
		err := v.Block(context.Background(), "-", BlockRequest{Target: "source", Action: "drop"})
		return out.String(), err
	}
	_, err := run(strings.NewReader(strings.Repeat("nobody\n", maxNamed+7)))
	if !strings.HasSuffix(err.Error(), "\nand 7 more lines") {
		t.Errorf("the error ends in %q", err.Error()[len(err.Error())-50:])
	}
	out, err := run(failing{strings.NewReader("192.0.2.1\nnobody\n")})
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "line 2: ") || out != "2 lines: 1 created, 1 failed\n" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run(strings.NewReader("# nothing\n")); err != nil || out != "0 lines: nothing to do\n" {
		t.Errorf("%q, %v", out, err)
	}
	var jsonOut bytes.Buffer
	v := &Verb{admin: &local{m: m}, json: true, std: Streams{In: strings.NewReader("192.0.2.7\n203.0.113.9\n"), Out: &jsonOut}}
	err = v.Block(t.Context(), "-", BlockRequest{Target: "source", Action: "drop"})
	if ExitCode(err) != ExitFailed || !strings.Contains(err.Error(), "line 2: 203.0.113.9/32 is whitelisted") || strings.Count(jsonOut.String(), "\n") != 1 ||
		!strings.HasPrefix(jsonOut.String(), `{"prefix":"192.0.2.7/32","result":"created"`) {
		t.Errorf("%q, %v", jsonOut.String(), err)
	}
}

// TestListInOrder: bad lines are named in the order of the list, whoever found
// them bad.
func TestListInOrder(t *testing.T) {
	v := &Verb{admin: &local{m: newInert(t).m}, quiet: true, std: Streams{In: strings.NewReader("0.0.0.0/0\n192.0.2.1\nnobody\n::/0\nno one\n")}}
	err := v.Block(t.Context(), "-", BlockRequest{Target: "source", Action: "drop"})
	var lines []string
	for _, said := range strings.Split(err.Error(), "\n") {
		line, _, _ := strings.Cut(said, ":")
		lines = append(lines, line)
	}
	if got := strings.Join(lines, ", "); got != "line 1, line 3, line 4, line 5" {
		t.Errorf("named: %s", got)
	}
}

// endsEarly is an admin that carries only so many entries out.
type endsEarly struct {
	*local
	after int
}

func (e endsEarly) Block(ctx context.Context, entries []BlockEntry) ([]Answer, error) {
	answers, err := e.local.Block(ctx, entries[:e.after])
	return answers, errors.Join(err, context.Canceled)
}

// TestListThatEndsEarly: what was blocked before a list was given up is told.
func TestListThatEndsEarly(t *testing.T) {
	var out bytes.Buffer
	v := &Verb{admin: endsEarly{&local{m: newInert(t).m}, 2}, std: Streams{In: strings.NewReader("192.0.2.1\n192.0.2.2\n192.0.2.3\n"), Out: &out}}
	err := v.Block(t.Context(), "-", BlockRequest{Target: "source", Action: "drop"})
	if !errors.Is(err, context.Canceled) || out.String() != "3 lines: 2 created, 1 failed\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
