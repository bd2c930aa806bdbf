package hostaddr

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// How Follow paces itself.
const (
	// settle is how long changes are gathered before they are looked at: an
	// interface that comes up makes a dozen.
	settle = 50 * time.Millisecond
	// share bounds the processor time spent on reading while changes do not
	// end: after a reading, share times what it took must pass. A host with a
	// whole routing table of the Internet takes seconds for one.
	share = 10
	// fileInterval is how often resolver files are read again. They are
	// small, and their contents say more than a time stamp: two edits within
	// its grain, or a link that was moved, look alike to stat.
	fileInterval = 5 * time.Second
)

// subscription tells that something about addresses, routes or links may have
// changed.
type subscription interface {
	// run hints until close, or until it fails.
	run(hints chan<- struct{}) error
	close() error
}

// hint leaves word that there is something to look at; one word is enough.
func hint(hints chan<- struct{}) {
	select {
	case hints <- struct{}{}:
	default:
	}
}

// Follow calls changed with the protected addresses of this host, at first and
// whenever they differ from the last call's, until ctx ends; then it returns
// nil. It works in the network namespace of the process. The kernel tells of
// changes on Linux (within about 50 ms; many are gathered into one call);
// resolver files are read every 5 s, and addresses every 10 s on other
// systems.
//
// changed runs in Follow's goroutine and owns the slice it is given, which is
// made and ordered as Snapshot's. While it runs changes are gathered, none is
// lost. ready, if not nil, is closed after the first call.
//
// What cannot be read keeps its last good value, is warned of once and tried
// again: a transient failure never takes protection away. The SSH peer found at
// first stays, even when that session ends. Follow returns an error where the
// kernel refuses to tell of changes, with ready still open if that is so from
// the beginning.
func Follow(ctx context.Context, cfg Config, ready chan<- struct{}, changed func([]Entry)) error {
	// First the subscription, then the first look: nothing falls between.
	sub, err := subscribe()
	if err != nil {
		return fmt.Errorf("follow addresses: %w", err)
	}
	return newFollower(cfg, changed).follow(ctx, sub, ready)
}

// follower is the state of one Follow; its goroutine owns it.
type follower struct {
	groups  []group
	last    [][]Entry // of each group
	known   []Entry   // what changed was told
	changed func([]Entry)
	log     *slog.Logger
	failing bool
}

func newFollower(cfg Config, changed func([]Entry)) *follower {
	f := &follower{groups: cfg.groups(), changed: changed, log: cfg.Logger}
	f.last = make([][]Entry, len(f.groups))
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	return f
}

// follow closes the subscription and joins its goroutine before it returns.
func (f *follower) follow(ctx context.Context, sub subscription, ready chan<- struct{}) error {
	hints := make(chan struct{}, 1)
	ended := make(chan error, 1)
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		ended <- sub.run(hints)
	}()
	defer func() {
		if err := sub.close(); err != nil {
			f.log.Debug("close address subscription", "error", err)
		}
		<-joined
	}()

	rest := f.first()
	if ready != nil {
		close(ready)
	}
	files := time.NewTicker(fileInterval)
	defer files.Stop()
	var look <-chan time.Time // set while changes are gathered
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return fmt.Errorf("follow addresses: %w", err)
		case <-hints:
			if look == nil {
				look = time.After(rest)
			}
		case <-look:
			look, rest = nil, f.refresh(false)
		case <-files.C:
			// What failed is tried again with the files.
			f.refresh(!f.failing)
		}
	}
}

func (f *follower) first() (rest time.Duration) {
	_, rest = f.read(false)
	f.known = f.joined()
	f.changed(slices.Clone(f.known))
	return rest
}

// refresh reads everything, or the files alone, and tells of a difference. It
// returns how long to rest until the next time.
func (f *follower) refresh(filesOnly bool) time.Duration {
	differs, rest := f.read(filesOnly)
	if !differs {
		return rest
	}
	now := f.joined()
	if !slices.Equal(now, f.known) {
		f.known = now
		f.changed(slices.Clone(now))
	}
	return rest
}

// read brings last up to date and reports whether it differs.
func (f *follower) read(filesOnly bool) (differs bool, rest time.Duration) {
	began := time.Now()
	var failed error
	for i, g := range f.groups {
		if filesOnly && !g.file || g.once && f.last[i] != nil {
			continue
		}
		fresh, err := g.read()
		if err != nil {
			failed = err
			fresh = sorted(append(fresh, f.last[i]...))
		}
		if fresh == nil {
			fresh = []Entry{} // read, and empty
		}
		differs = differs || !slices.Equal(fresh, f.last[i])
		f.last[i] = fresh
	}
	f.report(failed, filesOnly)
	return differs, max(settle, share*time.Since(began))
}

func (f *follower) joined() []Entry { return unique(slices.Concat(f.last...)) }

// report warns where readings begin to fail and says where they end to. A
// look at the files alone says nothing about the rest.
func (f *follower) report(failed error, filesOnly bool) {
	switch {
	case failed != nil && !f.failing:
		f.failing = true
		f.log.Warn("some protected addresses cannot be read: the last known ones stay protected", "error", failed)
	case failed == nil && f.failing && !filesOnly:
		f.failing = false
		f.log.Info("protected addresses can be read again")
	}
}
