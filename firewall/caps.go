package firewall

import (
	"fmt"
	"time"
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

// admit asks the caps whether one more block may be made, beside those that
// are about to be. Needs m.mu.
func (m *Manager) admit(req *Request, ahead int, now time.Time) error {
	if n := len(m.idx.blocks) + ahead; n >= m.cfg.MaxActiveBlocks {
		m.warnOnceLocked("full", "no more blocks are made until some end", "active", n)
		m.stats.refused++
		return fmt.Errorf("%w: %d blocks are active, the most allowed", ErrRefused, n)
	}
	if req.ByRule && !m.breaker.allow(now, m.cfg.MaxNewPerMinute) {
		m.warnOnceLocked("breaker", "rules ask for too many new blocks: is a flood forging its sources?",
			"limit_per_minute", m.cfg.MaxNewPerMinute)
		m.stats.refused++
		return fmt.Errorf("%w: rules made %d new blocks within a minute, the most allowed", ErrRefused, m.cfg.MaxNewPerMinute)
	}
	return nil
}
