//go:build !linux

package guard

import "github.com/netcap-guard/netcap-guard/engine"

// waker is Linux's own.
type waker struct{}

func newWaker() *waker                   { return nil }
func (*waker) close()                    {}
func (*waker) engineWaker() engine.Waker { return nil }

// soon is a matter of Linux's scheduler.
func soon() {}
