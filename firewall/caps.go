package firewall

import (
	"fmt"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// breaker refuses blocks that rules ask for when there are too many new ones
// in one minute: a flood with forged sources must not turn the guard into the
// attack. The zero breaker is ready for use.
type breaker struct {
	began time.Time
	n     int
}

func (b *breaker) allow(now time.Time, limit int) bool {
	if now.Sub(b.began) >= time.Minute {
		b.began, b.n = now, 0
	}
	if b.n >= limit {
		return false
	}
	b.n++
	return true
}

// logShare is how much of MaxActiveBlocks there may be of kernel log rules,
// beside the blocks: a quarter.
const logShare = 4

// quota bounds the blocks, or the kernel log rules, so that neither takes the
// other's room: packets with forged sources that are only logged must not keep
// an attacker from being blocked.
type quota struct {
	what    string
	active  int // there are
	limit   int
	breaker *breaker // on new ones that rules ask for
}

// quota is what the blocks are held to, or with log the kernel log rules.
// Needs m.mu; without the breaker reading it is enough.
func (m *Manager) quota(log bool) quota {
	if log {
		return quota{"kernel log rules", m.idx.logs, max(m.cfg.MaxActiveBlocks/logShare, 1), &m.logBreaker}
	}
	return quota{"blocks", len(m.idx.blocks) - m.idx.logs, m.cfg.MaxActiveBlocks, &m.breaker}
}

// admit asks the caps whether one more block, or with log one more kernel log
// rule, may be made, beside those that are about to be. Needs m.mu.
func (m *Manager) admit(req *Request, ahead int, now time.Time) error {
	q := m.quota(req.Action == backend.Log)
	if n := q.active + ahead; n >= q.limit {
		m.warnOnceLocked("full "+q.what, "no more "+q.what+" are made until some end", "active", n)
		m.stats.refused++
		return fmt.Errorf("%w: %d %s are active, the most allowed", ErrRefused, n, q.what)
	}
	if req.ByRule && !q.breaker.allow(now, m.cfg.MaxNewPerMinute) {
		m.warnOnceLocked("breaker "+q.what, "rules ask for too many new "+q.what+": is a flood forging its sources?",
			"limit_per_minute", m.cfg.MaxNewPerMinute)
		m.stats.refused++
		return fmt.Errorf("%w: rules made %d new %s within a minute, the most allowed", ErrRefused, m.cfg.MaxNewPerMinute, q.what)
	}
	return nil
}

// crowded reports whether there is no room for so many more, of either kind.
func (m *Manager) crowded(wanted int) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	blocks, logs := m.quota(false), m.quota(true)
	return blocks.active+wanted > blocks.limit || logs.active+wanted > logs.limit
}
