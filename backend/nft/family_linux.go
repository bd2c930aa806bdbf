package nft

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// family is what tells IPv4 from IPv6: everything else is the same.
type family struct {
	v6      bool
	nfproto byte
	keyType nftables.SetDatatype
	length  uint32    // of an address, in bytes
	offset  [2]uint32 // of the address in the header, by backend.Target
	allow   string    // the name of the set of allowed addresses
}

func families() []family {
	return []family{
		{nfproto: unix.NFPROTO_IPV4, keyType: nftables.TypeIPAddr, length: 4, offset: [2]uint32{12, 16}, allow: "allow4"},
		{v6: true, nfproto: unix.NFPROTO_IPV6, keyType: nftables.TypeIP6Addr, length: 16, offset: [2]uint32{8, 24}, allow: "allow6"},
	}
}

func (k kind) family() family {
	if k.v6 {
		return families()[1]
	}
	return families()[0]
}

// set is the set of the kind, as it is made. Where c wants counters, every
// element that anybody adds to it has one (Linux 5.7; older kernels leave the
// wish aside). Rate limits are made by wire.limitSet.
func (k kind) set(t *nftables.Table, c Config) *nftables.Set {
	return &nftables.Set{Table: t, Name: k.String(), HasTimeout: true, Size: c.SetSize, Counter: c.Counters,
		KeyType: k.family().keyType, KeyByteOrder: binaryutil.BigEndian}
}

// allowSet is the family's set of allowed addresses.
func (f family) allowSet(t *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: t, Name: f.allow, Interval: true, KeyType: f.keyType, KeyByteOrder: binaryutil.BigEndian}
}

// allowElements are the elements of an interval set that holds the allowed
// prefixes: each range begins with its first address and ends with an element
// that is the first address behind it.
func (f family) allowElements(prefixes []netip.Prefix) []nftables.SetElement {
	var out []nftables.SetElement
	for _, s := range spans(prefixes, f.v6) {
		out = append(out, nftables.SetElement{Key: s.first.AsSlice(), IntervalOpen: !s.end.IsValid()})
		if s.end.IsValid() {
			out = append(out, nftables.SetElement{Key: s.end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// allowed are the elements of all allow sets, by name.
func allowed(prefixes []netip.Prefix) map[string][]nftables.SetElement {
	out := make(map[string][]nftables.SetElement)
	for _, f := range families() {
		out[f.allow] = f.allowElements(prefixes)
	}
	return out
}

// sameElements reports whether an interval set that holds have allows what one
// with want would.
func sameElements(have []element, want []nftables.SetElement) bool {
	a, b := make(map[identity]struct{}), make(map[identity]struct{})
	for _, e := range have {
		if !e.endsNothing() {
			a[e.identity()] = struct{}{}
		}
	}
	for _, e := range want {
		one := element{key: e.Key, end: e.IntervalEnd}
		b[one.identity()] = struct{}{}
	}
	return maps.Equal(a, b)
}

// endsNothing reports whether this is the end that the nft program puts at the
// first address of all, in front of every range.
func (e element) endsNothing() bool {
	return e.end && !slices.ContainsFunc(e.key, func(c byte) bool { return c != 0 })
}

// mask is the netmask of a prefix length, as long as an address.
func (f family) mask(bits int) []byte {
	m := make([]byte, f.length)
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// sides are the two regular chains and what they look at.
func sides() [2]string {
	return [2]string{backend.Source: "source", backend.Destination: "destination"}
}
