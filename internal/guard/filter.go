package guard

import (
	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/filter"
	"github.com/netcap-guard/netcap-guard/engine"
)

// needs is what the rules that run ask of a live capture.
func needs(rs *engine.RuleSet, decap bool) filter.Needs {
	want := rs.Want()
	n := filter.Needs{Streams: want.Handshakes, Decap: decap}
	for _, rule := range rs.Rules() {
		if !rule.Runs() {
			continue
		}
		for _, t := range rule.Types {
			n.Conditions = append(n.Conditions, rule.Conditions(t))
		}
	}
	return n
}

// filterSources has the kernel keep away what no rule in force could need.
func (r *runner) filterSources() {
	r.setFilter(filter.Compile(needs(r.engine.Rules(), r.cfg.Decap)))
}

// setFilter puts the program in force in every capture. What cannot be
// filtered is captured whole, and costs time alone.
func (r *runner) setFilter(p *filter.Program) {
	for _, s := range r.sources {
		live, ok := s.(capture.LiveSource)
		if !ok {
			continue
		}
		if err := live.SetFilter(p.Instructions()); err != nil {
			r.log.Warn("the kernel's filter stays as it was", "error", err)
		}
	}
}
