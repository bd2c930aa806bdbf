package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/netcap-guard/netcap-guard/engine"
)

const (
	// bulkBatch is how many lines of a list go to the guard, or to the kernel,
	// at once: a list of a million lines needs no more memory than one of ten
	// thousand, and no more than a hundred round trips.
	bulkBatch = 10_000
	// maxNamed bounds the lines that are named with what is wrong with them;
	// the rest is counted.
	maxNamed = 10_000
)

// bulk is one list under way.
type bulk struct {
	v       *Verb
	in      *listReader
	results map[string]int // by result
	bad     []*errLine
	unnamed int
	lines   int   // that said something
	broken  error // what ended the list before its end
}

func (v *Verb) newBulk() *bulk {
	return &bulk{v: v, in: newListReader(v.std.In), results: map[string]int{}}
}

func (b *bulk) wrong(line int, err error) {
	if len(b.bad) >= maxNamed {
		b.unnamed++
		return
	}
	b.bad = append(b.bad, &errLine{line, err})
}

// batch reads up to bulkBatch good lines; more is false at the end. What is
// wrong with single lines is noted.
func (b *bulk) batch() (list []listed, more bool, err error) {
	for len(list) < bulkBatch {
		e, err := b.in.next()
		var bad *errLine
		switch {
		case errors.Is(err, io.EOF):
			return list, false, nil
		case errors.As(err, &bad):
			b.lines++
			b.wrong(bad.line, bad.err)
		case err != nil:
			return list, false, fmt.Errorf("standard input: %w", err)
		default:
			b.lines++
			list = append(list, e)
		}
	}
	return list, true, nil
}

// run takes the list through: do carries a batch out and answers for each of
// its lines. The good lines are carried out, the others named, and the exit
// code is 1 where there are any.
func (b *bulk) run(do func(list []listed) ([]Answer, error), judge func(Answer) error) error {
	for more := true; more; {
		var list []listed
		var err error
		list, more, err = b.batch()
		if len(list) > 0 {
			answers, doErr := do(list)
			err = errors.Join(err, doErr)
			if sayErr := b.settle(list, answers, judge); err == nil {
				err = sayErr
			}
		}
		if err != nil {
			b.broken = err
			more = false
		}
	}
	if err := b.summary(); err != nil {
		return err
	}
	return b.err()
}

// err names the bad lines in the order of the list: what is wrong with a line
// as it stands is found before what the kernel says of one in front of it.
func (b *bulk) err() error {
	slices.SortStableFunc(b.bad, func(x, y *errLine) int { return x.line - y.line })
	var errs []error
	for _, e := range b.bad {
		errs = append(errs, e)
	}
	if b.unnamed > 0 {
		errs = append(errs, fmt.Errorf("and %d more lines", b.unnamed))
	}
	if b.broken != nil {
		errs = append(errs, b.broken)
	}
	if len(errs) == 0 {
		return nil
	}
	return &ExitError{ExitFailed, errors.Join(errs...)}
}

// settle notes what became of a batch, as far as there are answers.
func (b *bulk) settle(list []listed, answers []Answer, judge func(Answer) error) error {
	for i, a := range answers[:min(len(answers), len(list))] {
		if err := judge(a); err != nil {
			b.wrong(list[i].line, err)
			continue
		}
		b.results[a.Result]++
		if b.v.json {
			if err := writeJSON(b.v.std.Out, a); err != nil {
				return err
			}
		}
	}
	if len(answers) != len(list) {
		return fmt.Errorf("answers to %d of %d lines", len(answers), len(list))
	}
	return nil
}

// summary says how many lines led to what.
func (b *bulk) summary() error {
	if b.v.quiet || b.v.json {
		return nil
	}
	good := 0
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(b.results)) {
		good += b.results[what]
		parts = append(parts, strconv.Itoa(b.results[what])+" "+what)
	}
	if failed := b.lines - good; failed > 0 {
		parts = append(parts, strconv.Itoa(failed)+" failed")
	}
	if parts == nil {
		parts = []string{"nothing to do"}
	}
	_, err := fmt.Fprintf(b.v.std.Out, "%d lines: %s\n", b.lines, strings.Join(parts, ", "))
	return err
}

// blockList blocks what a list on standard input names.
func (v *Verb) blockList(ctx context.Context, r BlockRequest) error {
	b := v.newBulk()
	return b.run(func(list []listed) ([]Answer, error) {
		entries, answers := make([]BlockEntry, 0, len(list)), make([]Answer, len(list))
		var at []int
		for i, line := range list {
			e, err := r.with(line)
			if err != nil {
				answers[i] = Answer{Prefix: line.prefix, Error: err.Error()}
				continue
			}
			entries, at = append(entries, e), append(at, i)
		}
		got, err := v.admin.Block(ctx, entries)
		if err == nil && len(got) != len(entries) {
			err = fmt.Errorf("answers to %d of %d lines", len(got), len(entries))
		}
		got = got[:min(len(got), len(at))]
		for i, a := range got {
			answers[at[i]] = a
		}
		if err != nil && len(got) < len(at) {
			answers = answers[:at[len(got)]] // what was made before it ended is told all the same
		}
		return answers, err
	}, judgeBlock)
}

// with is the entry that a line of a list asks for: what the line says wins
// over the flags.
func (r BlockRequest) with(line listed) (BlockEntry, error) {
	if line.more > 0 {
		// They may say for how long: to pass them over would be to guess.
		return BlockEntry{}, fmt.Errorf("%s, but no header line names them (e.g. ip,for,reason)", plural(line.more, "more column"))
	}
	override := func(field *string, value string) {
		if value != "" {
			*field = value
		}
	}
	override(&r.Reason, truncate(line.reason, maxReason))
	override(&r.Target, line.target)
	override(&r.Rate, line.rate)
	if line.action != "" && line.action != r.Action {
		r.Action = line.action
		if a, err := stopping(r.Action); err == nil && a.Stops() {
			r.Rate, r.Burst = line.rate, 0 // the flags' are of the flags' action
		}
	}
	if line.life != "" {
		if _, err := engine.ParseDuration(line.life); err != nil {
			return BlockEntry{}, err // no flag is at fault
		}
		r.For, r.HasFor = line.life, true
	}
	if line.burst != "" {
		n, err := strconv.ParseInt(line.burst, 10, 64)
		if err != nil || n <= 0 {
			return BlockEntry{}, fmt.Errorf("burst %q is no whole number above 0", line.burst)
		}
		r.Burst = n
	}
	return r.entry(line.prefix)
}

// truncate cuts a text at a length in bytes.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// unblockList lifts the blocks of what a list on standard input names.
func (v *Verb) unblockList(ctx context.Context) error {
	return v.newBulk().run(func(list []listed) ([]Answer, error) {
		prefixes := make([]netip.Prefix, len(list))
		for i, line := range list {
			prefixes[i] = line.prefix
		}
		return v.admin.Unblock(ctx, prefixes)
	}, judgeUnblock)
}
