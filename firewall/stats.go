package firewall

import "time"

// counters are guarded by Manager.mu.
type counters struct {
	created, removed, expired     uint64
	duplicatesSkip, whitelistSkip uint64
	errors                        uint64
	adopted, refused, resyncs     uint64
}

// GetStats returns the page's seven statistics: blocks_created,
// blocks_removed, blocks_expired, duplicates_skip, whitelist_skip, errors and
// active_blocks. created + Adopted = active + removed + expired holds at any
// moment. The caller owns the map.
func (m *Manager) GetStats() map[string]uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return map[string]uint64{
		"blocks_created":  m.stats.created,
		"blocks_removed":  m.stats.removed,
		"blocks_expired":  m.stats.expired,
		"duplicates_skip": m.stats.duplicatesSkip,
		"whitelist_skip":  m.stats.whitelistSkip,
		"errors":          m.stats.errors,
		"active_blocks":   uint64(len(m.idx.blocks)),
	}
}

// Adopted is how many blocks were found in the kernel at start.
func (m *Manager) Adopted() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.stats.adopted
}

// Refused is how many blocks a cap or the breaker refused.
func (m *Manager) Refused() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.stats.refused
}

// Resyncs is how often damage by somebody else was put right.
func (m *Manager) Resyncs() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.stats.resyncs
}

func (m *Manager) count(c *uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*c++
}

// clockLocked is now for callers that hold m.mu.
func (m *Manager) clockLocked() time.Time {
	if m.cfg.PacketTime {
		return m.newest
	}
	return m.cfg.Now()
}

// warnOnce says something once in the Manager's life.
func (m *Manager) warnOnce(key, msg string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.warnOnceLocked(key, msg, args...)
}

func (m *Manager) warnOnceLocked(key, msg string, args ...any) {
	if m.warned[key] {
		return
	}
	m.warned[key] = true
	m.log.Warn(msg, args...)
}
