package nft

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/netcap-guard/netcap-guard/backend"
)

// kind is what all blocks of one set have in common. Its String is the set's
// name in the kernel and says it all: drop_src4_32, reset_dst6_64,
// log_src4_32_NETCAP_3a_20.
type kind struct {
	action backend.Action
	target backend.Target
	v6     bool
	bits   int
	prefix string // Log only: what its rule writes in front of a packet
}

// word is how the names of an action's sets begin.
func word(a backend.Action) string {
	return [...]string{backend.Drop: "drop", backend.Reject: "reject", backend.RejectReset: "reset",
		backend.RateLimit: "limit", backend.Log: "log"}[a]
}

// kindOf is the kind of a block, of which slot and log prefix are looked at.
func kindOf(b *backend.Block) kind {
	return kind{action: b.Action, target: b.Target, v6: b.Prefix.Addr().Is6(), bits: b.Prefix.Bits(), prefix: b.LogPrefix}
}

// holds reports whether a block with this slot can be in the kind's set. Only
// a log can be in several: one for each prefix text.
func (k kind) holds(s backend.Slot) bool {
	k.prefix = ""
	return k == kindOf(&backend.Block{Key: s.Key, Action: s.Action})
}

// String is the set's name.
func (k kind) String() string { return string(k.append(nil)) }

// append is String behind dst.
func (k kind) append(dst []byte) []byte {
	side, fam := "_src", "4_"
	if k.target == backend.Destination {
		side = "_dst"
	}
	if k.v6 {
		fam = "6_"
	}
	dst = append(append(append(dst, word(k.action)...), side...), fam...)
	dst = strconv.AppendInt(dst, int64(k.bits), 10)
	if k.action == backend.Log {
		dst = append(append(dst, '_'), escape(k.prefix)...)
	}
	return dst
}

// escape makes a log prefix a part of a set's name: letters and digits stay,
// every other byte becomes _ and two hexadecimal digits. At most 189 bytes
// come of it; the kernel takes names of 255.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// unescape reads what escape wrote; parseKind finds out whether it did.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '_' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// parseKind reads a set's name; false for one that String cannot have made of
// a valid kind.
func parseKind(name string) (kind, bool) {
	begin, rest, _ := strings.Cut(name, "_")
	side, rest, _ := strings.Cut(rest, "_")
	for _, a := range backend.Actions() {
		if word(a) != begin {
			continue
		}
		k := kind{action: a, v6: strings.HasSuffix(side, "6")}
		if strings.HasPrefix(side, "dst") {
			k.target = backend.Destination
		}
		length := rest
		if a == backend.Log {
			length, rest, _ = strings.Cut(rest, "_")
			k.prefix = unescape(rest)
		}
		k.bits, _ = strconv.Atoi(length)
		valid := k.bits >= 0 && k.bits <= k.addrBits() && backend.CheckLogPrefix(k.prefix) == nil
		return k, valid && k.String() == name
	}
	return kind{}, false
}

func (k kind) addrBits() int {
	if k.v6 {
		return 128
	}
	return 32
}

// rank is the place of the action's rules in a chain. Logs come first, or what
// is stopped would not be logged; rate limits last, or what is stopped anyway
// would use up the bucket of a prefix for its good neighbours.
func (k kind) rank() int {
	switch k.action {
	case backend.Log:
		return 0
	case backend.RateLimit:
		return 2
	}
	return 1
}

// hosts reports whether the kind's blocks are single addresses.
func (k kind) hosts() bool { return k.bits == k.addrBits() }

// compare is the order of the kinds' rules; see place.compare.
func (k kind) compare(o kind) int { return place{kind: k}.compare(place{kind: o}) }

// place is a rule of a side's chain: the one that looks into a kind's set, or a
// gate.
//
// A packet that no set holds is to cost as little as can be, and a look into a
// set of allowed addresses, which knows intervals, costs more than one into a
// set of blocks. Rules of single addresses therefore ask whether an address is
// allowed when they have found it. That is too late for its element's counter,
// which then counts a packet that passes; but nobody blocks an address that he
// allows. Prefixes with allowed addresses inside are common, so their rules
// stand behind a gate, a rule that lets the allowed addresses of the family
// return. It is made with the first of them. Logs come before the gate: those
// of prefixes ask first in their own rules.
type place struct {
	kind
	gate bool
}

// gated reports whether the kind's rule needs a gate in front.
func (k kind) gated() bool { return !k.hosts() && k.action != backend.Log }

// gateOf is the gate of the kind's side and family. It stands behind the blocks
// of single addresses.
func (k kind) gateOf() place {
	return place{kind{action: backend.Drop, target: k.target, v6: k.v6, bits: k.addrBits()}, true}
}

// places are the rules for these kinds, with gates where they are needed, in
// order.
func places(kinds []kind) []place {
	var out []place
	for _, k := range kinds {
		out = append(out, place{kind: k})
		if k.gated() {
			out = append(out, k.gateOf())
		}
	}
	slices.SortFunc(out, place.compare)
	return slices.Compact(out)
}

// compare orders the rules of a chain: by rank, and within a family the longest
// prefix first, so that where prefixes nest the nearest one answers.
func (l place) compare(o place) int {
	return cmp.Or(cmp.Compare(l.target, o.target), cmp.Compare(l.rank(), o.rank()), cmp.Compare(l.addrBits(), o.addrBits()),
		cmp.Compare(o.bits, l.bits), compareBool(l.gate, o.gate), cmp.Compare(l.action, o.action), cmp.Compare(l.prefix, o.prefix))
}

// compareBool has false come first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
