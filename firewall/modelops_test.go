package firewall

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// step makes one random operation, on the Manager and on the reference.
func (r *modelRun) step() {
	ops := []struct {
		weight int
		do     func()
	}{
		{72, r.opBlock}, {28, r.opAgain}, {16, r.opBulk}, {16, r.opTogether}, {10, r.opRepeat}, {16, r.opUnblock}, {24, r.opClock}, {12, r.opAllow}, {16, r.opDisallow},
		{8, r.opSetList}, {1, r.opFlush}, {40, r.opDamage}, {12, r.opCrash}, {1, r.opClose}, {6, r.opBadInput},
	}
	total := 0
	for _, op := range ops {
		total += op.weight
	}
	n := r.rng.IntN(total)
	if len(r.ref.blocks) < 6 && r.chance(60) { // few blocks test little
		n = 0
	}
	for _, op := range ops {
		if n -= op.weight; n < 0 {
			op.do()
			return
		}
	}
}

func pick[T any](r *modelRun, from []T) T { return from[r.rng.IntN(len(from))] }

// chance is true n times in a hundred.
func (r *modelRun) chance(n int) bool { return r.rng.IntN(100) < n }

// form is one of the ways to write a prefix: with host bits, IPv4-mapped.
func (r *modelRun) form(p netip.Prefix) netip.Prefix {
	a, bits := p.Addr(), p.Bits()
	if r.chance(30) {
		b := a.AsSlice()
		for i := bits; i < 8*len(b); i++ {
			b[i/8] |= byte(r.rng.IntN(2)) << (7 - i%8)
		}
		a, _ = netip.AddrFromSlice(b)
	}
	if a.Is4() && r.chance(30) {
		a, bits = netip.AddrFrom16(a.As16()), bits+96
	}
	return netip.PrefixFrom(a, bits)
}

// text is one of the ways to write a prefix as a person does.
func (r *modelRun) text(p netip.Prefix) string {
	p = r.form(p)
	if p.IsSingleIP() && r.chance(80) {
		return p.Addr().String()
	}
	return p.String()
}

// duration is zero or in seconds, and not so near to what is left of the old
// block that a kernel's rounding would decide which of the two is longer.
func (r *modelRun) duration(k backend.Key) time.Duration {
	if r.chance(12) {
		return 0
	}
	d := time.Duration(20+r.rng.IntN(1800)) * time.Second
	if r.chance(70) {
		d *= 10
	}
	if old := r.ref.blocks[k]; old != nil && !old.Permanent() {
		left := old.ExpiresAt.Sub(r.ref.now)
		if r.chance(15) && !old.loose {
			return left
		}
		if diff := (d - left).Abs(); diff > 0 && diff < 5*time.Second || diff == 0 && old.loose {
			d += 11 * time.Second
		}
	}
	return d
}

func (r *modelRun) opBlock() {
	k := backend.Key{Prefix: pick(r, universe())}
	if r.chance(35) {
		k.Target = backend.Destination
	}
	k.Log = r.chance(12)
	r.request(k, r.chance(12))
}

// opAgain asks for a block that is there already, of any strength.
func (r *modelRun) opAgain() {
	keys := r.ref.keys()
	if len(keys) == 0 {
		r.opBlock()
		return
	}
	k := pick(r, keys)
	r.request(k, r.ref.blocks[k].forced && r.chance(80) || r.chance(10))
}

