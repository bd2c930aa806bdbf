package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
)

const (
	// bulkFrom is from how many entries on they are made in as few changes of
	// the kernel as can be; the answers then carry no blocks.
	bulkFrom = 64
	// Defaults of a rate limit, of the specification page.
	defaultRate  = "10/minute"
	defaultBurst = 5
)

// Block carries the entries out; what goes wrong with one is in its answer,
// and the others are made all the same.
func (l *local) Block(ctx context.Context, entries []BlockEntry) ([]Answer, error) {
	answers := make([]Answer, len(entries))
	if len(entries) >= bulkFrom {
		l.blockAll(ctx, entries, answers)
		return answers, ctx.Err()
	}
	for i, e := range entries {
		answers[i] = l.block(ctx, e)
		if err := ctx.Err(); err != nil {
			return answers[:i+1], err
		}
	}
	return answers, nil
}

func (l *local) block(ctx context.Context, e BlockEntry) Answer {
	a := Answer{Prefix: e.Prefix, Result: firewall.Failed.String()}
	req, err := l.request(e)
	if err != nil {
		a.Error = err.Error()
		return a
	}
	res, err := l.m.Block(ctx, req)
	l.fill(&a, req, res.Outcome, err)
	if err == nil && res.Outcome != firewall.Whitelisted {
		a.Blocks = []BlockObject{*l.object(res.Block, time.Now())}
	}
	return a
}

// blockAll makes all entries that are right in few changes of the kernel.
func (l *local) blockAll(ctx context.Context, entries []BlockEntry, answers []Answer) {
	reqs, at := make([]firewall.Request, 0, len(entries)), make([]int, 0, len(entries))
	for i, e := range entries {
		answers[i] = Answer{Prefix: e.Prefix, Result: firewall.Failed.String()}
		req, err := l.request(e)
		if err != nil {
			answers[i].Error = err.Error()
			continue
		}
		reqs, at = append(reqs, req), append(at, i)
	}
	for i, r := range l.m.BlockAll(ctx, reqs) {
		l.fill(&answers[at[i]], reqs[i], r.Outcome, r.Err)
	}
}

// fill enters what became of a request.
func (l *local) fill(a *Answer, req firewall.Request, outcome firewall.Outcome, err error) {
	a.Result = outcome.String()
	switch {
	case err != nil:
		a.Error = err.Error()
	case outcome == firewall.Whitelisted && !l.m.Whitelisted(req.Prefix):
		a.Why = l.m.Protected(req.Prefix)
	}
}

// request is what an entry asks of the Manager. An address that a person names
// is blocked as it is, whatever prefix length rules go by.
func (l *local) request(e BlockEntry) (firewall.Request, error) {
	req := firewall.Request{
		Duration: l.m.DefaultDuration(), Rule: firewall.ManualRule, Reason: e.Reason, Force: e.Force, IPv6Prefix: 128,
	}
	if e.Duration != nil {
		req.Duration = *e.Duration
	}
	var perr, terr, aerr, lerr error
	req.Prefix, perr = backend.Canonical(e.Prefix)
	req.Target, terr = backend.ParseTarget(e.Target)
	req.Action, aerr = stopping(e.Action)
	req.Limit, lerr = e.limit(req.Action)
	return req, errors.Join(perr, terr, aerr, lerr)
}

// limit is the rate of a rate limit; for another action rate and burst are
// mistakes.
func (e *BlockEntry) limit(action backend.Action) (backend.Limit, error) {
	if action != backend.RateLimit {
		if e.Rate != "" || e.Burst != 0 {
			return backend.Limit{}, fmt.Errorf("%w: rate and burst go with the action rate-limit", backend.ErrInvalid)
		}
		return backend.Limit{}, nil
	}
	rate, burst := e.Rate, e.Burst
	if rate == "" {
		rate = defaultRate
	}
	if burst == 0 {
		burst = defaultBurst
	}
	return backend.ParseLimit(rate, burst)
}

// stopping reads an action that a person may ask for: one that keeps packets
// out.
func stopping(s string) (backend.Action, error) {
	action, err := backend.ParseAction(s)
	if err == nil && !action.Stops() && action != backend.RateLimit {
		err = fmt.Errorf("%w: action %q (use drop, reject, reject-reset or rate-limit)", backend.ErrInvalid, s)
	}
	return action, err
}

// Unblock lifts what exactly these prefixes have, many in one change of the
// kernel.
func (l *local) Unblock(ctx context.Context, prefixes []netip.Prefix) ([]Answer, error) {
	answers := make([]Answer, len(prefixes))
	list, at := make([]netip.Prefix, 0, len(prefixes)), make([]int, 0, len(prefixes))
	for i, given := range prefixes {
		answers[i] = Answer{Prefix: given, Result: firewall.Failed.String()}
		p, err := backend.Canonical(given)
		if err != nil {
			answers[i].Error = err.Error()
			continue
		}
		list, at = append(list, p), append(at, i)
		if around := l.m.Covering(p); len(around) > 0 {
			answers[i].Why = around[0].IP
		}
	}
	lifted, err := l.m.UnblockAll(ctx, list)
	for i := range list {
		a := &answers[at[i]]
		a.Blocks = l.objects(lifted[i])
		switch {
		case len(lifted[i]) > 0:
			a.Result, a.Why = "unblocked", ""
		case err != nil:
			a.Error = err.Error()
		default:
			a.Result = "not blocked"
		}
	}
	return answers, nil
}
