package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Message types that the constants of package unix lack. Since Linux 6.3 the
// kernel reports a destroy command under its own type.
const (
	msgDestroyTable = 26 + iota
	msgDestroyChain
	msgDestroyRule
	msgDestroySet
	msgDestroySetElem
)

// Attributes that mean the same in every message about an object in a table.
const (
	attrTable     = 1
	attrName      = 2 // of the rule's chain, the set, the set of an element
	attrChainName = unix.NFTA_CHAIN_NAME
)

// maxKeys bounds what one foreign transaction makes us remember. Above it only
// a List tells what is left.
const maxKeys = 100_000

// transcript makes events of what the kernel reports: it collects the messages
// about our table that one transaction of somebody else caused, and says at
// its end, the message about the new generation, what they come to. The kernel
// reports whole transactions one after another.
type transcript struct {
	table string
	port  uint32 // ours: what it caused raises nothing
	emit  func(backend.Event)

	damage, look string
	tableGone    bool
	keys         map[kind][]backend.Key
	held         int
	partial      bool // messages of this transaction were lost
}

// feed takes what one read returned. What it cannot read raises a Look.
func (t *transcript) feed(b []byte) {
	for h, body := range messages(b) {
		if h.typ>>8 != unix.NFNL_SUBSYS_NFTABLES {
			continue
		}
		if !h.whole || len(body) < 4 {
			t.emit(backend.Event{Kind: backend.Look, Reason: "a message of the kernel was not understood"})
			return
		}
		typ, family, attrs := h.typ&0xff, body[0], body[4:]
		switch {
		case typ == unix.NFT_MSG_NEWGEN:
			t.end(attrs)
		case h.port != t.port && family == byte(nftables.TableFamilyINet):
			t.note(typ, attrs)
		}
	}
}

// lost says that messages are missing.
func (t *transcript) lost() {
	t.reset()
	t.partial = true
	t.emit(backend.Event{Kind: backend.Look, Reason: "messages of the kernel were lost"})
}

func (t *transcript) reset() {
	t.damage, t.look, t.tableGone, t.partial = "", "", false, false
	t.keys, t.held = nil, 0
}

// note takes one message of somebody else's transaction.
func (t *transcript) note(typ uint16, attrs []byte) {
	var table, name, chain string
	var elements []byte
	for a, data := range attributes(attrs) {
		switch a {
		case attrTable:
			table = unix.ByteSliceToString(data)
		case attrName:
			name = unix.ByteSliceToString(data)
		case attrChainName: // of a set element message: its elements
			chain, elements = unix.ByteSliceToString(data), data
		}
	}
	if table != t.table {
		return
	}
	switch typ {
	case unix.NFT_MSG_DELTABLE, msgDestroyTable:
		t.damage, t.tableGone = "table deleted", true
	case unix.NFT_MSG_NEWTABLE:
		if t.tableGone {
			t.damage = "table replaced"
		}
		t.broken("table changed")
	case unix.NFT_MSG_NEWCHAIN:
		t.ofChain(chain, "chain %s changed")
	case unix.NFT_MSG_DELCHAIN, msgDestroyChain:
		t.ofChain(chain, "chain %s deleted")
	case unix.NFT_MSG_NEWRULE:
		t.ofChain(name, "rule added to chain %s")
	case unix.NFT_MSG_DELRULE, msgDestroyRule:
		t.ofChain(name, "rule deleted from chain %s")
	case unix.NFT_MSG_NEWSET:
		t.ofSet(name, "set %s added")
	case unix.NFT_MSG_DELSET, msgDestroySet:
		t.ofSet(name, "set %s deleted")
	case unix.NFT_MSG_NEWSETELEM:
		t.ofElements(name, nil)
	case unix.NFT_MSG_DELSETELEM, msgDestroySetElem:
		t.ofElements(name, elements)
	}
}

// broken remembers the first damage of the transaction: the kernel reports
// causes before what follows from them, but for the table.
func (t *transcript) broken(what string) {
	t.damage = cmp.Or(t.damage, what)
}

func (t *transcript) ofChain(name, what string) {
	if isOurChain(name) {
		t.broken(fmt.Sprintf(what, name))
	}
}

