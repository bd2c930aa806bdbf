package record

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
)

// CommunityID is the flow's Community ID, version 1 with seed 0
// (github.com/corelight/community-id-spec): the same for both directions.
// SHA-1 is the specification's choice; nothing secret is hashed. It allocates.
func (h *Header) CommunityID() string {
	src, dst := h.Src.AsSlice(), h.Dst.AsSlice()
	sport, dport := h.SrcPort, h.DstPort
	if c := bytes.Compare(src, dst); c > 0 || c == 0 && sport > dport {
		src, dst, sport, dport = dst, src, dport, sport
	}
	b := make([]byte, 0, 40)
	b = append(b, 0, 0) // the seed
	b = append(append(b, src...), dst...)
	b = append(b, h.Proto, 0)
	b = binary.BigEndian.AppendUint16(b, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	sum := sha1.Sum(b)
	return "1:" + base64.StdEncoding.EncodeToString(sum[:])
}
