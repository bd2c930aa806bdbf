package decode

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/netcap-guard/netcap-guard/record"
)

// The caches have two slots a hash and replace the older of them: they cannot
// grow, and who forces collisions (the seed is random) costs us an allocation
// each. With one slot, two addresses that meet in it would cost one a packet.

const (
	addrSlots   = 4096
	stringSlots = 512
)

// addrCache spells addresses without allocating for those seen lately.
type addrCache struct {
	seed  uint64
	slots [addrSlots]addrText
}

type addrText struct {
	addr netip.Addr
	text string
}

func newAddrCache() *addrCache {
	return &addrCache{seed: maphash.Bytes(maphash.MakeSeed(), nil)}
}

func (c *addrCache) get(a netip.Addr) string {
	b := a.As16()
	lo, hi := u64(b[8:])^c.seed, u64(b[:8])
	x, y := bits.Mul64(lo^hi*0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	i := (x ^ y) % addrSlots
	slot, older := &c.slots[i], &c.slots[i^1]
	if slot.addr == a {
		return slot.text
	}
	if older.addr == a {
		return older.text
	}
	*older = *slot
	slot.addr, slot.text = a, a.String()
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
	i := maphash.Bytes(c.seed, b) % stringSlots
	slot, older := &c.slots[i], &c.slots[i^1]
	if *slot == string(b) {
		return *slot
	}
	if *older == string(b) {
		return *older
	}
	*older = *slot
	*slot = string(b)
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
