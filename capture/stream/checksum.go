package stream

import (
	"encoding/binary"
	"math/bits"

	"github.com/netcap-guard/netcap-guard/record"
)

// weighs reports whether something depends on a segment of a connection, which
// may be none yet: most of what is transferred is the inside of what nobody
// reads.
func (t *Table) weighs(c conn, dir int, seg *record.Segment) bool {
	if c.entry == nil || seg.Flags&(record.FlagSYN|record.FlagFIN|record.FlagRST) != 0 {
		return true
	}
	h := &c.half[dir]
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
	var sum uint64
	if h.Src.Is4() && h.Dst.Is4() {
		src, dst := h.Src.As4(), h.Dst.As4()
		sum = uint64(binary.LittleEndian.Uint32(src[:])) + uint64(binary.LittleEndian.Uint32(dst[:]))
	} else {
		// An IPv4 address as IPv6 writes it has ffff in front, which is zero here.
		src, dst := h.Src.As16(), h.Dst.As16()
		sum = add(add(0, src[:]), dst[:])
	}
	const tcp = 6
	total := uint64(len(seg.Whole)) + tcp + uint64(bits.ReverseBytes16(uint16(folded(add(sum, seg.Whole)))))
	return folded(total) == 0xffff
}

// folded is a sum of words in one's complement as one word. How often there is
// something to carry is anybody's guess, a processor's, too.
func folded(sum uint64) uint64 {
	sum = sum&0xffffffff + sum>>32
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	return sum&0xffff + sum>>16
}

// add adds the words of b to a sum in one's complement (RFC 1071), eight bytes
// at a time: what is congruent modulo 2^64-1 is so modulo 2^16-1. The bytes of
// each word are the other way round, and so are those of the sum: turning them
// once is enough (1.B there).
func add(sum uint64, b []byte) uint64 {
	var carry uint64
	for ; len(b) >= 64; b = b[64:] {
		p := (*[64]byte)(b)
		sum, carry = bits.Add64(sum, word(p[0:8]), 0)
		sum, carry = bits.Add64(sum, word(p[8:16]), carry)
		sum, carry = bits.Add64(sum, word(p[16:24]), carry)
		sum, carry = bits.Add64(sum, word(p[24:32]), carry)
		sum, carry = bits.Add64(sum, word(p[32:40]), carry)
		sum, carry = bits.Add64(sum, word(p[40:48]), carry)
		sum, carry = bits.Add64(sum, word(p[48:56]), carry)
		sum, carry = bits.Add64(sum, word(p[56:64]), carry)
		sum, carry = bits.Add64(sum, 0, carry)
		sum += carry
	}
	for ; len(b) >= 8; b = b[8:] {
		sum, carry = bits.Add64(sum, word(b), 0)
		sum += carry
	}
	rest := uint64(0)
	if len(b) >= 4 {
		rest, b = uint64(binary.LittleEndian.Uint32(b)), b[4:]
	}
	if len(b) >= 2 {
		rest, b = rest+uint64(binary.LittleEndian.Uint16(b)), b[2:]
	}
	if len(b) > 0 {
		rest += uint64(b[0])
	}
	sum, carry = bits.Add64(sum, rest, 0)
	return sum + carry
}

func word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
