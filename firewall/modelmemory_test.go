package firewall

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// memoryWorld is the in-memory backend, which outlives its Managers as a
// kernel does. It runs in a bubble of synctest, so that everything the monitor
// said has been dealt with before the next look.
type memoryWorld struct {
	mem *backend.Memory
}

func TestModelMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runModel(t, &memoryWorld{}, func(*ManagerConfig) {})
	})
}

func (w *memoryWorld) start(cfg *ManagerConfig) (*Manager, error) {
	return newManager(cfg, func(m *Manager, ctx context.Context) error {
		if w.mem == nil {
			w.mem = backend.NewMemory(cfg.Now)
		}
		if _, err := w.mem.List(ctx); err != nil { // it was closed
			w.mem = backend.NewMemory(cfg.Now)
		}
		m.backend = w.mem
		setDefault(&m.cfg.MaxActiveBlocks, maxBlocksNFT)
		return w.mem.Init(ctx)
	})
}

// kill ends the goroutines, as the end of a process does.
func (*memoryWorld) kill(m *Manager) error {
	m.stop()
	<-m.done
	return nil
}

func (*memoryWorld) comment() int { return 127 }

// room is, now and then, for a few blocks more than there are, or for none.
func (w *memoryWorld) room(rng *rand.Rand, ref *reference) func(backend.Block) bool {
	if rng.IntN(4) > 0 {
		return func(backend.Block) bool { return true }
	}
	n := max(len(ref.blocks)+rng.IntN(3), 1)
	w.mem.SetCapacity(n)
	return func(b backend.Block) bool {
		others := len(ref.blocks)
		if ref.blocks[b.Key] != nil {
			others--
		}
		return others < n
	}
}

func (w *memoryWorld) relax() { w.mem.SetCapacity(0) }

func (*memoryWorld) logPrefixes() []string { return []string{"SSH: "} }

// settle lets the monitor speak, and what it asked for be done: the second
// look at the kernel within a moment comes after a pause.
func (*memoryWorld) settle(*testing.T, *Manager, func() bool) {
	synctest.Wait()
	time.Sleep(2 * lookPause)
	synctest.Wait()
}

func (w *memoryWorld) enforced(t *testing.T) []BlockInfo {
	list, err := w.mem.List(context.Background())
	if err != nil {
		return nil
	}
	var out []BlockInfo
	for _, b := range list {
		out = append(out, (&entry{Block: b, by: inKernel}).info())
	}
	return out
}

func (w *memoryWorld) filter(t *testing.T) func(backend.Target, netip.Addr) bool {
	list, err := w.mem.List(context.Background())
	if err != nil {
		t.Errorf("the kernel's list: %v", err)
	}
	allowed := w.mem.Allowed()
	return func(target backend.Target, a netip.Addr) bool {
		in := func(p netip.Prefix) bool { return p.Contains(a) }
		return !slices.ContainsFunc(allowed, in) &&
			slices.ContainsFunc(list, func(b backend.Block) bool { return b.Action.Stops() && b.Target == target && in(b.Prefix) })
	}
}

// damage is a Tampering: seen by the monitor as it happens, or as a loss of
// messages, or by nobody before the next look.
func (w *memoryWorld) damage(_ *testing.T, rng *rand.Rand, ref *reference) damage {
	var does backend.Tampering
	var d damage
	switch rng.IntN(4) {
	case 0:
		does.Lost = true
	case 1:
		does.Quiet = true
	}
	sets := groups(ref)
	switch n := rng.IntN(12); {
	case n == 0:
		does.Gone, d.resyncs = true, 1
	case n < 3 || len(sets) == 0:
		does.Damage, d.resyncs = "jump gone", 1
		does.Remove = some(rng, append(ref.keys(), backend.Key{Prefix: universe()[0]}))
	case n < 5:
		b := foreignBlock(rng, ref)
		does.Add = []backend.Block{b}
		old := ref.blocks[b.Key]
		switch beside := rng.IntN(2) == 0; {
		case old == nil || old.Action == b.Action:
			d.added = does.Add
		case !beside:
			does.Remove, d.added = []backend.Key{b.Key}, does.Add
		case b.Action.Stronger(old.Action):
			d.added = does.Add
		default: // the first stays
		}
	case n < 7:
		does.Remove = some(rng, ref.keys())
	case n < 9:
		does.Remove = whole(rng, sets)
	default:
		does.Remove = some(rng, sets[rng.IntN(len(sets))])
	}
	d.name = fmt.Sprintf("%+v", does)
	d.do = func() { w.mem.Tamper(does) }
	if len(does.Remove) > 0 && does.Damage == "" && does.Add == nil {
		d.lifted, d.resyncs = removed(sets, does.Remove, does.Lost || does.Quiet, compareKey)
	}
	return d
}

