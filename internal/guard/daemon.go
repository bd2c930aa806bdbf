package guard

import "context"

// served is the admin of a running guard.
type served struct {
	local
	r *runner
}

// Stats reads the run's counters.
func (s *served) Stats(context.Context) (*statsBody, error) { return s.r.stats(), nil }

// Reload reads the rules anew.
func (s *served) Reload(context.Context) (*ReloadObject, error) { return s.r.reload() }

// Stop ends the run in order; it returns before the run has ended.
func (s *served) Stop(context.Context) error {
	s.r.end()
	return nil
}

// startControl opens the control socket of a live run. A dry run goes on
// without where another guard has the socket.
func (r *runner) startControl() error {
	s := &served{local: local{m: r.manager, alerts: r.events.alerts, evidence: r.cfg.Evidence.Directory}, r: r}
	c, err := startControl(r.cfg.ControlPath(r.env.Netns), s, r.log, r.cfg.DryRun)
	r.control = c
	return err
}
