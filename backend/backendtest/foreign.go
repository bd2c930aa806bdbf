package backendtest

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Foreign does to our objects what somebody else would, with the kernel's own
// tool. The instance is the one in force; only a backend without a kernel
// needs it.
type Foreign struct {
	// Remove takes blocks out, each in a transaction of its own, as an
	// administrator does who unblocks an address.
	Remove func(t testing.TB, b backend.Backend, blocks ...backend.Block)
	// Empty takes at least all DROP blocks of IPv4 source hosts out in one
	// transaction, and leaves the structure as it is (a flush).
	Empty func(t testing.TB, b backend.Backend)
	// Damages break the structure around the blocks, each in another way.
	Damages []Damage
}

// Damage is one way to break the structure around the blocks.
type Damage struct {
	Name string
	Do   func(t testing.TB, b backend.Backend)
	// Gone: nothing of ours is left, List says ErrGone instead of ErrDamaged.
	Gone bool
}

// foreign: what List and Rebuild make of what somebody else did.
func foreign(t *testing.T, s Suite) {
	if !s.watcher {
		return
	}
	t.Run("rebuild of what is well", func(t *testing.T) {
		s.rebuilds(t, func(testing.TB, backend.Backend) {})
	})
	t.Run("rebuild with nothing", func(t *testing.T) {
		b := s.start(t)
		apply(t, b, add(existing()...))
		apply(t, b, backend.Change{Rebuild: true})
		s.wantList(t, b)
	})
	t.Run("rebuild before init", func(t *testing.T) {
		b := s.New(t)
		defer closeIt(t, b)
		if err := b.Apply(t.Context(), backend.Change{Rebuild: true}); !errors.Is(err, backend.ErrGone) {
			t.Errorf("rebuild before Init: %v, want ErrGone", err)
		}
	})
	t.Run("rebuild refused", func(t *testing.T) {
		b := s.start(t)
		stays := block("192.0.2.1")
		apply(t, b, add(stays))
		c := add(block("192.0.2.2"), with(block("192.0.2.3"), func(b *backend.Block) { b.Log = true }))
		c.Rebuild = true
		if err := b.Apply(t.Context(), c); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("rebuild with a bad block: %v, want ErrInvalid", err)
		}
		s.wantList(t, b, stays)
	})
	if s.Foreign == nil {
		return
	}
	t.Run("one taken out", func(t *testing.T) {
		b := s.start(t)
		want := existing()
		apply(t, b, add(want...))
		s.Foreign.Remove(t, b, want[0])
		s.wantList(t, b, want[1:]...)
		s.Foreign.Remove(t, b, want[1:]...)
		s.wantList(t, b)
	})
	t.Run("emptied", func(t *testing.T) {
		s.rebuilds(t, s.Foreign.Empty)
	})
	for _, d := range s.Foreign.Damages {
		t.Run(d.Name, func(t *testing.T) {
			s.notices(t, d)
			s.rebuilds(t, d.Do)
		})
	}
}

// existing are the blocks that a damage finds.
func existing() []backend.Block {
	return []backend.Block{
		block("192.0.2.1"), permanent(block("192.0.2.2")), block("2001:db8::1"), block("198.51.100.0/24"),
		towards(acting(block("203.0.113.0/25"), backend.Reject)),
	}
}

// notices: List says what is wrong, beside blocks that were there.
func (s Suite) notices(t *testing.T, d Damage) {
	t.Helper()
	b := s.start(t)
	were := existing()
	apply(t, b, add(were...))
	d.Do(t, b)
	want := backend.ErrDamaged
	if d.Gone {
		want = backend.ErrGone
	}
	got, err := b.List(t.Context())
	if !errors.Is(err, want) {
		t.Errorf("list: %v, want %v", err, want)
	}
	for _, one := range got {
		if !slices.ContainsFunc(were, func(w backend.Block) bool { return w.Slot() == one.Slot() }) {
			t.Errorf("listed %s, which was never there", one)
		}
	}
	if d.Gone && len(got) > 0 {
		t.Errorf("all is gone, and yet listed %s", text(got))
	}
	if err := b.Init(t.Context()); err != nil {
		t.Fatalf("init after the damage: %v", err)
	}
	if _, err := b.List(t.Context()); err != nil {
		t.Errorf("list after Init: %v", err)
	}
	closeIt(t, b)
}

// rebuilds: whatever was done, a rebuild leaves exactly what it names, and the
// backend works as before.
func (s Suite) rebuilds(t *testing.T, damage func(testing.TB, backend.Backend)) {
	t.Helper()
	b := s.start(t)
	were := existing()
	apply(t, b, add(were...))
	damage(t, b)
	longer := lasting(were[0], 3*time.Hour)
	longer.Rule = "another rule"
	want := []backend.Block{longer, were[2], were[4], block("10.0.0.0/8"), acting(block("2001:db8:7::/48"), backend.RejectReset)}
	c := backend.Change{Rebuild: true, Add: want, Allow: &[]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	apply(t, b, c)
	s.wantList(t, b, want...)
	apply(t, b, c)
	s.wantList(t, b, want...)
	more := block("192.0.2.77")
	apply(t, b, backend.Change{Remove: want[:1], Add: []backend.Block{more}})
	s.wantList(t, b, append(want[1:], more)...)
	closeIt(t, b)
}
