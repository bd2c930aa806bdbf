package nft

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// definition is what the kernel says of a set.
type definition struct {
	name            string
	flags           uint32
	keyType, keyLen uint32
	size            uint32
}

// element is what the kernel says of an element.
type element struct {
	key       []byte
	end       bool // the end of an interval
	timed     bool
	lifetime  time.Duration // as it was set
	remaining time.Duration
	comment   string
	read      time.Time
	counts    bool // it has a packet counter
	packets   uint64
	bytes     uint64
}

// sets returns the sets of the table.
func (r *reader) sets(table string) ([]definition, error) {
	var out []definition
	_, err := r.dump(unix.NFT_MSG_GETSET, []netlink.Attribute{{Type: unix.NFTA_SET_TABLE, Data: text(table)}},
		func(attrs []byte, _ time.Time) {
			var d definition
			for typ, data := range attributes(attrs) {
				switch typ {
				case unix.NFTA_SET_NAME:
					d.name = unix.ByteSliceToString(data)
				case unix.NFTA_SET_FLAGS:
					d.flags = be32(data)
				case unix.NFTA_SET_KEY_TYPE:
					d.keyType = be32(data)
				case unix.NFTA_SET_KEY_LEN:
					d.keyLen = be32(data)
				case unix.NFTA_SET_DESC:
					for typ, data := range attributes(data) {
						if typ == unix.NFTA_SET_DESC_SIZE {
							d.size = be32(data)
						}
					}
				}
			}
			out = append(out, d)
		})
	return out, err
}

// dumpTries bounds how often a set is read again because it changed while it
// was read.
const dumpTries = 5

// elements returns the elements of a set. A dump of a set that changes
// meanwhile may hold an element twice and leave another out, sometimes without
// saying so (measured on Linux 6.18): it is then read again. If it never stays
// quiet, everything that any of the readings saw is returned, the latest
// reading first, because a block that is missing from the answer would be
// taken for one that somebody removed.
func (r *reader) elements(table, set string) ([]element, error) {
	var all []element
	for range dumpTries {
		var got []element
		here := make(map[string]struct{})
		twice := false
		changed, err := r.dump(unix.NFT_MSG_GETSETELEM, []netlink.Attribute{
			{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: text(table)},
			{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: text(set)},
		}, func(attrs []byte, read time.Time) {
			for _, e := range decodeElements(attrs, read) {
				id := e.identity()
				if _, ok := here[id]; ok {
					twice = true
					continue
				}
				here[id] = struct{}{}
				got = append(got, e)
			}
		})
		if err != nil {
			return nil, err
		}
		if !changed && !twice {
			return got, nil
		}
		for _, e := range all {
			if _, ok := here[e.identity()]; !ok {
				got = append(got, e)
			}
		}
		all = got
	}
	return all, nil
}

func (e element) identity() string {
	if e.end {
		return string(e.key) + "]"
	}
	return string(e.key)
}

func decodeElements(attrs []byte, read time.Time) []element {
	var out []element
	for typ, list := range attributes(attrs) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, data := range attributes(list) {
			out = append(out, decodeElement(data, read))
		}
	}
	return out
}

func decodeElement(attrs []byte, read time.Time) element {
	e := element{read: read}
	for typ, data := range attributes(attrs) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			for typ, value := range attributes(data) {
				if typ == unix.NFTA_DATA_VALUE {
					e.key = append([]byte(nil), value...)
				}
			}
		case unix.NFTA_SET_ELEM_FLAGS:
			e.end = be32(data)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.lifetime = milliseconds(data)
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.timed, e.remaining = true, milliseconds(data)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.comment = comment(data)
		case unix.NFTA_SET_ELEM_EXPR:
			e.count(data)
		}
	}
	return e
}

// count reads the element's expression, if it is a counter.
func (e *element) count(attrs []byte) {
	var name string
	var body []byte
	for typ, data := range attributes(attrs) {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			name = unix.ByteSliceToString(data)
		case unix.NFTA_EXPR_DATA:
			body = data
		}
	}
	if name != "counter" {
		return
	}
	e.counts = true
	for typ, data := range attributes(body) {
		switch {
		case len(data) < 8:
		case typ == unix.NFTA_COUNTER_PACKETS:
			e.packets = binary.BigEndian.Uint64(data)
		case typ == unix.NFTA_COUNTER_BYTES:
			e.bytes = binary.BigEndian.Uint64(data)
		}
	}
}

// counter is what the element has counted, to go on from there; nil where it
// counts nothing.
func (e element) counter() *expr.Counter {
	if !e.counts {
		return nil
	}
	return &expr.Counter{Packets: e.packets, Bytes: e.bytes}
}

// left is the time to the block's end, which encode made the kernel go beyond;
// zero or less for a block that is over. An element without an end has none
// left.
func (e element) left() time.Duration {
	if !e.timed {
		return 0
	}
	if _, ours := backend.DecodeComment(e.comment); ours {
		return e.remaining - ticks
	}
	return e.remaining
}

// milliseconds reads a time of the kernel. What does not fit a Duration is cut
// to the longest one, 292 years.
func milliseconds(b []byte) time.Duration {
	if len(b) < 8 {
		return 0
	}
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	return time.Duration(min(binary.BigEndian.Uint64(b), most)) * time.Millisecond
}

func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// block is the block that an element of the kind's set is. It reports false
// for one that blocks nothing: a key with host bits, which the masked lookup
// can never find, or one of the wrong length. An element that somebody else
// wrote comes back with its comment as the reason and, if it has an end, its
// creation derived from that.
func (k kind) block(e element) (backend.Block, bool) {
	addr, ok := netip.AddrFromSlice(e.key)
	if !ok || addr.BitLen() != k.addrBits() {
		return backend.Block{}, false
	}
	p := netip.PrefixFrom(addr, k.bits)
	if p != p.Masked() {
		return backend.Block{}, false
	}
	b := backend.Block{Key: backend.Key{Prefix: p, Target: k.target}, Action: k.action}
	if e.timed {
		b.ExpiresAt = e.read.Add(e.left()).Round(0)
		b.CreatedAt = b.ExpiresAt.Add(-e.lifetime)
	}
	c, ours := backend.DecodeComment(e.comment)
	if ours {
		b.CreatedAt = c.Created
	} else {
		// What it says is made harmless in the same way as our own comments.
		c, _ = backend.DecodeComment(backend.Comment{Reason: e.comment}.Encode(4 * maxComment))
	}
	b.Rule, b.Reason = c.Rule, c.Reason
	return b, true
}

// encode is the element that a block becomes at now. It reports false for a
// block that has ended: a timeout of zero would make it permanent.
func encode(b backend.Block, now time.Time) (nftables.SetElement, bool) {
	e := nftables.SetElement{
		Key:     b.Prefix.Addr().AsSlice(),
		Comment: backend.Comment{Rule: b.Rule, Reason: b.Reason, Created: b.CreatedAt}.Encode(maxComment),
	}
	if b.Permanent() {
		return e, true
	}
	if b.Expired(now) {
		return e, false
	}
	// The library cuts to milliseconds; a block must not end early.
	const up = time.Millisecond - time.Nanosecond + ticks
	e.Timeout = min(b.Remaining(now), math.MaxInt64-up) + up
	return e, true
}

// ticks is what the kernel may take off a timeout: it cuts the timeout to
// whole ticks of its clock, and counts from the tick before (nft_set_elem_init
// and nf_msecs_to_jiffies64, Linux 6.18). A tick is 10 ms at most (HZ=100).
const ticks = 20 * time.Millisecond