// removed says what must come of the removal of keys in one transaction: who
// empties a set of two or more damages it, anything else is an unblocking.
// Without a monitor's word all is seen together, with it one set after the
// other in the order of their blocks, single blocks first.
func removed(sets [][]backend.Key, keys []backend.Key, together bool, order func(a, b backend.Key) int) (lifted []backend.Key, resyncs uint64) {
	var single, several []backend.Key
	var parts [][2][]backend.Key // what goes of a set, and the set
	for _, set := range sets {
		gone := slices.DeleteFunc(slices.Clone(set), func(k backend.Key) bool { return !slices.Contains(keys, k) })
		switch len(gone) {
		case 0:
		case 1:
			single = append(single, gone...)
		default:
			parts = append(parts, [2][]backend.Key{gone, set})
		}
	}
	slices.SortFunc(parts, func(a, b [2][]backend.Key) int { return order(a[0][0], b[0][0]) })
	for _, part := range parts {
		if len(part[0]) == len(part[1]) {
			resyncs++
		} else if resyncs == 0 {
			several = append(several, part[0]...)
		}
	}
	switch {
	case !together:
		return append(single, several...), resyncs
	case resyncs == 0:
		return append(single, several...), 0
	}
	return nil, 1
}

// foreignBlock is a block that somebody else makes, or one of ours to which he
// gives another end or another action.
func foreignBlock(rng *rand.Rand, ref *reference) backend.Block {
	b := backend.Block{Rule: "by hand", Reason: "somebody", CreatedAt: ref.now, ExpiresAt: ref.now.Add(time.Duration(60+rng.IntN(9000)) * time.Second)}
	if rng.IntN(3) == 0 {
		b.ExpiresAt = time.Time{}
	}
	for range 100 {
		b.Key = backend.Key{Prefix: universe()[rng.IntN(len(universe()))], Target: backend.Target(rng.IntN(2))}
		b.Action = backend.Action(rng.IntN(3))
		old := ref.blocks[b.Key]
		if old == nil && !ref.exempt(b.Prefix, false) {
			return b
		}
		if old != nil && old.Permanent() != b.Permanent() {
			return b
		}
	}
	b.Key = backend.Key{Prefix: netip.MustParsePrefix("192.0.2.77/32")}
	return b
}

// groups are the blocks that lie in one set of a kernel, the sets in the order
// of their first addresses.
func groups(ref *reference) [][]backend.Key {
	var out [][]backend.Key
	at := map[string]int{}
	for _, k := range ref.keys() {
		name := fmt.Sprint(ref.blocks[k].Action, ref.blocks[k].LogPrefix, k.Target, k.Prefix.Addr().BitLen(), k.Prefix.Bits())
		i, ok := at[name]
		if !ok {
			i = len(out)
			at[name] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], k)
	}
	return out
}

// whole draws a set, the smallest of those that it is damage to empty where
// there is one: fewer blocks than that, and it is none.
func whole(rng *rand.Rand, sets [][]backend.Key) []backend.Key {
	for size := 2; size < 4; size++ {
		for _, set := range sets {
			if len(set) == size {
				return set
			}
		}
	}
	return sets[rng.IntN(len(sets))]
}

// some draws one to three of a list, in its order.
func some[T any](rng *rand.Rand, from []T) []T {
	n := 1 + rng.IntN(min(len(from), 3))
	drop := rng.Perm(len(from))[n:]
	var out []T
	for i, x := range from {
		if !slices.Contains(drop, i) {
			out = append(out, x)
		}
	}
	return out
}