// drawn is a request about the key, its prefix canonical.
func (r *modelRun) drawn(k backend.Key, force bool) Request {
	req := Request{
		Prefix: k.Prefix, Target: k.Target, ByRule: r.chance(50), Force: force || k.Prefix.Bits() == 0,
		Action: pick(r, []backend.Action{backend.Drop, backend.Drop, backend.Reject, backend.RejectReset, backend.RateLimit, backend.RateLimit}),
		Rule:   pick(r, []string{"", "Block SSH Brute Force", ManualRule, ManualRule, "a; b", "fünf", `"quoted"`, strings.Repeat("r", backend.MaxRuleName)}),
		Reason: pick(r, []string{"", "10 in 5m0s", "; ; @5/1", "line\nbreak", `back\slash "and" $(quotes) 'here'`, "四字 \U0001f525",
			strings.Repeat("a long reason ", 30)}),
	}
	switch {
	case k.Log:
		req.Action, req.LogPrefix = backend.Log, pick(r, r.w.logPrefixes())
	case req.Action == backend.RateLimit:
		req.Limit = pick(r, []backend.Limit{{Rate: 10, Per: time.Second, Burst: 5}, {Rate: 3, Per: time.Hour, Burst: 1}, {Rate: 1000, Per: time.Minute, Burst: 100}})
	}
	if k.Prefix.Bits() == 128 && r.chance(15) {
		req.IPv6Prefix = 64
	}
	_, k = r.ref.key(req)
	req.Duration = r.duration(k)
	if r.chance(25) {
		req.EscalationMemory = time.Duration(1+r.rng.IntN(5)) * time.Hour
		for range 1 + r.rng.IntN(4) {
			req.Escalation = append(req.Escalation, r.duration(k))
		}
	}
	return req
}

func (r *modelRun) request(k backend.Key, force bool) {
	req := r.drawn(k, force)
	r.ref.fits = r.w.room(r.rng, r.ref)
	defer r.w.relax()
	text := len(req.Escalation) == 0 && req.IPv6Prefix == 0 && req.Action.Stops()
	if text && !req.Force && r.chance(30) {
		r.requestText(req)
		return
	}
	want := r.ref.block(req)
	req.Prefix = r.form(req.Prefix)
	res, err := r.m.Block(context.Background(), req)
	r.tell(req, res.Outcome)
	r.judge(req, res.Outcome, err, want)
	r.judgeBlock(req, res.Block, want)
}

// errorOf is the error that comes with an outcome of a valid request.
func errorOf(o Outcome) error {
	switch o {
	case Refused:
		return ErrRefused
	case Failed:
		return backend.ErrFull
	}
	return nil
}

// judge compares what came of a request with what should have.
func (r *modelRun) judge(req Request, got Outcome, err error, want answer) {
	r.t.Helper()
	wantErr := errorOf(want.Outcome)
	if got != want.Outcome || (err != nil) != (wantErr != nil) || wantErr != nil && !errors.Is(err, wantErr) {
		r.t.Errorf("block %v: %s, %v, want %s", req.Prefix, got, err, want)
	}
}

// judgeBlock compares the block in force that a request was answered with.
func (r *modelRun) judgeBlock(req Request, got BlockInfo, want answer) {
	r.t.Helper()
	b := want.block
	if b == nil {
		if got != (BlockInfo{}) {
			r.t.Errorf("block %v: %s, and in force is %+v", req.Prefix, want, got)
		}
		return
	}
	if w := line((&entry{Block: b.Block}).info(), b.origin); line(got, got.Origin) != w || got.ExpiresAt.Sub(b.ExpiresAt).Abs() > rounding {
		r.t.Errorf("block %v: in force is %s until %s, want %s until %s", req.Prefix, line(got, got.Origin), got.ExpiresAt.UTC(), w, b.ExpiresAt.UTC())
	}
}

func (r *modelRun) tell(req Request, o Outcome) {
	r.say("%s %v %s for %s %v within %s, /%d rule %.12q force %t by rule %t: %s", req.Action, req.Prefix, req.Target,
		req.Duration, req.Escalation, req.EscalationMemory, req.IPv6Prefix, req.Rule, req.Force, req.ByRule, o)
}

