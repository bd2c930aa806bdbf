package iptables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// EndsOnWallClock is true: the rules carry their ends as dates. Where the wall
// clock steps, blocks end early or late until their owner adds them again, with
// the end that their remaining time has on the new clock.
func (*Backend) EndsOnWallClock() bool { return true }

// Watch raises an Event of kind Look every Config.CheckInterval: iptables tells
// nobody what was done to its tables, so the owner must List. It looks at
// nothing itself, and holds nothing.
func (b *Backend) Watch(ctx context.Context, ready chan<- struct{}, f func(backend.Event)) error {
	tick := time.NewTicker(b.cfg.CheckInterval)
	defer tick.Stop()
	if ready != nil {
		close(ready)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if ctx.Err() != nil {
			return nil // both were due
		}
		f(backend.Event{Kind: backend.Look, Reason: "time to look"})
	}
}

// Lookup runs iptables once for each family that keys name and reads the
// chain, not what leads to it. Packets are those that the block's rules have
// matched, and the rules whose place they took: an extension goes on counting
// (where the program ignores counters, as ip6tables-nft 1.8.9 does, only within
// this process). Of a rate limit they are those above it. Before Init it looks
// at what another process left. A key of a family without our chain is not
// found; where no family that was asked has it, that is backend.ErrGone.
func (b *Backend) Lookup(ctx context.Context, keys []backend.Key) ([]backend.Status, error) {
	if b.closed {
		return nil, opError("look up", backend.ErrClosed)
	}
	chains := b.chains
	if !b.ready {
		found, err := b.find()
		if err != nil {
			return nil, opError("look up", err)
		}
		for _, c := range found {
			chains[c.index] = c
		}
	}
	var asked [numFamilies]bool
	for _, k := range keys {
		asked[familyOf(k.Prefix.Addr())] = true
	}
	var (
		lines []line
		gone  []error
		there bool
	)
	for i, c := range chains {
		if c == nil || !asked[i] {
			continue
		}
		l, err := c.count(ctx)
		if err != nil && !errors.Is(err, backend.ErrGone) {
			return nil, err
		}
		if err != nil {
			gone = append(gone, err)
			continue
		}
		lines, there = append(lines, l...), true
	}
	if !there && len(gone) > 0 {
		return nil, fmt.Errorf("look up: %w", gone[0])
	}
	return b.state.statuses(keys, lines, time.Now()), nil
}
