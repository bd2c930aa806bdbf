//go:build !linux

package conntrack

import "context"

func kill(context.Context, *matcher, int) (int, error) { return 0, ErrUnsupported }

func probe(context.Context) error { return ErrUnsupported }
