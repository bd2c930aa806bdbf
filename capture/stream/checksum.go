package stream

import (
	"encoding/binary"
	"math/bits"

	"github.com/netcap-guard/netcap-guard/record"
)

// weighs reports whether something depends on a segment of connection i, 0 =
// none yet: most of what is transferred is the inside of what nobody reads.
func (t *Table) weighs(i uint32, dir int, seg *record.Segment) bool {
	if i == 0 || seg.Flags&(record.FlagSYN|record.FlagFIN|record.FlagRST) != 0 {
		return true
	}
	h := &t.conn(i).half[dir]
	if seg.Size == 0 || h.mode == passOver || !t.want.any() {
		return false
	}
	return !h.begun || int32(seg.Seq+uint32(seg.Size)-(h.base+uint32(h.next))) > 0
}

// rightSum reports whether the checksum of a segment is right (RFC 9293, 3.1),
// or cannot be computed, because not all of the segment was captured.
func rightSum(h *record.Header, seg *record.Segment) bool {
	if seg.Whole == nil {
		return true
	}
	// An IPv4 address as IPv6 writes it has ffff in front, which is zero here.
	src, dst := h.Src.As16(), h.Dst.As16()
	const tcp = 6
	sum := add(add(add(uint64(len(seg.Whole))+tcp, src[:]), dst[:]), seg.Whole)
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return sum == 0xffff
}

// add adds the words of b to a sum in one's complement (RFC 1071), eight bytes
// at a time: what is congruent modulo 2^64-1 is so modulo 2^16-1.
func add(sum uint64, b []byte) uint64 {
	var carry uint64
	for ; len(b) >= 8; b = b[8:] {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(last[:]), carry)
	}
	sum, carry = bits.Add64(sum, 0, carry)
	return sum + carry
}
