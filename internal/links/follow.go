package links

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// How Follow paces itself.
const (
	// settle is the least time between two readings.
	settle = 50 * time.Millisecond
	// share bounds the processor time spent on reading while changes do not
	// end: after a reading, share times what it took must pass.
	share = 10
	// longest bounds that rest: a reading takes long where the machine is busy,
	// too, and meanwhile packets are counted by how things were.
	longest = 250 * time.Millisecond
	// retry is when a reading that failed is tried again.
	retry = time.Second
)

// Follow calls changed with the links of the process's network namespace, at
// first and again after every change of them, until ctx ends; then it returns
// nil. A change is looked at as soon as the kernel tells of it; what follows
// within 50 ms is gathered.
//
// changed runs in Follow's goroutine and owns the slice. ready, if not nil, is
// closed after the first call. A reading that fails leaves things as they are,
// is warned of once and tried again every second; where the first fails, or
// the kernel refuses to tell of changes, Follow returns an error.
func Follow(ctx context.Context, log *slog.Logger, ready chan<- struct{}, changed func([]Link)) error {
	// First the subscription, then the first look: nothing falls between.
	sub, err := subscribe()
	if err != nil {
		return fmt.Errorf("follow interfaces: %w", err)
	}
	hints, ended, joined := make(chan struct{}, 1), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(joined)
		ended <- sub.run(hints)
	}()
	defer func() {
		if err := sub.close(); err != nil {
			log.Debug("close interface subscription", "error", err)
		}
		<-joined
	}()
	first, err := read()
	if err != nil {
		return fmt.Errorf("read interfaces: %w", err)
	}
	changed(first)
	if ready != nil {
		close(ready)
	}
	return watch(ctx, log, hints, ended, changed)
}

// watch reads at each hint, with rests between.
func watch(ctx context.Context, log *slog.Logger, hints <-chan struct{}, ended <-chan error, changed func([]Link)) error {
	var rested <-chan time.Time // set while resting
	due, failing := false, false
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return fmt.Errorf("follow interfaces: %w", err)
		case <-hints:
			due = true
		case <-rested:
			rested = nil
		}
		if !due || rested != nil {
			continue
		}
		began := time.Now()
		now, err := read()
		if err != nil {
			if !failing {
				log.Warn("interfaces cannot be read: how they were stacked last stays in force", "error", err)
			}
			failing, rested = true, time.After(retry)
			continue
		}
		due, failing = false, false
		changed(now)
		rested = time.After(min(max(settle, share*time.Since(began)), longest))
	}
}

// hint leaves word that there is something to look at; one word is enough.
func hint(hints chan<- struct{}) {
	select {
	case hints <- struct{}{}:
	default:
	}
}
