//go:build !linux

package guard

import (
	"context"
	"errors"
	"net"
)

// errNoControl: a guard runs on Linux only.
var errNoControl = errors.New("the control socket exists on Linux only")

func listenControl(string) (net.Listener, error) { return nil, errNoControl }

func withPeer(ctx context.Context, _ net.Conn) context.Context { return ctx }

func mayControl(context.Context) error { return errNoControl }

func elsewhere(net.Conn) bool { return false }
