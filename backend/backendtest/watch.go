package backendtest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// watch: a Watch says what somebody else did, and nothing of what we do.
func watch(t *testing.T, s Suite) {
	if !s.watcher {
		return
	}
	t.Run("ends with its context", func(t *testing.T) { endsWithContext(t, s) })
	t.Run("our own changes", func(t *testing.T) { ownChanges(t, s) })
	if s.Foreign == nil {
		return
	}
	t.Run("one taken out", func(t *testing.T) {
		b := s.start(t)
		blocks := existing()
		apply(t, b, add(blocks...))
		w := s.watching(t, b)
		for _, one := range blocks {
			s.Foreign.Remove(t, b, one)
			if e := w.next(t, backend.Removed); e.Kind == backend.Removed && !slices.Equal(e.Keys, []backend.Key{one.Key}) {
				t.Errorf("removed %v, want %v", e.Keys, one.Key)
			}
		}
		w.stop(t)
	})
	t.Run("emptied", func(t *testing.T) {
		b := s.start(t)
		blocks := []backend.Block{block("192.0.2.1"), block("192.0.2.2"), permanent(block("192.0.2.3"))}
		apply(t, b, add(blocks...))
		w := s.watching(t, b)
		s.Foreign.Empty(t, b)
		if e := w.next(t, backend.Emptied); e.Kind == backend.Emptied {
			for _, one := range blocks {
				if !slices.Contains(e.Keys, one.Key) {
					t.Errorf("emptied %v: %v is missing", e.Keys, one.Key)
				}
			}
		}
		w.stop(t)
	})
	for _, d := range s.Foreign.Damages {
		t.Run(d.Name, func(t *testing.T) {
			b := s.start(t)
			blocks := existing()
			apply(t, b, add(blocks...))
			w := s.watching(t, b)
			d.Do(t, b)
			if e := w.next(t, backend.Damaged); e.Kind == backend.Damaged && e.Reason == "" {
				t.Error("an event without a reason")
			}
			apply(t, b, backend.Change{Rebuild: true, Add: blocks})
			s.wantList(t, b, blocks...)
			w.stop(t)
		})
	}
}

// endsWithContext: a Watch ends with its context, any number of times, and
// leaves no goroutine.
func endsWithContext(t *testing.T, s Suite) {
	b := s.start(t)
	s.watching(t, b).stop(t)
	before := runtime.NumGoroutine()
	for range 5 {
		s.watching(t, b).stop(t)
	}
	until(t, watchLimit, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// ownChanges: nothing that the instance does itself raises an event. Where the
// kernel reports, a foreign change at the end proves that nobody slept.
func ownChanges(t *testing.T, s Suite) {
	b := s.start(t)
	w := s.watching(t, b)
	blocks := existing()
	apply(t, b, add(blocks...))
	apply(t, b, add(lasting(blocks[0], 2*time.Hour), acting(block("10.0.0.0/9"), backend.Reject)))
	apply(t, b, backend.Change{Remove: blocks[:1], Add: []backend.Block{acting(blocks[0], backend.RejectReset)}})
	apply(t, b, allow("10.1.0.0/16", "2001:db8:1::/64"))
	apply(t, b, remove(blocks[1:]...))
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	apply(t, b, backend.Change{Rebuild: true, Add: blocks})
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	short := lasting(block("192.0.2.9"), time.Second)
	apply(t, b, add(append(blocks, short)...))
	s.watchEnd(t, b, short)
	if s.Foreign != nil && !s.Polls {
		s.Foreign.Remove(t, b, blocks[0])
		if e := w.next(t, backend.Removed); !slices.Equal(e.Keys, []backend.Key{blocks[0].Key}) {
			t.Errorf("the first event is not the foreign one: %v", e)
		}
	}
	w.stop(t)
}

// watcher is a running Watch.
type watcher struct {
	events chan backend.Event
	cancel context.CancelFunc
	done   chan error
	polls  bool
}

// watching starts a Watch and waits until nothing can be missed.
func (s Suite) watching(t *testing.T, b backend.Backend) *watcher {
	t.Helper()
	bw, ok := b.(backend.Watcher)
	if !ok {
		t.Fatalf("%T is no backend.Watcher", b)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{events: make(chan backend.Event, 1000), cancel: cancel, done: make(chan error, 1), polls: s.Polls}
	ready := make(chan struct{})
	go func() {
		w.done <- bw.Watch(ctx, ready, func(e backend.Event) {
			select {
			case w.events <- e:
			default: // more than any test raises: stop reports it
			}
		})
	}()
	t.Cleanup(cancel)
	select {
	case <-ready:
	case err := <-w.done:
		t.Fatalf("watch: %v", err)
	case <-time.After(watchLimit):
		t.Fatalf("after %s the watch is not ready", watchLimit)
	}
	return w
}

// watchLimit is enough for a backend that looks every ten seconds.
const watchLimit = 20 * time.Second

// next waits for the next event, which must be of the kind, or a Look where
// the backend polls.
func (w *watcher) next(t *testing.T, kind backend.EventKind) backend.Event {
	t.Helper()
	select {
	case e := <-w.events:
		if e.Kind != kind && (!w.polls || e.Kind != backend.Look) {
			t.Errorf("event %s, want %s", describe(e), kind)
		}
		return e
	case err := <-w.done:
		t.Fatalf("watch ended: %v", err)
	case <-time.After(watchLimit):
		t.Fatalf("after %s no event, want %s", watchLimit, kind)
	}
	return backend.Event{}
}

// stop ends the watch, which must return nil and leave no event unread but
// Looks where the backend polls.
func (w *watcher) stop(t *testing.T) {
	t.Helper()
	w.cancel()
	select {
	case err := <-w.done:
		if err != nil {
			t.Errorf("watch: %v, want nil", err)
		}
	case <-time.After(watchLimit):
		t.Fatalf("watch goes on %s after its context", watchLimit)
	}
	for {
		select {
		case e := <-w.events:
			if !w.polls || e.Kind != backend.Look {
				t.Errorf("event that nobody caused: %s", describe(e))
			}
		default:
			return
		}
	}
}

func describe(e backend.Event) string {
	return fmt.Sprintf("%s (%s, by %q, keys %v)", e.Kind, e.Reason, e.By, e.Keys)
}