func (t *transcript) ofSet(name, what string) {
	if _, ours := parseKind(name); ours || isAllow(name) {
		t.broken(fmt.Sprintf(what, name))
	}
}

// ofElements notes deleted elements; nil means that some were added.
func (t *transcript) ofElements(set string, deleted []byte) {
	if isAllow(set) {
		t.broken("set " + set + " changed")
		return
	}
	k, ours := parseKind(set)
	switch {
	case !ours:
		return
	case deleted == nil:
		t.look = "element added to set " + set
		return
	}
	var store arena
	for typ, data := range attributes(deleted) {
		one, ok := k.block(decodeElement(data, time.Time{}, &store))
		switch {
		case typ != unix.NFTA_LIST_ELEM:
			t.look = "a deletion from set " + set + " was not understood"
		case !ok: // it blocked nothing
		case t.held >= maxKeys:
			t.look = fmt.Sprintf("more than %d elements were deleted at once", maxKeys)
		default:
			if t.keys == nil {
				t.keys = make(map[kind][]backend.Key)
			}
			t.keys[k] = append(t.keys[k], one.Key)
			t.held++
		}
	}
}

// end says what the transaction came to.
func (t *transcript) end(attrs []byte) {
	defer t.reset()
	by := author(attrs)
	switch {
	case t.damage != "":
		t.emit(backend.Event{Kind: backend.Damaged, Reason: t.damage, By: by})
	case t.look != "":
		t.emit(backend.Event{Kind: backend.Look, Reason: t.look, By: by})
	case t.partial && t.held > 0:
		t.emit(backend.Event{Kind: backend.Look, Reason: "elements were deleted, and messages lost", By: by})
	default:
		t.endKeys(by)
	}
}

// endKeys raises one event for all elements that went alone out of their sets,
// and one for each set that lost several.
func (t *transcript) endKeys(by string) {
	var alone []backend.Key
	var from []string
	var several []kind
	for _, k := range slices.SortedFunc(maps.Keys(t.keys), kind.compare) {
		if keys := t.keys[k]; len(keys) > 1 {
			several = append(several, k)
		} else {
			alone, from = append(alone, keys...), append(from, k.String())
		}
	}
	if len(alone) > 0 {
		t.emit(backend.Event{Kind: backend.Removed, Keys: alone, Reason: "element deleted from set " + strings.Join(from, ", "), By: by})
	}
	for _, k := range several {
		reason := fmt.Sprintf("%d elements deleted from set %s at once", len(t.keys[k]), k)
		t.emit(backend.Event{Kind: backend.Emptied, Keys: t.keys[k], Reason: reason, By: by})
	}
}

// author names the program and the process (seen from the first PID
// namespace) that made a generation. Anybody chooses the name of his program.
func author(attrs []byte) string {
	var pid uint32
	program := ""
	for typ, data := range attributes(attrs) {
		switch typ {
		case unix.NFTA_GEN_PROC_PID:
			pid = be32(data)
		case unix.NFTA_GEN_PROC_NAME:
			program = unix.ByteSliceToString(data)
		}
	}
	if pid == 0 && program == "" {
		return ""
	}
	program = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, program)
	return fmt.Sprintf("%s (%d)", program, pid)
}

// header is what we need of a netlink message's header. whole is false for
// what is no message: the rest of the read is then lost.
type header struct {
	typ, flags     uint16
	sequence, port uint32
	whole          bool
}

// messages walks the netlink messages of one read.
func messages(b []byte) func(yield func(header, []byte) bool) {
	return func(yield func(header, []byte) bool) {
		for len(b) >= unix.NLMSG_HDRLEN {
			length := int(binary.NativeEndian.Uint32(b))
			h := header{
				typ: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
				sequence: binary.NativeEndian.Uint32(b[8:]), port: binary.NativeEndian.Uint32(b[12:]),
				whole: length >= unix.NLMSG_HDRLEN && length <= len(b),
			}
			if !h.whole {
				yield(h, nil)
				return
			}
			if !yield(h, b[unix.NLMSG_HDRLEN:length]) {
				return
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}
