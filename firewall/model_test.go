package firewall

import (
	"cmp"
	"maps"
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
	// rules and logs hold rules back: from new blocks, and from new kernel log
	// rules.
	rules, logs refBreaker

	// fits reports whether the kernel has room for a block beside all others.
	fits func(backend.Block) bool
	// comment is how many bytes the kernel keeps of a block's comment.
	comment int
	stats   refStats
	lastEnd time.Time
	ended   map[string]uint64 // events: why blocks ended

	// escalated are the blocks that count for the next one, of the addresses
	// that there is room for, the latest block last. A new Manager knows them.
	escalated []refEscalated
}

// refBreaker counts what rules asked for in a minute.
type refBreaker struct {
	began    time.Time
	inMinute int
}

type refEscalated struct {
	whom
	at []time.Time
}

// modelEscalations is how many addresses the escalation has room for.
const modelEscalations = 4

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
	for k, b := range r.blocks {
		if k.Target == t && k.Prefix.Contains(a) && b.Action.Stops() {
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
			if b.ExpiresAt.After(r.lastEnd) {
				r.lastEnd = b.ExpiresAt
			}
		}
	}
}

// key is what a request is about: all of an IPv6 prefix in place of an address.
func (r *reference) key(req Request) (asked, k backend.Key) {
	k = backend.Key{Prefix: req.Prefix, Target: req.Target, Log: req.Action == backend.Log}
	asked = k
	if req.IPv6Prefix > 0 && k.Prefix.Bits() == 128 && !req.Force {
		k.Prefix = netip.PrefixFrom(k.Prefix.Addr(), req.IPv6Prefix).Masked()
	}
	return asked, k
}

// answer is what a request led to, and the block in force then.
type answer struct {
	Outcome
	block *refBlock // a copy; nil where there is none
}

// all makes requests that come together: in each change no key twice, and a
// block by force alone. Which of them a full kernel keeps out depends on how
// the change is cut in pieces: full says which did, and those must be ones for
// which there is no room beside the others.
func (r *reference) all(reqs []Request, full []bool) (out []answer, wrong []string) {
	out = make([]answer, len(reqs))
	var left []int
	for i := range reqs {
		left = append(left, i)
	}
	for len(left) > 0 {
		var later []int
		seen := map[backend.Key]bool{}
		change := &planned{}
		for n, i := range left {
			_, k := r.key(reqs[i])
			switch {
			case reqs[i].Force && n > 0:
				later = append(later, left[n:]...)
			case seen[k]:
				later = append(later, i)
				continue
			default:
				seen[k] = true
				change.full = full[i]
				out[i] = r.blockIn(change, reqs[i])
			}
			if reqs[i].Force {
				if n == 0 {
					later = left[1:]
				}
				break
			}
		}
		for _, b := range change.kept {
			if !change.replaced && r.fits(b) {
				wrong = append(wrong, b.String())
			}
		}
		left = later
	}
	return out, wrong
}

// planned is a change of the kernel for several requests.
type planned struct {
	full     bool            // the kernel has no room for the next one
	kept     []backend.Block // those that it kept out
	ahead    [2]int          // new blocks and new log rules among them, which the caps counted
	replaced bool            // some block left its place
}

// block is a single request.
func (r *reference) block(req Request) answer {
	change := &planned{}
	before, blocks := *r, maps.Clone(r.blocks)
	before.escalated = slices.Clone(r.escalated)
	if old := r.blocks[r.keyOf(req)]; old != nil {
		copied := *old
		blocks[old.Key] = &copied
	}
	a := r.blockIn(change, req)
	if b := a.block; b != nil && a.Outcome == Created && !r.fits(b.Block) {
		*r = before
		r.blocks = blocks
		change.full = true
		return r.blockIn(change, req)
	}
	return a
}

func (r *reference) keyOf(req Request) backend.Key {
	_, k := r.key(req)
	return k
}

// blockIn is a request for a valid block that is not of everybody; its prefix
// is canonical.
func (r *reference) blockIn(change *planned, req Request) answer {
	o := r.decide(change, req)
	b := r.blocks[r.keyOf(req)]
	if b == nil || !slices.Contains([]Outcome{Created, Extended, Duplicate}, o) {
		return answer{Outcome: o}
	}
	copied := *b
	return answer{o, &copied}
}

