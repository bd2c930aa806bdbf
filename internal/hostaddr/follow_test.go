package hostaddr

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// bell is a subscription that the test rings.
type bell struct {
	ring  chan error // nil: something changed; an error: the kernel's refusal
	stop  chan struct{}
	ended atomic.Bool // run has returned
}

func newBell() *bell { return &bell{ring: make(chan error), stop: make(chan struct{})} }

func (b *bell) run(hints chan<- struct{}) error {
	defer b.ended.Store(true)
	for {
		select {
		case <-b.stop:
			time.Sleep(time.Second) // whoever does not wait for the end misses it
			return nil
		case err := <-b.ring:
			if err != nil {
				return err
			}
			hint(hints)
		}
	}
}

func (b *bell) close() error {
	close(b.stop)
	return nil
}

// rig is a follower over one group that the test answers for. It runs in a
// synctest bubble.
type rig struct {
	*bell
	mu    sync.Mutex // guards the fields up to told
	addrs []string   // what the next reading finds
	err   error
	reads int
	told  [][]string
	log   bytes.Buffer
	f     *follower
}

func newRig(once bool) *rig {
	r := &rig{bell: newBell()}
	cfg := Config{Logger: slog.New(slog.NewTextHandler(&r.log, nil))}
	r.f = newFollower(cfg, func(es []Entry) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told = append(r.told, prefixes(es))
	})
	r.f.groups = []group{{once: once, read: func() ([]Entry, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.reads++
		var out []Entry
		for _, a := range r.addrs {
			out = append(out, host(netip.MustParseAddr(a), "own address"))
		}
		return sorted(out), r.err
	}}}
	r.f.last = make([][]Entry, 1)
	return r
}

// finds says what the next readings find.
func (r *rig) finds(err error, addrs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addrs, r.err = addrs, err
}

// start runs the follower and returns what ends it.
func (r *rig) start(t *testing.T) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- r.f.follow(ctx, r, ready) }()
	<-ready
	synctest.Wait()
	return func() error {
		cancel()
		err := <-done
		if !r.ended.Load() {
			t.Error("the follower ended before its subscription")
		}
		return err
	}
}

func (r *rig) expect(t *testing.T, what string, reads int, told ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reads != reads {
		t.Errorf("%s: read %d times, want %d", what, r.reads, reads)
	}
	var got []string
	for _, es := range r.told {
		got = append(got, strings.Join(es, ","))
	}
	if !reflect.DeepEqual(got, told) {
		t.Errorf("%s: told %q, want %q", what, got, told)
	}
}

func TestManyHintsAreOneReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(false)
		stop := r.start(t)
		r.expect(t, "start", 1, "")
		r.finds(nil, "192.0.2.1")
		for range 1000 {
			r.ring <- nil
		}
		time.Sleep(settle + 1)
		synctest.Wait()
		// The one hint that came while the first was waiting to be gathered is
		// merged with it.
		r.expect(t, "a thousand hints", 2, "", "192.0.2.1/32 own address")
		r.ring <- nil
		time.Sleep(settle + 1)
		synctest.Wait()
		r.expect(t, "a hint of nothing", 3, "", "192.0.2.1/32 own address")
		if err := stop(); err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestFailureKeepsTheLastGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(false)
		r.finds(nil, "192.0.2.1", "192.0.2.2")
		stop := r.start(t)
		both := "192.0.2.1/32 own address,192.0.2.2/32 own address"
		r.expect(t, "start", 1, both)

		r.finds(errors.New("no luck"), "192.0.2.2")
		r.ring <- nil
		time.Sleep(settle + 1)
		synctest.Wait()
		r.expect(t, "failure", 2, both)
		time.Sleep(3 * fileInterval)
		synctest.Wait()
		r.expect(t, "tried again with each look at the files", 5, both)
		if n := strings.Count(r.log.String(), "no luck"); n != 1 {
			t.Errorf("warned %d times:\n%s", n, &r.log)
		}

		r.finds(nil, "192.0.2.2")
		time.Sleep(fileInterval)
		synctest.Wait()
		r.expect(t, "recovery", 6, both, "192.0.2.2/32 own address")
		if !strings.Contains(r.log.String(), "can be read again") {
			t.Errorf("recovery is not said:\n%s", &r.log)
		}
		if err := stop(); err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestWhatIsReadOnceStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(true)
		r.finds(nil, "203.0.113.9")
		stop := r.start(t)
		r.finds(nil)
		r.ring <- nil
		time.Sleep(settle + 1)
		synctest.Wait()
		r.expect(t, "the session ended", 1, "203.0.113.9/32 own address")
		_ = stop()
	})
}

