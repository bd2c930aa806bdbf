package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// ManualRule is the rule name of blocks that a person asked for on the
// command line.
const ManualRule = "manual-block"

// BlockConfig says how BlockIP and BlockCIDR block. Nil means: the source,
// DROP, for the configured DefaultDuration.
type BlockConfig struct {
	Target   string        // source, src, destination, dst; empty = source
	Duration time.Duration // 0 = permanent; negative is an error
	Action   string        // DROP, REJECT ...; empty = DROP
	RuleName string
	Reason   string
}

// ParsePrefix reads an address or a CIDR into canonical form: host bits
// masked, IPv4-mapped IPv6 as IPv4. A zone is an error.
func ParsePrefix(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, addrErr := netip.ParseAddr(s)
		if addrErr != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%w: %q is neither an IP address nor a CIDR", backend.ErrInvalid, s)
		}
		p = backend.Host(a)
	}
	return backend.Canonical(p)
}

// BlockIP blocks a single address. An address that is blocked or whitelisted
// already is a success with nothing to do, as the page has it.
func (m *Manager) BlockIP(ip string, config *BlockConfig) error {
	a, err := netip.ParseAddr(strings.TrimSpace(ip))
	if err != nil || a.Zone() != "" {
		m.count(&m.stats.errors)
		return fmt.Errorf("block: %w: %q is not an IP address", backend.ErrInvalid, ip)
	}
	return m.blockPage(backend.Host(a), config)
}

// BlockCIDR blocks a prefix; host bits are masked. Addresses in it that are
// whitelisted or protected are let through by the kernel.
func (m *Manager) BlockCIDR(cidr string, config *BlockConfig) error {
	p, err := netip.ParsePrefix(strings.TrimSpace(cidr))
	if err != nil {
		m.count(&m.stats.errors)
		return fmt.Errorf("block: %w: %q is not a CIDR", backend.ErrInvalid, cidr)
	}
	return m.blockPage(p, config)
}

func (m *Manager) blockPage(p netip.Prefix, config *BlockConfig) error {
	if config == nil {
		config = &BlockConfig{Duration: m.cfg.DefaultDuration}
	}
	target, terr := backend.ParseTarget(config.Target)
	action, aerr := backend.ParseAction(config.Action)
	if err := errors.Join(terr, aerr); err != nil {
		m.count(&m.stats.errors)
		return fmt.Errorf("block %v: %w", p, err)
	}
	_, err := m.Block(context.Background(), Request{
		Prefix: p, Target: target, Action: action,
		Duration: config.Duration, Rule: config.RuleName, Reason: config.Reason,
	})
	return err
}

// Block makes one block. The error is nil for every outcome but Refused
// (wraps ErrRefused) and Failed; the kernel enforces what the Result says when
// Block returns.
//
// Requests that come while the kernel is busy with others are made together,
// in one change; each gets its own result, and those of one address are taken
// in the order in which they came. Where a change fails for one of its blocks
// (backend.ErrFull, ErrInvalid, ErrUnsupported), the others are made all the
// same. A caller whose ctx ends gets its error if his block was not begun;
// else what came of it.
func (m *Manager) Block(ctx context.Context, req Request) (Result, error) {
	var one struct {
		call
		req Request
		res Result
	}
	one.req = req
	one.call.req, one.block = &one.req, &one.res.Block
	m.submit(ctx, &one.call)
	one.res.Outcome = one.outcome
	if one.err != nil {
		return one.res, fmt.Errorf("block %v: %w", req.Prefix, one.err)
	}
	return one.res, nil
}

// BlockAll makes many blocks, up to 10,000 in one change of the kernel, and
// returns what came of each, in their order: what is right is blocked,
// whatever is wrong with the rest. It keeps no slice. When ctx ends, what is
// not begun by then fails with its error.
func (m *Manager) BlockAll(ctx context.Context, reqs []Request) []BulkResult {
	out := make([]BulkResult, 0, len(reqs))
	calls := make([]call, min(len(reqs), maxBatch))
	batch := make([]*call, len(calls))
	for part := range slices.Chunk(reqs, maxBatch) {
		batch = batch[:len(part)]
		for i := range part {
			calls[i] = call{req: &part[i]}
			batch[i] = &calls[i]
		}
		var events []Event
		if err := m.kernel.LockContext(ctx); err != nil {
			for _, c := range batch {
				m.fail(c, err)
			}
		} else {
			events = m.carry(ctx, batch)
			m.kernel.Unlock()
		}
		m.emit(events)
		for i := range part {
			r := BulkResult{Outcome: calls[i].outcome}
			if err := calls[i].err; err != nil {
				r.Err = fmt.Errorf("block %v: %w", part[i].Prefix, err)
			}
			out = append(out, r)
		}
	}
	return out
}
