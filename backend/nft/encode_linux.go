package nft

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// entry is one element of one kind's set, to be put in or taken out. What it
// points to belongs to others and is only read.
type entry struct {
	kind *kind
	addr netip.Addr
	// block is what comment and limit are taken from; where it is nil, was is.
	block *backend.Block
	// was is the element that this one follows, whose counter goes on.
	was *element
}

// put is the entry of a block. It reports false for a block that has ended at
// now.
func put(k *kind, b *backend.Block, now time.Time) (entry, bool) {
	return entry{kind: k, addr: b.Prefix.Addr(), block: b}, !b.Expired(now)
}

// again is the entry that puts an element back as it was; false if its end has
// come.
func again(k *kind, e *element, now time.Time) (entry, bool) {
	addr, ok := netip.AddrFromSlice(e.key)
	return entry{kind: k, addr: addr, was: e}, ok && (!e.timed || now.Sub(e.read) < e.remaining)
}

// timeout is what the kernel is told at now; 0 for an element that stays. One
// whose end has come meanwhile gets the shortest: zero would make it permanent.
func (e *entry) timeout(now time.Time) time.Duration {
	switch {
	case e.block == nil && e.was.timed:
		return max(e.was.remaining-now.Sub(e.was.read), time.Millisecond)
	case e.block == nil, e.block.Permanent():
		return 0
	}
	// The kernel takes milliseconds; a block must not end early.
	const up = time.Millisecond - time.Nanosecond + ticks
	return min(e.block.Remaining(now), math.MaxInt64-up) + up
}

// ticks is what the kernel may take off a timeout: it cuts the timeout to
// whole ticks of its clock, and counts from the tick before (nft_set_elem_init
// and nf_msecs_to_jiffies64, Linux 6.18). A tick is 10 ms at most (HZ=100).
const ticks = 20 * time.Millisecond

func (e *entry) limit() backend.Limit {
	if e.block != nil {
		return e.block.Limit
	}
	return e.was.limit
}

func (e *entry) comment(dst []byte) []byte {
	if e.block == nil {
		return append(dst, e.was.comment...)
	}
	return backend.Comment{Rule: e.block.Rule, Reason: e.block.Reason, Created: e.block.CreatedAt}.Append(dst, maxComment)
}

// maxList is how many bytes of elements one message gets. The length of an
// attribute has 16 bits, and an element takes at most 350 bytes.
const maxList = 60_000

// elements adds messages about elements of one kind's set. Bare, only the
// addresses go in, for messages that delete.
func (w *wire) elements(typ, flags uint16, table string, entries []entry, bare bool) {
	for len(entries) > 0 {
		w.open(nftSubsystem|typ, flags)
		w.text(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		set := len(w.buf)
		w.flat(unix.NFTA_SET_ELEM_LIST_SET, 0)
		w.buf = append(entries[0].kind.append(w.buf), 0)
		w.close(set)
		list := w.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		n := 0
		for n < len(entries) && len(w.buf)-list < maxList {
			w.element(&entries[n], bare)
			n++
		}
		w.close(list)
		w.shut()
		entries = entries[n:]
	}
}

func (w *wire) element(e *entry, bare bool) {
	outer := w.nest(unix.NFTA_LIST_ELEM)
	key := w.nest(unix.NFTA_SET_ELEM_KEY)
	if addr := e.addr; addr.Is4() {
		a := addr.As4()
		w.bytes(unix.NFTA_DATA_VALUE, a[:])
	} else {
		a := addr.As16()
		w.bytes(unix.NFTA_DATA_VALUE, a[:])
	}
	w.close(key)
	if !bare {
		if timeout := e.timeout(w.now); timeout > 0 {
			w.uint64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(timeout/time.Millisecond))
		}
		w.expressions(e)
		w.userdata(e)
	}
	w.close(outer)
}

// expressions are the element's limit and counter. A set that counts gives
// every element a counter of its own; one that goes on is written here.
func (w *wire) expressions(e *entry) {
	switch {
	case e.kind.action == backend.RateLimit:
		w.limited(nftaSetElemExpressions, e.limit(), e.was)
	case e.was != nil && e.was.counts:
		at := w.nest(unix.NFTA_SET_ELEM_EXPR)
		w.counter(e.was)
		w.close(at)
	}
}

// limited is a limit and behind it a counter, which then counts what is above
// the rate: an expression that says no ends the evaluation
// (nft_set_elem_update_expr). Linux 5.11 is the first to keep two of them.
func (w *wire) limited(typ uint16, l backend.Limit, was *element) {
	at := w.nest(typ)
	one := w.nest(unix.NFTA_LIST_ELEM)
	w.limit(l)
	w.close(one)
	one = w.nest(unix.NFTA_LIST_ELEM)
	w.counter(was)
	w.close(one)
	w.close(at)
}