func (r *reference) decide(change *planned, req Request) Outcome {
	asked, k := r.key(req)
	force := req.Force && !k.Log
	if r.exempt(asked.Prefix, force) || r.exempt(k.Prefix, force) {
		r.stats.whitelisted++
		return Whitelisted
	}
	old := r.blocks[k]
	replaces := old != nil && req.Action.Stops() && old.Action == backend.RateLimit
	end := r.end(req, k, old == nil || replaces)
	fresh := &refBlock{origin: OriginManual, forced: force, Block: backend.Block{
		Key: k, Action: req.Action, Limit: req.Limit, LogPrefix: req.LogPrefix,
		Rule: backend.Clean(req.Rule), Reason: backend.Clean(req.Reason), CreatedAt: r.now, ExpiresAt: end,
	}}
	if req.ByRule {
		fresh.origin = OriginRule
	}
	switch {
	case old == nil && !r.admit(req.ByRule, k.Log, change.ahead[boolean(k.Log)]):
		r.stats.refused++
		r.stats.errors++
		return Refused
	case change.full && (old == nil || replaces):
		r.stats.errors++
		if old == nil {
			// Where one block was kept out, one that takes another's place in the
			// same set is not tried: whether it would fit is not asked here.
			change.kept = append(change.kept, fresh.Block)
			change.ahead[boolean(k.Log)]++
		}
		return Failed
	case replaces:
		change.replaced = true
		if !later(end, old.ExpiresAt) {
			fresh.ExpiresAt, fresh.loose = old.ExpiresAt, old.loose
		}
		r.stats.removed++
	case old != nil:
		r.stats.duplicates++
		weaker := req.Action == backend.RateLimit && old.Action.Stops()
		if weaker || !later(end, old.ExpiresAt) {
			return Duplicate
		}
		old.ExpiresAt, old.Rule, old.Reason = end, fresh.Rule, cmp.Or(fresh.Reason, old.Reason)
		old.forced, old.loose = old.forced || fresh.forced, false
		return Extended
	}
	r.blocks[k] = fresh
	r.stats.created++
	r.remember(req, k)
	return Created
}

// end is when a request's block ends: the first block of an address lasts as
// long as the first step of the escalation, and so on; a block that is there
// keeps its step.
func (r *reference) end(req Request, k backend.Key, anew bool) time.Time {
	d := req.Duration
	if len(req.Escalation) > 0 && !k.Log {
		n := 0
		for _, e := range r.escalated {
			for _, at := range e.at {
				if e.whom == (whom{k.Prefix, k.Target}) && r.now.Sub(at) < req.EscalationMemory {
					n++
				}
			}
		}
		if !anew && n > 0 {
			n--
		}
		d = req.Escalation[min(n, len(req.Escalation)-1)]
	}
	if d == 0 {
		return time.Time{}
	}
	return r.now.Add(d)
}

func (r *reference) remember(req Request, k backend.Key) {
	if len(req.Escalation) == 0 || k.Log {
		return
	}
	one := refEscalated{whom: whom{k.Prefix, k.Target}}
	for i, e := range r.escalated {
		if e.whom == one.whom {
			one.at = e.at
			r.escalated = slices.Delete(r.escalated, i, i+1)
			break
		}
	}
	if len(r.escalated) == modelEscalations {
		r.escalated = r.escalated[1:]
	}
	one.at = append(slices.Clone(one.at[max(len(one.at)-MaxEscalation+1, 0):]), r.now)
	r.escalated = append(r.escalated, one)
}

// later: an end comes after another; the zero time is for ever.
func later(a, b time.Time) bool { return !b.IsZero() && (a.IsZero() || a.After(b)) }

// admit: of blocks there may be so many, and of kernel log rules a quarter of
// that; neither counts for the other.
func (r *reference) admit(byRule, log bool, ahead int) bool {
	there, most, breaker := ahead, r.maxActive, &r.rules
	if log {
		most, breaker = r.maxActive/4, &r.logs
	}
	for k := range r.blocks {
		if k.Log == log {
			there++
		}
	}
	if there >= most {
		return false
	}
	if !byRule {
		return true
	}
	if r.now.Sub(breaker.began) >= time.Minute {
		*breaker = refBreaker{began: r.now}
	}
	if breaker.inMinute == r.maxPerMinute {
		return false
	}
	breaker.inMinute++
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
	for _, log := range []bool{false, true} {
		r.lift(ByManual, backend.Key{Prefix: p, Log: log}, backend.Key{Prefix: p, Target: backend.Destination, Log: log})
	}
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
	r.rules, r.logs = refBreaker{}, refBreaker{}
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
			if b.Rule != ManualRule || k.Log || r.exempt(k.Prefix, true) {
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
	return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Target, b.Target), boolean(a.Log)-boolean(b.Log))
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
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