// several draws requests that come together, some of them for the same
// address; half of the time hosts with one action, which fill a set.
func (r *modelRun) several() []Request {
	var reqs []Request
	if r.chance(50) {
		like := r.drawn(backend.Key{Prefix: universe()[0], Target: backend.Target(r.rng.IntN(2))}, false)
		like.Escalation, like.ByRule = nil, false
		for _, p := range universe() {
			if p.Bits() == 32 && !r.ref.exempt(p, false) {
				like.Prefix = p
				like.Duration = r.duration(r.ref.keyOf(like))
				reqs = append(reqs, like)
			}
		}
		r.rng.Shuffle(len(reqs), func(i, j int) { reqs[i], reqs[j] = reqs[j], reqs[i] })
		return reqs
	}
	for range 2 + r.rng.IntN(5) {
		k := backend.Key{Prefix: pick(r, universe()), Log: r.chance(10)}
		if keys := r.ref.keys(); len(keys) > 0 && r.chance(30) {
			k = pick(r, keys)
		}
		if len(reqs) > 0 && r.chance(30) {
			last := reqs[len(reqs)-1]
			k = backend.Key{Prefix: last.Prefix, Target: last.Target, Log: last.Action == backend.Log}
		}
		req := r.drawn(k, r.chance(8))
		// What a request of before makes of the address is not known yet: no two
		// ends near one another.
		req.Duration += time.Duration(len(reqs)) * 13 * time.Hour
		req.Escalation = nil
		reqs = append(reqs, req)
	}
	return reqs
}

// formed are the requests with their prefixes in one of their forms.
func (r *modelRun) formed(reqs []Request) []Request {
	out := slices.Clone(reqs)
	for i := range out {
		out[i].Prefix = r.form(out[i].Prefix)
	}
	return out
}

// judgeAll compares what came of requests that were made together.
func (r *modelRun) judgeAll(reqs []Request, got []Result, errs []error) {
	r.t.Helper()
	full := make([]bool, len(reqs))
	for i := range reqs {
		full[i] = got[i].Outcome == Failed && errors.Is(errs[i], backend.ErrFull)
		r.tell(reqs[i], got[i].Outcome)
		r.say("; ")
	}
	want, wrong := r.ref.all(reqs, full)
	if len(wrong) > 0 {
		r.t.Errorf("there is room for %q, and the kernel was said to be full", wrong)
	}
	for i := range reqs {
		r.judge(reqs[i], got[i].Outcome, errs[i], want[i])
		if got[i].Block != (BlockInfo{}) {
			r.judgeBlock(reqs[i], got[i].Block, want[i])
		}
	}
	r.compareManager("after requests together the Manager")
}

// opBulk is several requests of one caller.
func (r *modelRun) opBulk() {
	reqs := r.several()
	r.ref.fits = r.w.room(r.rng, r.ref)
	defer r.w.relax()
	r.say("a list: ")
	got, errs := make([]Result, len(reqs)), make([]error, len(reqs))
	for i, res := range r.m.BlockAll(context.Background(), r.formed(reqs)) {
		got[i].Outcome, errs[i] = res.Outcome, res.Err
	}
	r.judgeAll(reqs, got, errs)
}

// opTogether is several callers who come, one after the other, while the kernel
// is busy; now and then one of them gives up.
func (r *modelRun) opTogether() {
	reqs := r.several()
	r.ref.fits = r.w.room(r.rng, r.ref)
	defer r.w.relax()
	quits := -1
	if r.chance(20) {
		quits = r.rng.IntN(len(reqs))
	}
	got, errs := make([]Result, len(reqs)), make([]error, len(reqs))
	ctx, quit := context.WithCancel(context.Background())
	defer quit()
	r.m.kernel.Lock()
	var all sync.WaitGroup
	left := make(chan struct{})
	for i, req := range r.formed(reqs) {
		all.Go(func() {
			whose := context.Background()
			if i == quits {
				whose = ctx
				defer close(left)
			}
			got[i], errs[i] = r.m.Block(whose, req)
		})
		for r.waiting() <= i {
			runtime.Gosched()
		}
	}
	r.say("callers together: ")
	if quits >= 0 {
		quit()
		<-left
		r.say("(%v gives up: %v) ", reqs[quits].Prefix, errs[quits])
	}
	r.m.kernel.Unlock()
	all.Wait()
	if quits >= 0 {
		r.ref.stats.errors++
		if got[quits].Outcome != Failed || !errors.Is(errs[quits], context.Canceled) {
			r.t.Errorf("who gave up is told %s, %v", got[quits].Outcome, errs[quits])
		}
		reqs, got, errs = slices.Delete(reqs, quits, quits+1), slices.Delete(got, quits, quits+1), slices.Delete(errs, quits, quits+1)
	}
	r.judgeAll(reqs, got, errs)
}