// TestSameSetIsNotTold: an address that is protected for two reasons and loses
// the second is protected as before.
func TestSameSetIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(false)
		fixed := []Entry{host(netip.MustParseAddr("192.0.2.1"), "own address")}
		r.f.groups = append([]group{{once: true, read: func() ([]Entry, error) { return fixed, nil }}}, r.f.groups...)
		r.f.last = make([][]Entry, 2)
		r.finds(nil, "192.0.2.1")
		stop := r.start(t)
		r.finds(nil)
		r.ring <- nil
		time.Sleep(settle + 1)
		synctest.Wait()
		r.expect(t, "the second reason is gone", 2, "192.0.2.1/32 own address")
		_ = stop()
	})
}

func TestRefusalEndsFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(false)
		stop := r.start(t)
		refusal := errors.New("refused")
		r.ring <- refusal
		synctest.Wait()
		if err := stop(); !errors.Is(err, refusal) {
			t.Errorf("ended with %v, want the refusal", err)
		}
	})
}

func TestResolverFilesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first, second := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "uplink.conf")
		write := func(name, text string) {
			t.Helper()
			if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(name+".new", name); err != nil {
				t.Fatal(err)
			}
		}
		cfg := Config{NoSpecial: true, NoOwn: true, NoGateways: true, NoSSHPeer: true, ResolverFiles: []string{first, second}}
		var mu sync.Mutex // guards told
		var told []string
		f := newFollower(cfg, func(es []Entry) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, strings.Join(prefixes(es), ","))
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.follow(ctx, newBell(), nil) }()
		synctest.Wait()
		step := func(what string, want ...string) {
			t.Helper()
			time.Sleep(fileInterval)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !reflect.DeepEqual(told, want) {
				t.Errorf("%s: told %q, want %q", what, told, want)
			}
			told = nil
		}
		step("no file", "")
		write(first, "nameserver 127.0.0.53\n")
		write(second, "nameserver 192.0.2.53\nnameserver 2001:db8::53\n")
		step("both", "127.0.0.53/32 resolver,192.0.2.53/32 resolver,2001:db8::53/128 resolver")
		write(second, "nameserver 2001:db8::53\nnameserver 192.0.2.53\n")
		step("another order")
		write(second, "nameserver 192.0.2.54\nnameserver 2001:db8::53\n")
		step("same length", "127.0.0.53/32 resolver,192.0.2.54/32 resolver,2001:db8::53/128 resolver")
		if err := os.Remove(second); err != nil {
			t.Fatal(err)
		}
		step("one gone", "127.0.0.53/32 resolver")
		write(first, strings.Repeat("#", maxResolverFile)+"\nnameserver 192.0.2.53\n")
		step("too long", "")
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestOwn(t *testing.T) {
	got := Own([]Entry{
		host(netip.MustParseAddr("192.0.2.1"), ownAddress),
		host(netip.MustParseAddr("192.0.2.255"), "broadcast"),
		host(netip.MustParseAddr("2001:db8::1"), ownAddress),
	})
	want := map[netip.Addr]struct{}{netip.MustParseAddr("192.0.2.1"): {}, netip.MustParseAddr("2001:db8::1"): {}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
