package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// The chains, beside those of sides. None of the names is a keyword of the nft
// language ("reject" is), or a listing could not be loaded again.
const (
	chainLimited = "limited"
	chainRefuse  = "refuse"
	chainReset   = "refuse_reset"

	chainPrerouting = "prerouting"
	chainOutput     = "output"
)

// priority is raw - 10: before connection tracking, NAT and everybody's filter.
const priority = -310

// chainSpec is one chain and its rules, each a list of expressions.
type chainSpec struct {
	name   string
	hook   *nftables.ChainHook // nil: a regular chain
	rules  [][]expr.Any
	places []place // of a side's chain, what each rule is
}

func (s chainSpec) chain(t *nftables.Table) *nftables.Chain {
	c := &nftables.Chain{Name: s.name, Table: t}
	if s.hook != nil {
		accept := nftables.ChainPolicyAccept
		c.Type, c.Hooknum, c.Priority, c.Policy = nftables.ChainTypeFilter, s.hook, nftables.ChainPriorityRef(priority), &accept
	}
	return c
}

// layout is the whole structure around these kinds of blocks, chains before
// those that jump to them. It is the same whatever families are switched on:
// that decides only which blocks are taken, and what an earlier process
// blocked stays in force.
func layout(c Config, kinds []kind, answers bool) []chainSpec {
	var out []chainSpec
	if answers {
		out = answerChains(c)
	}
	for target, name := range sides() {
		out = append(out, sideChain(c, backend.Target(target), name, kinds))
	}
	for _, hook := range []struct {
		name string
		num  *nftables.ChainHook
	}{{chainPrerouting, nftables.ChainHookPrerouting}, {chainOutput, nftables.ChainHookOutput}} {
		spec := chainSpec{name: hook.name, hook: hook.num, rules: [][]expr.Any{neighbourDiscovery()}}
		for _, side := range sides() {
			spec.rules = append(spec.rules, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: side}})
		}
		out = append(out, spec)
	}
	return out
}

// sideChain looks into one set after the other.
func sideChain(c Config, target backend.Target, name string, kinds []kind) chainSpec {
	spec := chainSpec{name: name}
	for _, l := range places(kinds) {
		if l.target == target {
			spec.places = append(spec.places, l)
			spec.rules = append(spec.rules, l.rule(c))
		}
	}
	return spec
}

// match is true for packets of the family. It comes first in every rule:
// without it the nft program could not read the rule back in a table of family
// inet, and the offset of an address would mean something else.
func (f family) match() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.nfproto}},
	}
}

// look is true if the set holds the address that target looks at, masked to
// bits; not: if it does not.
func (f family) look(target backend.Target, bits int, set string, not bool) []expr.Any {
	out := []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset[target], Len: f.length}}
	if bits < int(f.length)*8 {
		out = append(out, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: f.length, Mask: f.mask(bits), Xor: make([]byte, f.length)})
	}
	return append(out, &expr.Lookup{SourceRegister: 1, SetName: set, Invert: not})
}

// rule stops what the kind's set holds and is not allowed, or logs it; that of
// a gate ends the chain for what is allowed. In a set of rate limits the
// element itself says whether a packet is above its rate: within, the rule ends
// there.
func (l place) rule(c Config) []expr.Any {
	f := l.family()
	out := f.match()
	if l.gate {
		return append(append(out, f.look(l.target, l.bits, f.allow, false)...), &expr.Verdict{Kind: expr.VerdictReturn})
	}
	unless := f.look(l.target, l.addrBits(), f.allow, true)
	here := f.look(l.target, l.bits, l.String(), false)
	switch {
	case l.hosts():
		out = slices.Concat(out, here, unless)
	case l.action == backend.Log:
		out = slices.Concat(out, unless, here)
	default:
		out = append(out, here...)
	}
	if l.action == backend.Log {
		return append(out, l.log(c))
	}
	out = append(out, &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: dropCounter(l.action, l.v6)})
	if to := l.goesTo(); to != "" {
		return append(out, &expr.Verdict{Kind: expr.VerdictGoto, Chain: to})
	}
	return append(out, &expr.Verdict{Kind: expr.VerdictDrop})
}

// snapLength is how much of a packet a log copies: the headers.
const snapLength = 128

// log copies a packet's beginning to the log group and lets it go on.
func (k kind) log(c Config) expr.Any {
	out := &expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN, Group: c.LogGroup, Snaplen: snapLength}
	if k.prefix != "" {
		out.Key |= 1 << unix.NFTA_LOG_PREFIX
		out.Data = []byte(k.prefix)
	}
	return out
}

// goesTo is the chain that answers the kind's packets; empty: nobody does.
func (k kind) goesTo() string {
	switch k.action {
	case backend.Reject:
		return chainRefuse
	case backend.RejectReset:
		return chainReset
	}
	return ""
}

// answerChains answer rejected packets, all of them together at most
// RejectRate a second. They are made with the first set that needs them, so
// that a kernel without nft_reject or nft_limit can still drop.
func answerChains(c Config) []chainSpec {
	over := []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: c.RejectRate, Unit: expr.LimitTimeSecond,
		Burst: burst(c.RejectRate), Over: true}}
	if c.Counters {
		over = append(over, &expr.Counter{})
	}
	over = append(over, &expr.Verdict{Kind: expr.VerdictDrop})
	limited := []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chainLimited}}
	unreachable := []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}
	reset := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	}
	return []chainSpec{
		{name: chainLimited, rules: [][]expr.Any{over}},
		{name: chainRefuse, rules: [][]expr.Any{limited, unreachable}},
		{name: chainReset, rules: [][]expr.Any{limited, reset, unreachable}},
	}
}

// burst is one second's worth of answers.
func burst(rate uint64) uint32 { return uint32(min(rate, 1<<31)) }

// neighbourDiscovery lets ICMPv6 types 133 to 137 pass. The hop limit of 255
// is what RFC 4861 asks of every such packet: it proves that no router has
// forwarded it, so nobody from afar can use the exception.
func neighbourDiscovery() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV6}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMPV6}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{133}},
		&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{137}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 7, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{255}},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

// isOurChain reports whether one of our chains has the name.
func isOurChain(name string) bool {
	ours := append([]string{chainLimited, chainRefuse, chainReset, chainPrerouting, chainOutput}, sides()[0], sides()[1])
	return slices.Contains(ours, name)
}
