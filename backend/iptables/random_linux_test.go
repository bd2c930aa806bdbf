package iptables

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// TestRandomChanges holds the kernel to the in-memory backend: after every
// random change both list the same blocks, and what we believe to be in the
// chain is what is there. Now and then somebody else damages the structure, and
// the change is a rebuild.
func TestRandomChanges(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		rng := rand.New(rand.NewPCG(7, uint64(len(v))))
		b, _ := start(t, Config{Variant: v})
		model := backend.NewMemory(nil)
		if err := model.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			c := randomChange(rng)
			if rng.IntN(4) == 0 {
				damages := foreign(v).Damages
				damages[rng.IntN(len(damages))].Do(t, b)
				c.Rebuild = true
			}
			apply(t, b, c)
			if err := model.Apply(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if r, err := b.state.read(t.Context(), b.chains); err != nil || r.changed {
				t.Fatalf("after\n%s\nthe chain is not what it was taken for (%v):\n%s", c, err, snapshot(t, v))
			}
			got, err := b.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want, err := model.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if g, w := texts(got), texts(want); g != w {
				t.Fatalf("after\n%s\nlisted\n%s\nwant\n%s", c, g, w)
			}
		}
	})
}

// texts prints blocks in an order of their own, without the fraction of a
// second that a kernel rounds.
func texts(blocks []backend.Block) string {
	out := make([]string, 0, len(blocks))
	for _, b := range blocks {
		out = append(out, b.String())
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// randomChange draws from few prefixes, so that changes meet one another.
func randomChange(rng *rand.Rand) backend.Change {
	pool := prefixes("0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.0.2.1/32", "2001:db8::/32", "2001:db8::1/128")
	draw := func() backend.Block {
		b := fresh("192.0.2.1", backend.Actions()[rng.IntN(len(backend.Actions()))])
		switch b.Action {
		case backend.RateLimit:
			b = meter(1+rng.Uint64N(100), time.Minute, 1+rng.Uint32N(9))(b)
		case backend.Log:
			b = note([]string{"", "SSH: ", "it's"}[rng.IntN(3)])(b)
		}
		b.Prefix, b.Target = pool[rng.IntN(len(pool))], backend.Target(rng.IntN(2))
		b.CreatedAt = b.CreatedAt.Truncate(time.Second)
		b.ExpiresAt = b.CreatedAt.Add(time.Duration(1+rng.IntN(5)) * time.Hour)
		if rng.IntN(4) == 0 {
			b.ExpiresAt = time.Time{}
		}
		return b
	}
	var c backend.Change
	for range rng.IntN(6) {
		b := draw()
		if !slices.ContainsFunc(c.Add, func(o backend.Block) bool { return o.Slot() == b.Slot() }) {
			c.Add = append(c.Add, b)
		}
	}
	for range rng.IntN(6) {
		c.Remove = append(c.Remove, draw())
	}
	if rng.IntN(3) == 0 {
		allow := []netip.Prefix{}
		for _, p := range prefixes("10.1.0.0/16", "10.1.2.3/32", "10.200.0.0/15", "10.0.0.0/8", "2001:db8::1/128", "192.0.2.0/24") {
			if rng.IntN(3) == 0 {
				allow = append(allow, p)
			}
		}
		c.Allow = &allow
	}
	return c
}
