package engine

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a rule file, or one warning about it.
type Problem struct {
	File string
	// Line and Column count from 1, Column in characters; 0 where the problem
	// is the whole file's.
	Line, Column int
	Message      string
	// Hint says what was probably meant or what to do; it may be empty.
	Hint string

	source string // the line as written
}

// Error is the problem on one line: file:line:column: message (hint).
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": " + p.Message)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(b.String())
}

// Report is everything that Load has to say, in the order of the files and of
// the lines in them.
type Report struct {
	// Errors keep a rule set from being used; Warnings do not.
	Errors, Warnings []Problem
}

// Err joins the errors, nil if there are none. errors.AsType finds the first
// Problem in it.
func (r Report) Err() error {
	errs := make([]error, len(r.Errors))
	for i, p := range r.Errors {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// sortByPosition orders problems by line and column within each file; the
// files keep the order in which they were read.
func sortByPosition(list []Problem) {
	order := map[string]int{}
	for _, p := range list {
		if _, ok := order[p.File]; !ok {
			order[p.File] = len(order)
		}
	}
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