// waiting is how many callers wait for the kernel.
func (r *modelRun) waiting() int {
	r.m.queue.mu.Lock()
	defer r.m.queue.mu.Unlock()
	return len(r.m.queue.waiting)
}

// opRepeat is an offender who is blocked, asked for again while he is, and
// blocked anew after he was let go or after a restart: each new block lasts for
// the next step, whatever was asked for in between. The steps are as many as
// there may be, so that the last one hides no miscount.
func (r *modelRun) opRepeat() {
	k := backend.Key{Prefix: pick(r, []netip.Prefix{netip.MustParsePrefix("198.18.3.3/32"), netip.MustParsePrefix("2001:db8:1::5/128")})}
	req := Request{Prefix: k.Prefix, Action: backend.Drop, Rule: "again and again", EscalationMemory: 100 * time.Hour}
	for n := range MaxEscalation {
		req.Escalation = append(req.Escalation, time.Duration(n+1)*time.Hour)
	}
	ask := func() {
		r.ref.fits = r.w.room(r.rng, r.ref)
		defer r.w.relax()
		want := r.ref.block(req)
		res, err := r.m.Block(context.Background(), req)
		r.say("%v again and again: %s until %s; ", req.Prefix, res.Outcome, res.Block.ExpiresAt.UTC().Format("02 15:04:05"))
		r.judge(req, res.Outcome, err, want)
		r.judgeBlock(req, res.Block, want)
	}
	lift := func() {
		r.ref.unblock(k.Prefix)
		r.expect(r.m.UnblockCIDR(k.Prefix.String()), nil)
	}
	if b := r.ref.blocks[k]; b != nil && b.loose {
		lift() // a kernel's rounding would decide which end is later
	}
	for range 2 + r.rng.IntN(2) {
		ask()
	}
	lift()
	if r.chance(25) {
		r.opCrash()
	}
	ask()
}

// requestText is a request as the page has it.
func (r *modelRun) requestText(req Request) {
	req.ByRule = false
	want := r.ref.block(req)
	req.Prefix = r.form(req.Prefix)
	config := &BlockConfig{Target: req.Target.String(), Duration: req.Duration, Action: req.Action.String(), RuleName: req.Rule, Reason: req.Reason}
	do := r.m.BlockCIDR
	text := req.Prefix.String()
	if req.Prefix.IsSingleIP() {
		do, text = r.m.BlockIP, req.Prefix.Addr().String()
	}
	r.say("block %q %s %s for %s, rule %.12q: %s wanted", text, config.Target, config.Action, req.Duration, req.Rule, want)
	r.expect(do(text, config), errorOf(want.Outcome))
}

func (r *modelRun) opUnblock() {
	p := pick(r, universe())
	if keys := r.ref.keys(); len(keys) > 0 && r.chance(80) {
		p = pick(r, keys).Prefix
	}
	if r.chance(30) {
		r.unblockList(p)
		return
	}
	had := r.ref.stats.removed
	r.ref.unblock(p)
	had = r.ref.stats.removed - had
	if r.chance(50) {
		text := r.text(p)
		r.say("unblock %q", text)
		r.expect(r.m.UnblockCIDR(text), nil)
		return
	}
	form := r.form(p)
	r.say("unblock %v", form)
	lifted, err := r.m.Unblock(context.Background(), form)
	if r.expect(err, nil); uint64(len(lifted)) != had {
		r.t.Errorf("unblock %v lifted %d, want %d", form, len(lifted), had)
	}
}

