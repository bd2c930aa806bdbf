package nft

import (
	"cmp"
	"fmt"
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
func (k kind) String() string {
	side, fam := "src", "4"
	if k.target == backend.Destination {
		side = "dst"
	}
	if k.v6 {
		fam = "6"
	}
	name := word(k.action) + "_" + side + fam + "_" + strconv.Itoa(k.bits)
	if k.action == backend.Log {
		name += "_" + escape(k.prefix)
	}
	return name
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

// compare orders the rules of a chain: by rank, and within a family the longest
// prefix first, so that where prefixes nest the nearest one answers.
func (k kind) compare(o kind) int {
	return cmp.Or(cmp.Compare(k.target, o.target), cmp.Compare(k.rank(), o.rank()), cmp.Compare(k.addrBits(), o.addrBits()),
		cmp.Compare(o.bits, k.bits), cmp.Compare(k.action, o.action), cmp.Compare(k.prefix, o.prefix))
}
