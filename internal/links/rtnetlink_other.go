//go:build !linux

package links

import "errors"

// read cannot be done here, where nothing is captured live either.
func read() ([]Link, error) { return nil, errors.ErrUnsupported }

type unsupported struct{}

func subscribe() (unsupported, error) { return unsupported{}, errors.ErrUnsupported }

func (unsupported) run(hints chan<- struct{}) error {
	hint(hints)
	return errors.ErrUnsupported
}

func (unsupported) close() error { return nil }
