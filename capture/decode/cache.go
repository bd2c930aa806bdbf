package decode

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/netcap-guard/netcap-guard/record"
)

// The caches have four slots a hash and replace the oldest of them: they cannot
// grow, and who forces collisions (the seed is random) costs us an allocation
// each. With one slot, two addresses that meet in it would cost one a packet.

const (
	ways       = 4
	addrSets   = 1024
	stringSets = 128
)

// addrCache spells addresses without allocating for those seen lately.
type addrCache struct {
	seed uint64
	sets [addrSets][ways]addrText
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
	set := &c.sets[(x^y)%addrSets]
	for i := range set {
		if set[i].addr == a {
			return set[i].text
		}
	}
	copy(set[1:], set[:])
	set[0] = addrText{a, a.String()}
	return set[0].text
}

func u64(b []byte) uint64 { return uint64(u32(b))<<32 | uint64(u32(b[4:])) }

// stringCache makes strings of bytes without allocating for those seen lately.
type stringCache struct {
	seed maphash.Seed
	sets [stringSets][ways]string
}

func newStringCache() *stringCache { return &stringCache{seed: maphash.MakeSeed()} }

func (c *stringCache) get(b []byte) string {
	set := &c.sets[maphash.Bytes(c.seed, b)%stringSets]
	for i := range set {
		if set[i] == string(b) {
			return set[i]
		}
	}
	copy(set[1:], set[:])
	set[0] = string(b)
	return set[0]
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
