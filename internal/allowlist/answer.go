package allowlist

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

// answer is what one lookup of a name for one family said.
type answer struct {
	addrs []netip.Addr // usable ones, sorted, each once
	// none: the name has no address of the family, and whoever said so knows.
	none bool
	err  error // the lookup failed; nothing is known

	ignored, cut int // addresses left out: unusable, too many
}

// families are the lookups of a name.
var families = [...]struct {
	network string
	is4     bool
}{{"ip4", true}, {"ip6", false}}

// reply is the answers of one name, in the order of families.
type reply [len(families)]answer

// resolve looks a name up, family by family: one that fails must not cost the
// other, and a lookup of both hides a failure of one.
func resolve(ctx context.Context, r Lookuper, name string, timeout time.Duration, most int) (out reply) {
	for i, f := range families {
		lctx, cancel := context.WithTimeout(ctx, timeout)
		addrs, err := r.LookupNetIP(lctx, f.network, name)
		cancel()
		out[i] = judge(addrs, err, f.is4, most)
	}
	return out
}

// errUnusable: an answer of nothing but addresses that name no remote host.
var errUnusable = errors.New("the answer holds no usable address")

func judge(addrs []netip.Addr, err error, is4 bool, most int) (out answer) {
	if err != nil {
		if d, ok := errors.AsType[*net.DNSError](err); ok && d.IsNotFound {
			out.none = true
			return out
		}
		out.err = err
		return out
	}
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case a.IsValid() && a.Is4() != is4: // the other lookup's
		case !usable(a):
			out.ignored++
		default:
			out.addrs = append(out.addrs, a)
		}
	}
	slices.SortFunc(out.addrs, netip.Addr.Compare)
	out.addrs = slices.Compact(out.addrs)
	if n := len(out.addrs); n > most {
		out.addrs, out.cut = out.addrs[:most], n-most
	}
	if len(out.addrs) == 0 {
		out.none = out.ignored == 0
		if !out.none {
			out.err = errUnusable
		}
	}
	return out
}

// usable reports whether an address can be that of one remote host. Blockers
// of advertisements answer 0.0.0.0, :: and loopback.
func usable(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
		return false
	}
	if a.Is4() {
		// RFC 1122: "this network" and the reserved class E, with the limited
		// broadcast at its end.
		first := a.As4()[0]
		return first != 0 && first < 240
	}
	return !a.IsLinkLocalUnicast()
}

// found reports whether any family has an address.
func (r *reply) found() bool {
	return slices.ContainsFunc(r[:], func(a answer) bool { return len(a.addrs) > 0 })
}

// merge returns a family's addresses after a reply: the new ones, none if the
// name lost them, or where nothing is known the last good ones.
func (a *answer) merge(last []netip.Addr, found bool) []netip.Addr {
	switch {
	case len(a.addrs) > 0:
		return a.addrs
	case a.none && found:
		return nil
	}
	// A name that has lost all its addresses at once is taken for a failure:
	// a resolver that is being set up says so too.
	return last
}

// errNoAddress: a name without any address.
var errNoAddress = errors.New("the name has no address")

// failure is why a reply is not a full answer, or nil. Where both families
// failed it is most likely for the same reason: the first is enough.
func (r *reply) failure() error {
	for _, a := range r {
		if a.err != nil {
			return a.err
		}
	}
	if !r.found() {
		return errNoAddress
	}
	return nil
}
