package nft

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

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
	expressions     string // that its elements have, by name: "limit counter"
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
	limited   bool // it has a limit
	limit     backend.Limit
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
				case nftaSetExpressions:
					for _, one := range attributes(data) {
						d.expressions = strings.TrimSpace(d.expressions + " " + expressionName(one))
					}
				case nftaSetExpr:
					d.expressions = expressionName(data)
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

// expressionName is the name of an expression, as "counter".
func expressionName(attrs []byte) string {
	for typ, data := range attributes(attrs) {
		if typ == unix.NFTA_EXPR_NAME {
			return unix.ByteSliceToString(data)
		}
	}
	return ""
}

// A set that changes while it is read is read again, at most dumpTries times,
// and after the second time only until dumpTime is over: a set of a million
// takes longer, and always changes.
const (
	dumpTries = 5
	dumpTime  = 2 * time.Second
)

// elements returns the elements of a set. A dump of a set that changes
// meanwhile may hold an element twice and leave another out, sometimes without
// saying so (measured on Linux 6.18): each piece begins behind as many elements
// as the pieces before it had, whatever became of them. It is then read again.
// What the kernel tells of is a change by a transaction; an element twice tells
// of a table that grows; the set's count, of elements that ended (Linux 6.18
// tells it; where a kernel does not, those go unnoticed). If it never stays quiet, everything
// that any of the readings saw is returned, the latest reading first, because a
// block that is missing from the answer would be taken for one that somebody
// removed.
func (r *reader) elements(table, set string) ([]element, error) {
	var all []element
	begin := time.Now()
	for try := range dumpTries {
		got, quiet, err := r.reading(table, set)
		if err != nil || quiet {
			return got, err
		}
		all = united(got, all)
		if try > 0 && time.Since(begin) > dumpTime {
			break
		}
	}
	return all, nil
}

// reading reads a set once. It reports whether the set stayed as it was.
func (r *reader) reading(table, set string) (got []element, quiet bool, err error) {
	before, err := r.count(table, set)
	if err != nil {
		return nil, false, err
	}
	got = make([]element, 0, before)
	here := make(map[identity]struct{}, before)
	twice := false
	var store arena
	changed, err := r.dump(unix.NFT_MSG_GETSETELEM, []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: text(table)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: text(set)},
	}, func(attrs []byte, read time.Time) {
		decodeElements(attrs, read, &store, func(e element) {
			n := len(here)
			if here[e.identity()] = struct{}{}; len(here) == n {
				twice = true
				return
			}
			got = append(got, e)
		})
	})
	if err != nil {
		return nil, false, err
	}
	after, err := r.count(table, set)
	return got, !changed && !twice && before == after, err
}

// united is got and what only the readings before it saw.
func united(got, before []element) []element {
	here := make(map[identity]struct{}, len(got))
	for _, e := range got {
		here[e.identity()] = struct{}{}
	}
	for _, e := range before {
		if _, ok := here[e.identity()]; !ok {
			got = append(got, e)
		}
	}
	return got
}

// nftaSetCount is NFTA_SET_COUNT, which package unix lacks.
const nftaSetCount = 20

// count is how many elements the kernel says a set has, those included that
// have ended and were not taken out yet; 0 where it does not say.
func (r *reader) count(table, set string) (uint32, error) {
	body, err := r.single(unix.NFT_MSG_GETSET, []netlink.Attribute{
		{Type: unix.NFTA_SET_TABLE, Data: text(table)}, {Type: unix.NFTA_SET_NAME, Data: text(set)},
	})
	if err != nil {
		return 0, fmt.Errorf("read size: %w", err)
	}
	for typ, data := range attributes(body) {
		if typ == nftaSetCount {
			return be32(data), nil
		}
	}
	return 0, nil
}

// identity is what tells the elements of a set apart.
type identity struct {
	key    [16]byte
	length uint8
	end    bool
}

func (e *element) identity() identity {
	id := identity{length: uint8(len(e.key)), end: e.end}
	copy(id.key[:], e.key)
	return id
}

// arena keeps the keys of many elements together: one allocation for hundreds.
type arena []byte

func (a *arena) keep(b []byte) []byte {
	if cap(*a)-len(*a) < len(b) {
		*a = make([]byte, 0, max(4096, len(b)))
	}
	n := len(*a)
	*a = append(*a, b...)
	return (*a)[n:len(*a):len(*a)]
}

// decodeElements calls each with every element of a message.
func decodeElements(attrs []byte, read time.Time, store *arena, each func(element)) {
	for typ, list := range attributes(attrs) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, data := range attributes(list) {
			each(decodeElement(data, read, store))
		}
	}
}

func decodeElement(attrs []byte, read time.Time, store *arena) element {
	e := element{read: read}
	for typ, data := range attributes(attrs) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			for typ, value := range attributes(data) {
				if typ == unix.NFTA_DATA_VALUE {
					e.key = store.keep(value)
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
			e.expression(data)
		case nftaSetElemExpressions:
			for _, one := range attributes(data) {
				e.expression(one)
			}
		}
	}
	return e
}

// expression reads one of the element's expressions.
func (e *element) expression(attrs []byte) {
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
	switch name {
	case "counter":
		e.count(body)
	case "limit":
		e.limited, e.limit = limitOf(body)
	}
}

// count reads a counter.
func (e *element) count(attrs []byte) {
	e.counts = true
	for typ, data := range attributes(attrs) {
		switch typ {
		case unix.NFTA_COUNTER_PACKETS:
			e.packets = be64(data)
		case unix.NFTA_COUNTER_BYTES:
			e.bytes = be64(data)
		}
	}
}

// limitOf reads a limit; false for one that does something else than ours: that
// counts bytes or lets pass what is above the rate.
func limitOf(attrs []byte) (bool, backend.Limit) {
	var l backend.Limit
	var typ, flags uint32
	for a, data := range attributes(attrs) {
		switch a {
		case unix.NFTA_LIMIT_RATE:
			l.Rate = be64(data)
		case unix.NFTA_LIMIT_UNIT:
			l.Per = time.Duration(min(be64(data), math.MaxInt64/uint64(time.Second))) * time.Second
		case unix.NFTA_LIMIT_BURST:
			l.Burst = be32(data)
		case unix.NFTA_LIMIT_TYPE:
			typ = be32(data)
		case unix.NFTA_LIMIT_FLAGS:
			flags = be32(data)
		}
	}
	ours := typ == unix.NFT_LIMIT_PKTS && flags == unix.NFT_LIMIT_F_INV
	return ours && backend.CheckLimit("", l) == nil, l
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
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	return time.Duration(min(be64(b), most)) * time.Millisecond
}

func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func be64(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// block is the block that an element of the kind's set is. It reports false
// for one that is none: a key with host bits, which the masked lookup can never
// find, or one of the wrong length; an element with a limit elsewhere than in a
// set of rate limits, or without one there. An element that somebody else
// wrote comes back with its comment as the reason and, if it has an end, its
// creation derived from that.
func (k kind) block(e element) (backend.Block, bool) {
	addr, ok := netip.AddrFromSlice(e.key)
	if !ok || addr.BitLen() != k.addrBits() {
		return backend.Block{}, false
	}
	p := netip.PrefixFrom(addr, k.bits)
	if p != p.Masked() || e.limited != (k.action == backend.RateLimit) {
		return backend.Block{}, false
	}
	b := backend.Block{Key: backend.Key{Prefix: p, Target: k.target, Log: k.action == backend.Log}, Action: k.action, LogPrefix: k.prefix}
	if e.limited {
		b.Limit = e.limit
	}
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
