package engine

import "time"

// RuleStats counts for one rule: records for which the expression was true,
// alerts raised, and evaluation errors.
type RuleStats struct {
	Matches, Alerts, Errors uint64
	// Unconfirmed matches did not count because no handshake had been seen,
	// Unpreceded ones because the rule of the sequence had not matched before.
	Unconfirmed, Unpreceded uint64
	// Peak is the highest count within a window, and PeakFor whose it was.
	Peak    int
	PeakFor Tracked
	// Time is what evaluating the rule took, counting included, as far as one
	// packet in 64 tells; 0 without Config.Timing.
	Time time.Duration
}

// Stats is a snapshot of the engine's counters. Each is monotonic but for
// TrackerEntries and the queue lengths.
type Stats struct {
	// Rules holds the rules in force, by name; rules that do not run are in it
	// with zeros. The map is the caller's.
	Rules map[string]RuleStats
	// TrackerEntries counters are in use; TrackerEvictions were given up for
	// others while they still counted; TrackerLost time stamps did not fit
	// into the shared memory.
	TrackerEntries, TrackerEvictions, TrackerLost uint64
	// AlertsMerged were equal to an alert of the last 5 minutes; AlertsDropped
	// found the queue full; AlertErrors were refused by the writer.
	AlertsMerged, AlertsDropped, AlertErrors uint64
	// ActionsMerged waited already when they were asked for again;
	// ActionsDropped found the queue full; ActionsSkipped had no manager.
	ActionsMerged, ActionsDropped, ActionsSkipped uint64
	// AlertsWaiting and ActionsWaiting are in the queues now.
	AlertsWaiting, ActionsWaiting int
}

// Stats returns the counters. It may be called while workers run.
func (e *Engine) Stats() Stats {
	a, c := e.active.Load(), &e.counts
	s := Stats{
		Rules:        make(map[string]RuleStats, len(a.set.rules)),
		AlertsMerged: c.mergedAlerts.Load(), AlertsDropped: c.droppedAlerts.Load(), AlertErrors: c.alertErrors.Load(),
		ActionsMerged: c.mergedActions.Load() + e.actions.voided(), ActionsDropped: c.droppedActions.Load(), ActionsSkipped: c.skipped.Load(),
		AlertsWaiting: e.alerts.waiting(), ActionsWaiting: e.actions.waiting(),
	}
	s.TrackerEntries, s.TrackerEvictions, s.TrackerLost = e.tracker.stats()
	for _, r := range a.set.rules {
		s.Rules[r.Name] = RuleStats{}
		if st := a.states[r.signature()]; st != nil {
			rs := RuleStats{
				Matches: st.matches.Load(), Alerts: st.alerts.Load(), Errors: st.errors.Load(),
				Unconfirmed: st.unconfirmed.Load(), Unpreceded: st.unpreceded.Load(), Time: time.Duration(st.nanoseconds.Load()),
			}
			rs.Peak, rs.PeakFor = st.peak.load()
			s.Rules[r.Name] = rs
		}
	}
	return s
}

// GetActionStats returns the page's four counters: actions_executed,
// actions_success, actions_failed and ips_blocked (newly created blocks and
// rejects). The map is the caller's.
func (e *Engine) GetActionStats() map[string]uint64 {
	c := &e.counts
	return map[string]uint64{
		"actions_executed": c.executed.Load(),
		"actions_success":  c.success.Load(),
		"actions_failed":   c.failed.Load(),
		"ips_blocked":      c.blocked.Load(),
	}
}
