package firewall

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// reference is what TestModel holds Manager and kernel to: the decisions of
// the specification written down a second time, as plainly as they can be,
// without an index, a heap or a tree. Its clock stands still but for advance.
type reference struct {
	now       time.Time
	blocks    map[backend.Key]*refBlock
	white     map[netip.Prefix][]string // the origins of each entry
	lifted    map[netip.Prefix]bool     // taken off by hand
	config    []netip.Prefix
	protected []netip.Prefix

	maxActive, maxPerMinute int
	began                   time.Time // the breaker's minute
	inMinute                int

	// comment is how many bytes the kernel keeps of a block's comment.
	comment int
	stats   refStats
	ended   map[string]uint64 // events: why blocks ended
}

// refStats are the statistics of the Manager that runs now.
type refStats struct {
	created, removed, expired, duplicates, whitelisted uint64
	errors, adopted, refused, resyncs                  uint64
}

type refBlock struct {
	backend.Block
	origin Origin
	forced bool
	// loose: the end went through a kernel, which may have rounded it.
	loose bool
}

func newReference(now time.Time, white []netip.Prefix) *reference {
	r := &reference{now: now, config: white, maxActive: 10, maxPerMinute: 4, blocks: map[backend.Key]*refBlock{}}
	for _, e := range hostaddr.Special() {
		r.protected = append(r.protected, e.Prefix)
	}
	r.restart()
	r.stats.adopted = 0
	return r
}

// span is the first and last address of a prefix.
func span(p netip.Prefix) (first, last netip.Addr) {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ = netip.AddrFromSlice(b)
	return p.Masked().Addr(), last
}

