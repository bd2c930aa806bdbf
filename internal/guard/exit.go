// Package guard is the wiring of the program: configuration, capture workers,
// events, signals and the order of starting and ending. No policy lives here.
package guard

import (
	"errors"
	"fmt"
)

// Exit codes of the program; scripts rely on them.
const (
	ExitOK       = 0
	ExitFailed   = 1
	ExitUsage    = 2
	ExitNotFound = 3
	ExitConfig   = 78 // EX_CONFIG: bad configuration or rules
)

// ExitError is an error that asks for a certain exit code.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// Exit makes an ExitError from a format, as fmt.Errorf does.
func Exit(code int, format string, args ...any) error {
	return &ExitError{code, fmt.Errorf(format, args...)}
}

// ExitCode is the exit code that an error asks for: 0 for nil, 1 where
// nothing says otherwise.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[*ExitError](err); ok {
		return e.Code
	}
	return ExitFailed
}