// unblockList is a list of prefixes, one of them twice.
func (r *modelRun) unblockList(p netip.Prefix) {
	list := []netip.Prefix{p, pick(r, universe()), pick(r, universe()), p}
	forms, had := make([]netip.Prefix, len(list)), make([]int, len(list))
	for i, p := range list {
		before := r.ref.stats.removed
		r.ref.unblock(p)
		forms[i], had[i] = r.form(p), int(r.ref.stats.removed-before)
	}
	r.say("unblock %v", forms)
	lifted, err := r.m.UnblockAll(context.Background(), forms)
	r.expect(err, nil)
	for i := range list {
		if len(lifted[i]) != had[i] {
			r.t.Errorf("unblock %v lifted %d, want %d", forms[i], len(lifted[i]), had[i])
		}
	}
}

// opClock steps the clock, often to the very end of a block, and sometimes
// leaves it to the next operation to notice.
func (r *modelRun) opClock() {
	d := time.Duration(1+r.rng.IntN(60)) * time.Second
	switch n := r.rng.IntN(10); {
	case n < 1:
		d *= 20
	case n < 4:
		// To the next end, or a second before it.
		next, early := 30*time.Minute, time.Duration(r.rng.IntN(2))*time.Second
		for _, b := range r.ref.blocks {
			if left := b.ExpiresAt.Sub(r.ref.now); !b.Permanent() && !b.loose && left < next {
				next, d = left, left-early
			}
		}
	}
	for d <= 0 || r.ref.nearEnd(r.ref.now.Add(d), true) {
		d += 7 * time.Second
	}
	r.say("clock +%s", d)
	r.clock.set(r.ref.now.Add(d))
	r.ref.advance(d)
	r.compareManager("after a step of the clock the Manager")
	r.compareBlocked()
	if r.chance(40) {
		r.say("; ")
		r.step()
	}
}

// whitelistable draws hosts and small networks mostly: what is whitelisted is
// not blocked.
func (r *modelRun) whitelistable() netip.Prefix {
	for {
		p := pick(r, universe())
		small := p.Addr().BitLen()-p.Bits() <= 2
		if small || p.Bits() > 7 && r.chance(6) || r.chance(1) {
			return p
		}
	}
}

func (r *modelRun) opAllow() {
	p := r.whitelistable()
	text := r.text(p)
	r.say("whitelist %q", text)
	r.ref.allow(p)
	r.expect(r.m.AddToWhitelist(text), nil)
}

func (r *modelRun) opDisallow() {
	p := pick(r, universe())
	if list := r.ref.whitelist(); len(list) > 0 && r.chance(90) {
		p = pick(r, list)
	}
	text := r.text(p)
	r.say("unwhitelist %q", text)
	var want error
	if !r.ref.disallow(p) {
		want = ErrNotWhitelisted
	}
	r.expect(r.m.RemoveFromWhitelist(text), want)
}

func (r *modelRun) opSetList() {
	origin := pick(r, []string{"whitelist.d/office.txt", "office.example"})
	var list, forms []netip.Prefix
	for range r.rng.IntN(4) {
		p := r.whitelistable()
		list, forms = append(list, p), append(forms, r.form(p))
	}
	r.say("whitelist of %s: %v", origin, forms)
	r.ref.setList(origin, list)
	r.expect(r.m.SetWhitelist(origin, forms), nil)
}

func (r *modelRun) opFlush() {
	r.say("flush")
	r.ref.flush()
	r.expect(r.m.Flush(), nil)
}

