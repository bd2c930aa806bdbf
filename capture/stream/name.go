package stream

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"

	"github.com/netcap-guard/netcap-guard/record"
)

// keys make the hash of a connection: who wants two with the same would have
// to guess them.
type keys [6]uint64

func newKeys() (k keys) {
	for i := range k {
		k[i] = maphash.Bytes(maphash.MakeSeed(), nil)
	}
	return k
}

// name returns a packet's connection, the same for both of its directions, and
// the packet's direction: 0 from the lower of the two ends, by address and
// port, to the higher. The name is a keyed hash of all 64 bits: two connections
// have the same about once in 2^64 pairs, and are then taken for one.
func (k *keys) name(h *record.Header) (uint64, int) {
	if !isIPv4(h) {
		return k.longName(h)
	}
	src, dst := h.Src.As4(), h.Dst.As4()
	a := uint64(binary.BigEndian.Uint32(src[:]))<<16 | uint64(h.SrcPort)
	b := uint64(binary.BigEndian.Uint32(dst[:]))<<16 | uint64(h.DstPort)
	if a < b {
		return fold(a^k[0], b^k[1]), 0
	}
	return fold(b^k[0], a^k[1]), 1
}

// isIPv4 reports whether both addresses are of IPv4, maybe written as IPv6.
func isIPv4(h *record.Header) bool {
	return (h.Src.Is4() || h.Src.Is4In6()) && (h.Dst.Is4() || h.Dst.Is4In6())
}

// longName is name for addresses of 16 bytes.
func (k *keys) longName(h *record.Header) (uint64, int) {
	src, dst := h.Src.As16(), h.Dst.As16()
	a, b := [2]uint64{u64(src[:8]), u64(src[8:])}, [2]uint64{u64(dst[:8]), u64(dst[8:])}
	aPort, bPort, dir := h.SrcPort, h.DstPort, 0
	if a[0] > b[0] || a[0] == b[0] && (a[1] > b[1] || a[1] == b[1] && aPort >= bPort) {
		a, b, aPort, bPort, dir = b, a, bPort, aPort, 1
	}
	ports := uint64(aPort)<<16 | uint64(bPort)
	return fold(fold(a[0]^k[2], a[1]^k[3])^k[0], fold(b[0]^k[4], b[1]^k[5])^ports^k[1]), dir
}

// fold multiplies and mixes both halves of the product. Neither factor may be
// what somebody can choose: each has a key of its own in it.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func u64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }
