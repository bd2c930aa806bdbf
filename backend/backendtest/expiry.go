package backendtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// expiry: a block leaves the listing at its end, never before, without any
// call of ours.
func expiry(t *testing.T, s Suite) {
	t.Run("leaves the listing at its end", func(t *testing.T) {
		b := s.start(t)
		stays := []backend.Block{block("192.0.2.2"), permanent(block("192.0.2.3"))}
		for _, p := range []string{"192.0.2.1", "2001:db8::/64"} {
			short := lasting(block(p), 2*time.Second)
			apply(t, b, add(append(stays, short)...))
			last := s.watchEnd(t, b, short)
			if early := short.ExpiresAt.Sub(last); early > s.Precision {
				t.Errorf("%s left the listing %s before its end", p, early)
			}
			s.wantList(t, b, stays...)
			apply(t, b, remove(short))
		}
	})
	t.Run("extension outlives the first end", func(t *testing.T) {
		b := s.start(t)
		short := lasting(block("192.0.2.1"), time.Second)
		marker := lasting(block("192.0.2.9"), 2*time.Second)
		apply(t, b, add(short, marker))
		longer := lasting(short, time.Minute)
		apply(t, b, add(longer))
		s.watchEnd(t, b, marker)
		s.wantList(t, b, longer)
	})
	t.Run("a block past its end", func(t *testing.T) {
		b := s.start(t)
		there := block("192.0.2.1")
		apply(t, b, add(there))
		past := with(there, func(b *backend.Block) {
			b.CreatedAt = b.CreatedAt.Add(-time.Hour)
			b.ExpiresAt = b.CreatedAt.Add(time.Minute)
		})
		other := block("192.0.2.2")
		apply(t, b, add(past, other))
		s.wantList(t, b, other)
	})
	t.Run("blocked again after its end", func(t *testing.T) {
		b := s.start(t)
		short := lasting(block("192.0.2.1"), time.Second)
		apply(t, b, add(short))
		s.watchEnd(t, b, short)
		again := block("192.0.2.1")
		apply(t, b, add(again))
		s.wantList(t, b, again)
	})
}

// watchEnd waits until the block has left the listing and returns when it was
// seen last (zero if never).
func (s Suite) watchEnd(t *testing.T, b backend.Backend, one backend.Block) time.Time {
	t.Helper()
	var seen time.Time
	limit := time.Until(one.ExpiresAt) + s.Precision + 3*time.Second
	until(t, limit, one.String()+" has left the listing", func() bool {
		at := time.Now()
		for _, got := range list(t, b) {
			if got.Slot() == one.Slot() {
				seen = at
				return false
			}
		}
		return true
	})
	return seen
}

// scale: a thousand blocks of both families in one change.
func scale(t *testing.T, s Suite) {
	const n = 1000
	b := s.start(t)
	var want []backend.Block
	for i := range n {
		p := fmt.Sprintf("10.%d.%d.1", i/250, i%250)
		switch i % 4 {
		case 1:
			p = fmt.Sprintf("2001:db8:%x::1", i)
		case 2:
			p = fmt.Sprintf("172.%d.%d.0/24", 16+i/250, i%250)
		}
		one := block(p)
		one.Rule = fmt.Sprintf("rule %d", i)
		if i%10 == 3 {
			one = permanent(one)
		}
		want = append(want, one)
	}
	apply(t, b, add(want...))
	s.wantList(t, b, want...)
	var longer []backend.Block
	for _, w := range want[:n/2] {
		longer = append(longer, lasting(w, 5*time.Hour))
	}
	apply(t, b, backend.Change{Add: longer, Remove: want[n/2:]})
	s.wantList(t, b, longer...)
	apply(t, b, remove(longer...))
	s.wantList(t, b)
}