// union reports whether the prefixes together hold every address of p.
func union(p netip.Prefix, of []netip.Prefix) bool {
	need, end := span(p)
	of = slices.DeleteFunc(slices.Clone(of), func(q netip.Prefix) bool { return q.Addr().BitLen() != need.BitLen() })
	slices.SortFunc(of, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	for _, q := range of {
		first, last := span(q)
		switch {
		case last.Less(need):
			continue
		case need.Less(first):
			return false
		case !last.Less(end):
			return true
		}
		need = last.Next()
	}
	return false
}

func (r *reference) whitelist() []netip.Prefix {
	var out []netip.Prefix
	for p := range r.white {
		out = append(out, p)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// exempt: nobody may block all of p.
func (r *reference) exempt(p netip.Prefix, force bool) bool {
	list := r.whitelist()
	if !force {
		list = append(list, r.protected...)
	}
	return union(p, list)
}

// passes: the kernel lets the address through whatever is blocked. A block by
// force opens the protection that lies around it, for its own addresses.
func (r *reference) passes(a netip.Addr) bool {
	for p := range r.white {
		if p.Contains(a) {
			return true
		}
	}
	for _, p := range r.protected {
		if p.Contains(a) && !r.pierced(p, a) {
			return true
		}
	}
	return false
}

func (r *reference) pierced(protected netip.Prefix, a netip.Addr) bool {
	for _, b := range r.blocks {
		if b.forced && b.Prefix.Contains(a) && protected.Bits() <= b.Prefix.Bits() {
			return true
		}
	}
	return false
}

// stops: packets with the address on the target's side go no further.
func (r *reference) stops(t backend.Target, a netip.Addr) bool {
	for k := range r.blocks {
		if k.Target == t && k.Prefix.Contains(a) {
			return !r.passes(a)
		}
	}
	return false
}

// advance moves the clock and ends what is due.
func (r *reference) advance(d time.Duration) {
	r.now = r.now.Add(d)
	for k, b := range r.blocks {
		if !b.ExpiresAt.IsZero() && !r.now.Before(b.ExpiresAt) {
			delete(r.blocks, k)
			r.stats.expired++
			r.ended["expired"]++
		}
	}
}

// block is a request for a valid block that is not of everybody; p is
// canonical.
func (r *reference) block(k backend.Key, req Request) Outcome {
	if r.exempt(k.Prefix, req.Force) {
		r.stats.whitelisted++
		return Whitelisted
	}
	end := r.now.Add(req.Duration)
	if req.Duration == 0 {
		end = time.Time{}
	}
	if old := r.blocks[k]; old != nil {
		r.stats.duplicates++
		if !later(end, old.ExpiresAt) {
			return Duplicate
		}
		old.ExpiresAt, old.Rule, old.Reason = end, backend.Clean(req.Rule), backend.Clean(req.Reason)
		old.forced, old.loose = old.forced || req.Force, false
		return Extended
	}
	if !r.admit(req.ByRule) {
		r.stats.refused++
		r.stats.errors++
		return Refused
	}
	b := &refBlock{origin: OriginManual, forced: req.Force, Block: backend.Block{
		Key: k, Action: req.Action, Rule: backend.Clean(req.Rule), Reason: backend.Clean(req.Reason), CreatedAt: r.now, ExpiresAt: end,
	}}
	if req.ByRule {
		b.origin = OriginRule
	}
	r.blocks[k] = b
	r.stats.created++
	return Created
}

// later: an end comes after another; the zero time is for ever.
func later(a, b time.Time) bool { return !b.IsZero() && (a.IsZero() || a.After(b)) }

func (r *reference) admit(byRule bool) bool {
	if len(r.blocks) >= r.maxActive {
		return false
	}
	if !byRule {
		return true
	}
	if r.now.Sub(r.began) >= time.Minute {
		r.began, r.inMinute = r.now, 0
	}
	if r.inMinute == r.maxPerMinute {
		return false
	}
	r.inMinute++
	return true
}

// lift ends blocks before their time.
func (r *reference) lift(why string, keys ...backend.Key) {
	for _, k := range keys {
		if r.blocks[k] != nil {
			delete(r.blocks, k)
			r.stats.removed++
			r.ended[why]++
		}
	}
}

func (r *reference) unblock(p netip.Prefix) {
	r.lift(ByManual, backend.Key{Prefix: p}, backend.Key{Prefix: p, Target: backend.Destination})
}

func (r *reference) flush() { r.lift(ByFlush, r.keys()...) }

// whitelistChanged lifts what is whitelisted now.
func (r *reference) whitelistChanged() {
	for _, k := range r.keys() {
		if r.exempt(k.Prefix, r.blocks[k].forced) {
			r.lift(ByWhitelist, k)
		}
	}
}

func (r *reference) allow(p netip.Prefix) {
	delete(r.lifted, p)
	if !slices.Contains(r.white[p], OriginAPI) {
		r.white[p] = append(r.white[p], OriginAPI)
	}
	r.whitelistChanged()
}

// disallow reports whether there was such an entry.
func (r *reference) disallow(p netip.Prefix) bool {
	if _, ok := r.white[p]; !ok {
		return false
	}
	delete(r.white, p)
	r.lifted[p] = true
	return true
}

// setList makes an origin's entries exactly these.
func (r *reference) setList(origin string, list []netip.Prefix) {
	for p, origins := range r.white {
		rest := slices.DeleteFunc(slices.Clone(origins), func(o string) bool { return o == origin })
		if r.white[p] = rest; len(rest) == 0 {
			delete(r.white, p)
		}
	}
	for _, p := range list {
		if !r.lifted[p] && !slices.Contains(r.white[p], origin) {
			r.white[p] = append(r.white[p], origin)
		}
	}
	r.whitelistChanged()
}

// restart: a new Manager adopts what the kernel has. It knows the blocks as
// the kernel shows them, and the whitelist of the configuration.
func (r *reference) restart() {
	r.white, r.lifted, r.stats = map[netip.Prefix][]string{}, map[netip.Prefix]bool{}, refStats{}
	r.ended = map[string]uint64{}
	r.began, r.inMinute = time.Time{}, 0
	for _, p := range r.config {
		r.white[p] = []string{OriginConfig}
	}
	for k, b := range r.blocks {
		b.Rule, b.Reason = r.kept(b.Block)
		b.origin, b.forced, b.loose = OriginAdopted, false, !b.Permanent()
		if r.exempt(k.Prefix, false) {
			// What is protected and not whitelisted can only have been blocked by
			// force; that is believed where a person asked for it.
			b.forced = true
			if b.Rule != ManualRule || r.exempt(k.Prefix, true) {
				delete(r.blocks, k)
			}
		}
	}
	r.stats.adopted = uint64(len(r.blocks))
}

// kept is what a kernel's comment keeps of rule and reason.
func (r *reference) kept(b backend.Block) (rule, reason string) {
	c, _ := backend.DecodeComment(backend.Comment{Rule: b.Rule, Reason: b.Reason, Created: b.CreatedAt}.Encode(r.comment))
	return c.Rule, c.Reason
}

// keys are the blocks' keys in an order that is the same in every run.
func (r *reference) keys() []backend.Key {
	var out []backend.Key
	for k := range r.blocks {
		out = append(out, k)
	}
	slices.SortFunc(out, compareKey)
	return out
}

func compareKey(a, b backend.Key) int {
	return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Target, b.Target))
}

// nearEnd reports whether some block ends within moments of t, where what a
// kernel rounds decides.
func (r *reference) nearEnd(t time.Time, onlyLoose bool) bool {
	for _, b := range r.blocks {
		if !b.Permanent() && (b.loose || !onlyLoose) && b.ExpiresAt.Sub(t).Abs() < 5*time.Second {
			return true
		}
	}
	return false
}
