package decode

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/netcap-guard/netcap-guard/record"
)

// The caches have one slot a hash and replace what is in it: they cannot grow,
// and who forces collisions (the seed is random) costs us an allocation each.

const (
	addrSlots   = 4096
	stringSlots = 512
)

// addrCache spells addresses without allocating for those seen lately.
type addrCache struct {
	seed  uint64
	slots [addrSlots]struct {
		addr netip.Addr
		text string
	}
}

func newAddrCache() *addrCache {
	return &addrCache{seed: maphash.Bytes(maphash.MakeSeed(), nil)}
}

func (c *addrCache) get(a netip.Addr) string {
	b := a.As16()
	lo, hi := u64(b[8:])^c.seed, u64(b[:8])
	x, y := bits.Mul64(lo^hi*0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	slot := &c.slots[(x^y)%addrSlots]
	if slot.addr != a {
		slot.addr, slot.text = a, a.String()
	}
	return slot.text
}

func u64(b []byte) uint64 { return uint64(u32(b))<<32 | uint64(u32(b[4:])) }

// stringCache makes strings of bytes without allocating for those seen lately.
type stringCache struct {
	seed  maphash.Seed
	slots [stringSlots]string
}

func newStringCache() *stringCache { return &stringCache{seed: maphash.MakeSeed()} }

func (c *stringCache) get(b []byte) string {
	slot := &c.slots[maphash.Bytes(c.seed, b)%stringSlots]
	if *slot != string(b) {
		*slot = string(b)
	}
	return *slot
}

// flagNames spells every combination of the nine TCP flags.
type flagNames [512]string

func newFlagNames() *flagNames {
	names := [9]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS"}
	var all flagNames
	for i := range all {
		var set []string
		for bit, name := range names {
			if i>>bit&1 != 0 {
				set = append(set, name)
			}
		}
		all[i] = strings.Join(set, ",")
	}
	return &all
}

func (n *flagNames) of(r *record.TCP) string {
	i := 0
	for bit, set := range [9]bool{r.FIN, r.SYN, r.RST, r.PSH, r.ACK, r.URG, r.ECE, r.CWR, r.NS} {
		if set {
			i |= 1 << bit
		}
	}
	return n[i]
}

// list is a reused slice of reused values: after reset, add gives them out
// again, zeroed.
type list[T any] struct {
	all []*T
	n   int
}

func (l *list[T]) reset() { l.n = 0 }

func (l *list[T]) add() *T {
	if l.n == len(l.all) {
		l.all = append(l.all, new(T))
	}
	v := l.all[l.n]
	l.n++
	var zero T
	*v = zero
	return v
}

// drop takes the last one back.
func (l *list[T]) drop() { l.n-- }

// used returns what was added since reset, nil for nothing.
func (l *list[T]) used() []*T {
	if l.n == 0 {
		return nil
	}
	return l.all[:l.n:l.n]
}
