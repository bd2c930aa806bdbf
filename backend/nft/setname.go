package nft

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/netcap-guard/netcap-guard/backend"
)

// kind is what all blocks of one set have in common. Its String is the set's
// name in the kernel and says it all: drop_src4_32, reset_dst6_64.
type kind struct {
	action backend.Action
	target backend.Target
	v6     bool
	bits   int
}

// word is how the names of an action's sets begin; empty for an action this
// backend has no sets for.
func word(a backend.Action) string {
	switch a {
	case backend.Drop:
		return "drop"
	case backend.Reject:
		return "reject"
	case backend.RejectReset:
		return "reset"
	}
	return ""
}

// kindOf is the kind of a block. It fails for an action without sets.
func kindOf(b backend.Slot) (kind, error) {
	if word(b.Action) == "" {
		return kind{}, fmt.Errorf("%w: action %s", backend.ErrUnsupported, b.Action)
	}
	return kind{action: b.Action, target: b.Target, v6: b.Prefix.Addr().Is6(), bits: b.Prefix.Bits()}, nil
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
	return word(k.action) + "_" + side + fam + "_" + strconv.Itoa(k.bits)
}

// parseKind reads a set's name; false for one that String cannot have made.
func parseKind(name string) (kind, bool) {
	begin, rest, _ := strings.Cut(name, "_")
	side, length, _ := strings.Cut(rest, "_")
	for _, a := range backend.Actions() {
		if w := word(a); w == "" || w != begin {
			continue
		}
		k := kind{action: a, v6: strings.HasSuffix(side, "6")}
		if strings.HasPrefix(side, "dst") {
			k.target = backend.Destination
		}
		k.bits, _ = strconv.Atoi(length)
		return k, k.bits >= 0 && k.bits <= k.addrBits() && k.String() == name
	}
	return kind{}, false
}

func (k kind) addrBits() int {
	if k.v6 {
		return 128
	}
	return 32
}

// compare orders the rules of a chain: within a family the longest prefix first,
// so that where prefixes nest the nearest one answers.
func (k kind) compare(o kind) int {
	fam := func(k kind) int { return k.addrBits() }
	return cmp.Or(cmp.Compare(k.target, o.target), cmp.Compare(fam(k), fam(o)),
		cmp.Compare(o.bits, k.bits), cmp.Compare(k.action, o.action))
}
