package backendtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// lookup: what the kernel says of single keys is what List says.
func lookup(t *testing.T, s Suite) {
	if !s.watcher {
		return
	}
	t.Run("of each kind", func(t *testing.T) { lookups(t, s) })
	t.Run("follows the changes", func(t *testing.T) {
		b := s.start(t)
		one := block("192.0.2.1")
		s.wantStatus(t, b, one.Key, nil)
		apply(t, b, add(one))
		s.wantStatus(t, b, one.Key, &one)
		longer := lasting(one, 5*time.Hour)
		apply(t, b, add(longer))
		s.wantStatus(t, b, one.Key, &longer)
		rejected := permanent(acting(one, backend.Reject))
		apply(t, b, backend.Change{Remove: []backend.Block{one}, Add: []backend.Block{rejected}})
		s.wantStatus(t, b, one.Key, &rejected)
		apply(t, b, remove(rejected))
		s.wantStatus(t, b, one.Key, nil)
	})
	t.Run("exactly that prefix", func(t *testing.T) {
		b := s.start(t)
		wide := block("192.0.2.0/24")
		apply(t, b, add(wide))
		s.wantStatus(t, b, wide.Key, &wide)
		for _, other := range []backend.Block{block("192.0.2.0"), block("192.0.2.0/25"), block("192.0.0.0/16"), towards(wide)} {
			s.wantStatus(t, b, other.Key, nil)
		}
	})
	t.Run("after its end", func(t *testing.T) {
		b := s.start(t)
		short := lasting(block("192.0.2.1"), time.Second)
		apply(t, b, add(short))
		s.watchEnd(t, b, short)
		s.wantStatus(t, b, short.Key, nil)
	})
	t.Run("nothing, and too late", func(t *testing.T) {
		b := s.start(t)
		if got, err := s.looker(t, b).Lookup(t.Context(), nil); err != nil || len(got) != 0 {
			t.Errorf("lookup of nothing: %v, %v", got, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		keys := []backend.Key{block("192.0.2.1").Key}
		if _, err := s.looker(t, b).Lookup(ctx, keys); !errors.Is(err, context.Canceled) {
			t.Errorf("lookup: %v, want context.Canceled", err)
		}
		closeIt(t, b)
		if _, err := s.looker(t, b).Lookup(t.Context(), keys); !errors.Is(err, backend.ErrClosed) {
			t.Errorf("lookup after Close: %v, want ErrClosed", err)
		}
	})
}

// lookups asks for many keys at once: blocked and not, in any order, one of
// them twice.
func lookups(t *testing.T, s Suite) {
	b := s.start(t)
	var blocks []backend.Block
	for _, a := range s.Actions {
		for i, p := range []string{"192.0.%d.1", "198.51.%d.0/24", "1%d.0.0.0/9", "2001:db%d::1", "2001:db%d::/33"} {
			one := acting(block(fmt.Sprintf(p, a)), a)
			if i%2 == 0 {
				one = permanent(one)
			}
			blocks = append(blocks, one, towards(one))
		}
	}
	apply(t, b, add(blocks...))
	var keys []backend.Key
	var want []*backend.Block
	for i := range blocks {
		keys = append(keys, block("203.0.113.1").Key, blocks[i].Key)
		want = append(want, nil, &blocks[i])
	}
	keys, want = append(keys, blocks[0].Key), append(want, &blocks[0])
	got, err := s.looker(t, b).Lookup(t.Context(), keys)
	if err != nil || len(got) != len(keys) {
		t.Fatalf("lookup of %d keys: %d answers, %v", len(keys), len(got), err)
	}
	for i := range got {
		s.checkStatus(t, got[i], keys[i], want[i])
	}
}

func (s Suite) looker(t *testing.T, b backend.Backend) backend.Watcher {
	t.Helper()
	w, ok := b.(backend.Watcher)
	if !ok {
		t.Fatalf("%T is no backend.Watcher", b)
	}
	return w
}

// wantStatus looks one key up, which must be blocked as want is, or not at all
// if it is nil.
func (s Suite) wantStatus(t *testing.T, b backend.Backend, k backend.Key, want *backend.Block) {
	t.Helper()
	got, err := s.looker(t, b).Lookup(t.Context(), []backend.Key{k})
	if err != nil || len(got) != 1 {
		t.Fatalf("lookup of %s: %v, %v", k, got, err)
	}
	s.checkStatus(t, got[0], k, want)
}

func (s Suite) checkStatus(t *testing.T, got backend.Status, k backend.Key, want *backend.Block) {
	t.Helper()
	if got.Key != k || got.Found != (want != nil) {
		t.Errorf("lookup of %s: %+v, want found %t", k, got, want != nil)
	}
	if !got.Found || want == nil {
		if got.Remaining != 0 || got.Packets != 0 {
			t.Errorf("lookup of %s: %+v of what is not there", k, got)
		}
		return
	}
	off := got.Remaining - time.Until(want.ExpiresAt)
	if got.Action != want.Action || got.Permanent != want.Permanent() {
		t.Errorf("lookup of %s: %+v, want %s", k, got, want)
	}
	if !want.Permanent() && (off > s.Precision || off < -s.Precision) || want.Permanent() && got.Remaining != 0 {
		t.Errorf("lookup of %s: %s remain of %s", k, got.Remaining, want)
	}
}