// opDamage has somebody else at work, not while a block is about to end: then
// nobody can tell what ended it.
func (r *modelRun) opDamage() {
	if r.ref.nearEnd(r.ref.now, false) {
		r.say("not now: ")
		r.opClock()
		return
	}
	// A look that was asked for before could meet the damage in front of the
	// monitor's word, and see together what that names one by one.
	select {
	case <-r.m.look:
	default:
	}
	r.expect(r.m.Check(context.Background()), nil)
	d := r.w.damage(r.t, r.rng, r.ref)
	r.say("SOMEBODY ELSE: %s (to be lifted %v, added %v, put back %d times)", d.name, d.lifted, d.added, d.resyncs)
	resyncs := r.ref.stats.resyncs + d.resyncs
	r.ref.foreign(d)
	d.do()
	r.w.settle(r.t, r.m, func() bool {
		if r.m.Resyncs() < resyncs {
			return false
		}
		listed := map[backend.Key]bool{}
		for _, i := range r.m.GetActiveBlocks() {
			listed[i.key()] = true
		}
		return !slices.ContainsFunc(d.lifted, func(k backend.Key) bool { return listed[k] }) &&
			!slices.ContainsFunc(d.added, func(b backend.Block) bool { return !listed[b.Key] })
	})
}

// foreign is what becomes of damage.
func (r *reference) foreign(d damage) {
	r.lift(ByForeign, d.lifted...)
	for _, b := range d.added {
		if old := r.blocks[b.Key]; old != nil { // another end
			old.Block, old.loose = b, true
			continue
		}
		r.blocks[b.Key] = &refBlock{Block: b, origin: OriginAdopted, loose: true}
		r.stats.adopted++
	}
	r.stats.resyncs += d.resyncs
}

// opCrash is a death and the start after it.
func (r *modelRun) opCrash() {
	if r.ref.now.Sub(r.ref.lastEnd) < rounding {
		r.m.sweep(context.Background()) // or the kernel has it for a few milliseconds more, and the next start
	}
	if r.chance(30) {
		r.say("stop, blocks kept")
		r.expect(r.m.Detach(), nil)
	} else {
		r.say("crash")
		r.expect(r.w.kill(r.m), nil)
	}
	r.ref.restart()
	r.start()
	r.compareManager("after the start the Manager")
}

func (r *modelRun) opClose() {
	r.say("close")
	r.expect(r.m.Close(), nil)
	checkBalance(r.t, r.m)
	if left := r.w.enforced(r.t); len(left) > 0 {
		r.t.Errorf("after Close the kernel has %v", left)
	}
	clear(r.ref.blocks)
	r.ref.restart()
	r.start()
}

func (r *modelRun) opBadInput() {
	bad := []struct {
		name string
		do   func() error
	}{
		{"a zone", func() error { return r.m.BlockIP("fe80::1%eth0", nil) }},
		{"a CIDR as an address", func() error { return r.m.BlockIP("198.18.1.0/24", nil) }},
		{"everybody", func() error { return r.m.BlockCIDR("0.0.0.0/0", nil) }},
		{"too wide", func() error { return r.m.BlockCIDR("::ffff:0:0/90", nil) }},
		{"a negative duration", func() error { return r.m.BlockIP("198.18.3.3", &BlockConfig{Duration: -1}) }},
		{"an unknown action", func() error { return r.m.BlockIP("198.18.3.3", &BlockConfig{Action: "explode"}) }},
		{"unblocking nonsense", func() error { return r.m.UnblockIP("198.18.1") }},
		{"whitelisting nonsense", func() error { return r.m.AddToWhitelist("198.18.1.1;reboot") }},
		{"a whitelist with nonsense", func() error { return r.m.SetWhitelist("x", []netip.Prefix{{}}) }},
	}
	b := pick(r, bad)
	r.say("bad input: %s", b.name)
	r.ref.stats.errors++
	r.expect(b.do(), backend.ErrInvalid)
}
