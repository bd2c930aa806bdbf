package iptables

import "github.com/netcap-guard/netcap-guard/backend"

// group puts lines that were read back together into entries, in the order of
// the chain. Lines of which no block can be made (the rest of one that
// somebody took apart) are returned beside them.
func group(lines []line) (entries []*entry, orphans []line) {
	type tag struct {
		key       backend.Key
		comment   string
		stop      int64
		action    backend.Action
		limit     backend.Limit
		logPrefix string
	}
	at := map[tag]*entry{}
	var order []*entry
	for _, l := range lines {
		t := tag{
			key:     backend.Key{Prefix: l.rule.prefix, Target: l.rule.target, Log: l.rule.role == roleLog},
			comment: l.rule.comment, stop: l.rule.stop, action: actionOf(l.rule.role),
			limit: l.rule.limit, logPrefix: l.rule.logPrefix,
		}
		e := at[t]
		if e == nil {
			e = &entry{comment: t.comment, block: backend.Block{
				Key: t.key, Action: t.action, Limit: t.limit, LogPrefix: t.logPrefix, ExpiresAt: endOf(t.stop),
			}}
			at[t] = e
			order = append(order, e)
		}
		e.lines = append(e.lines, l)
	}
	for _, e := range order {
		if !e.decode() {
			orphans = append(orphans, e.lines...)
			continue
		}
		entries = append(entries, e)
	}
	return entries, orphans
}

// decode reads the block of an entry that has its key, end, comment and lines.
func (e *entry) decode() bool {
	var seen [numRoles]bool
	for _, l := range e.lines {
		seen[l.rule.role] = true
	}
	switch {
	case e.block.Action != backend.Reject:
	case !seen[roleReject]:
		return false // of a reject the rest
	case seen[roleReset]:
		e.block.Action = backend.RejectReset
	}
	c, ok := backend.DecodeComment(e.comment)
	e.block.Rule, e.block.Reason, e.block.CreatedAt = c.Rule, c.Reason, c.Created
	return ok
}

// packets is what the entry's rules have matched: each packet at most one.
func (e *entry) packets() uint64 {
	var n uint64
	for _, l := range e.lines {
		n += l.tally.packets
	}
	return n
}

// holesRead are the holes that the entry's lines have now.
func (e *entry) holesRead() []span {
	var hs []span
	for _, l := range e.lines {
		hs = append(hs, l.rule.holes...)
	}
	return merge(hs)
}
