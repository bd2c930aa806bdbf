package engine

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
)

// trackerKey is a counter's name: the bucket that it stands in, and 64 bits of
// keyed hash that tell it from the others there. A new name is taken for one of
// theirs once in 2^46 or so, for reasons nobody can foresee.
type trackerKey struct {
	place, tag uint64
}

// Odd numbers without a pattern, to spread what is small over 64 bits.
const (
	spreadPlace = 0x9e3779b97f4a7c15
	spreadTag   = 0xd6e8feb86659fd93
)

// key names the counter of a rule for up to two addresses.
func (t *tracker) key(rule uint32, p purpose, a, b netip.Addr) trackerKey {
	return keyOf(rule, t.hashAddrs(p, a, b))
}

// keyOf names the counter of a rule for what a keyed hash stands for. The
// counters of neighbouring rules for the same are in one bucket: the next rule
// that counts the same packet finds it in the cache. No more than two are, so
// that there is room for others.
func keyOf(rule uint32, hash uint64) trackerKey {
	return trackerKey{
		place: hash + uint64((rule+1)/2)*spreadPlace,
		tag:   max(hash^uint64(rule)*spreadTag, 1), // 0 marks a free entry
	}
}

// values names the counter of different values that goes with one of matches,
// in the same shard.
func (k trackerKey) values() trackerKey {
	const all = 1<<32 - 1 // but the shard's bits
	return trackerKey{place: k.place ^ spreadPlace&all, tag: max(k.tag^spreadPlace, 1)}
}

// hashAddrs is the keyed hash of up to two addresses and a purpose.
func (t *tracker) hashAddrs(p purpose, a, b netip.Addr) uint64 {
	if a.Is4() && !b.IsValid() { // the usual case, without the detour
		x := a.As4()
		return maphash.Bytes(t.seed, []byte{x[0], x[1], x[2], x[3], byte(p)})
	}
	if a.Is4In6() && !b.IsValid() {
		return t.hashAddrs(p, a.Unmap(), b)
	}
	var buf [36]byte
	x, y := a.As16(), b.As16()
	copy(buf[:16], x[:])
	copy(buf[16:32], y[:])
	buf[32] = byte(p)
	buf[33] = valid(a) | valid(b)<<1
	return maphash.Bytes(t.seed, buf[:])
}

func valid(a netip.Addr) byte {
	if a.IsValid() {
		return 1
	}
	return 0
}

// hashBytes and hashText are the keyed hash of a value that distinct counts.
func (t *tracker) hashBytes(b []byte) uint64 { return maphash.Bytes(t.seed, b) }
func (t *tracker) hashText(s string) uint64  { return maphash.String(t.seed, s) }

func noAddr() netip.Addr { return netip.Addr{} }

// network masks an IPv6 address to its first bits; IPv4 stays whole.
func network(a netip.Addr, bits int) netip.Addr {
	if !a.Is6() || a.Is4In6() {
		return a
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return a
	}
	return p.Addr()
}

// lifespan is a duration in 32 bits, rounded up by less than a part in ten million:
// six bits say how far to shift the others.
type lifespan uint32

const shiftBits = 6

func lifespanOf(ns int64) lifespan {
	const most = 32 - shiftBits
	n := uint64(max(ns, 0))
	shift := max(bits.Len64(n)-most, 0)
	m := (n + 1<<shift - 1) >> shift
	if m == 1<<most {
		m, shift = m/2, shift+1
	}
	return lifespan(m<<shiftBits | uint64(shift))
}

// length is the duration in nanoseconds.
func (s lifespan) length() int64 { return int64(s>>shiftBits) << (s & (1<<shiftBits - 1)) }
