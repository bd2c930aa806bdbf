package nft

import (
	"bytes"
	"encoding/binary"
	"iter"
)

// attributes walks netlink attributes (struct nlattr: length and type in the
// host's byte order, data, padding to 4 bytes). It stops at what is no whole
// attribute: in our table anybody with CAP_NET_ADMIN may have written.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	const header, typeMask = 4, 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= header {
			n := int(binary.NativeEndian.Uint16(b))
			if n < header || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&typeMask, b[header:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// udataComment is the type of a comment in the userdata of an element, which
// the nft program prints (libnftnl: NFTNL_UDATA_SET_ELEM_COMMENT).
const udataComment = 0

// maxComment is the longest comment that the nft program accepts when a
// listing is loaded again, less the terminating NUL (measured with nft 1.0.6).
const maxComment = 127

// comment finds the comment in an element's userdata: entries of one byte
// type, one byte length and data. The library's own parser panics on an entry
// that is longer than the data; this one stops there.
func comment(userdata []byte) string {
	for len(userdata) >= 2 {
		typ, n := userdata[0], int(userdata[1])
		userdata = userdata[2:]
		if n > len(userdata) {
			return ""
		}
		if typ == udataComment {
			text, _, _ := bytes.Cut(userdata[:n], []byte{0})
			return string(text)
		}
		userdata = userdata[n:]
	}
	return ""
}