// What package unix lacks of linux/netfilter/nf_tables.h.
const (
	nftaSetExpr            = 17
	nftaSetExpressions     = 18
	nftaSetElemExpressions = 11
	nftSetExpr             = 0x100 // a flag: the set has several expressions
)

// declared is the limit that a set of rate limits gives to who adds an element
// without one. The nft program takes no element with a limit and a counter into
// a set that does not name both.
func declared() backend.Limit { return backend.Limit{Rate: 10, Per: time.Minute, Burst: 5} }

// limitSet adds the message that makes a set of rate limits, which the library
// cannot.
func (w *wire) limitSet(k kind, c Config) {
	f := k.family()
	key := f.keyType
	w.open(nftSubsystem|unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	w.text(unix.NFTA_SET_TABLE, c.Table)
	w.text(unix.NFTA_SET_NAME, k.String())
	w.uint32(unix.NFTA_SET_FLAGS, unix.NFT_SET_TIMEOUT|nftSetExpr)
	w.uint32(unix.NFTA_SET_KEY_TYPE, key.GetNFTMagic())
	w.uint32(unix.NFTA_SET_KEY_LEN, f.length)
	w.uint32(unix.NFTA_SET_ID, w.sequence) // the kernel wants one; nobody refers to it
	at := w.nest(unix.NFTA_SET_DESC)
	w.uint32(unix.NFTA_SET_DESC_SIZE, c.SetSize)
	w.close(at)
	w.limited(nftaSetExpressions, declared(), nil)
	w.shut()
}

// limit lets pass what is within the rate, and goes on with what is above.
func (w *wire) limit(l backend.Limit) {
	w.text(unix.NFTA_EXPR_NAME, "limit")
	at := w.nest(unix.NFTA_EXPR_DATA)
	w.uint64(unix.NFTA_LIMIT_RATE, l.Rate)
	w.uint64(unix.NFTA_LIMIT_UNIT, uint64(l.Per/time.Second))
	w.uint32(unix.NFTA_LIMIT_BURST, l.Burst)
	w.uint32(unix.NFTA_LIMIT_TYPE, unix.NFT_LIMIT_PKTS)
	w.uint32(unix.NFTA_LIMIT_FLAGS, unix.NFT_LIMIT_F_INV)
	w.close(at)
}

// counter counts on from where the element that was before stood.
func (w *wire) counter(was *element) {
	var packets, bytes uint64
	if was != nil {
		packets, bytes = was.packets, was.bytes
	}
	w.text(unix.NFTA_EXPR_NAME, "counter")
	at := w.nest(unix.NFTA_EXPR_DATA)
	w.uint64(unix.NFTA_COUNTER_BYTES, bytes)
	w.uint64(unix.NFTA_COUNTER_PACKETS, packets)
	w.close(at)
}

// userdata carries the comment, with a NUL at its end, as the nft program
// writes it.
func (w *wire) userdata(e *entry) {
	at := len(w.buf)
	w.flat(unix.NFTA_SET_ELEM_USERDATA, 0)
	w.buf = append(w.buf, udataComment, 0)
	begin := len(w.buf)
	w.buf = append(e.comment(w.buf), 0)
	w.buf[begin-1] = byte(len(w.buf) - begin)
	w.close(at)
}

// nest begins an attribute that holds others; close ends it.
func (w *wire) nest(typ uint16) int {
	at := len(w.buf)
	w.buf = append(w.buf, 0, 0)
	w.buf = binary.NativeEndian.AppendUint16(w.buf, typ|unix.NLA_F_NESTED)
	return at
}

func (w *wire) close(at int) {
	binary.NativeEndian.PutUint16(w.buf[at:], uint16(len(w.buf)-at))
	for len(w.buf)%4 != 0 {
		w.buf = append(w.buf, 0)
	}
}

// flat begins an attribute with a value of size bytes; where that is not known
// yet, close sets it.
func (w *wire) flat(typ uint16, size int) {
	w.buf = binary.NativeEndian.AppendUint16(w.buf, uint16(4+size))
	w.buf = binary.NativeEndian.AppendUint16(w.buf, typ)
}

// bytes is for values of whole words.
func (w *wire) bytes(typ uint16, value []byte) {
	w.flat(typ, len(value))
	w.buf = append(w.buf, value...)
}

func (w *wire) uint32(typ uint16, v uint32) {
	w.flat(typ, 4)
	w.buf = binary.BigEndian.AppendUint32(w.buf, v)
}

func (w *wire) uint64(typ uint16, v uint64) {
	w.flat(typ, 8)
	w.buf = binary.BigEndian.AppendUint64(w.buf, v)
}

func (w *wire) text(typ uint16, s string) {
	at := len(w.buf)
	w.flat(typ, 0)
	w.buf = append(append(w.buf, s...), 0)
	w.close(at)
}
