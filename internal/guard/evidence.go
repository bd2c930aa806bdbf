package guard

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/evidence"
)

// Evidence is the configuration file's section about the packets that led to a
// block. Without a directory none are kept; other zero values are the defaults
// of package evidence.
type Evidence struct {
	Directory string `yaml:"directory"`
	Packets   int    `yaml:"packets"` // of a block
	Memory    int    `yaml:"memory"`  // MiB, each worker's
	Files     int    `yaml:"files"`
	Disk      int    `yaml:"disk"` // MiB
}

// validate checks that the bounds are ones.
func (e *Evidence) validate() []error {
	var errs []error
	for _, v := range []struct {
		key       string
		value, to int
	}{
		{"packets", e.Packets, 100_000},
		{"memory", e.Memory, 16 << 10},
		{"files", e.Files, 100_000},
		{"disk", e.Disk, 1 << 20},
	} {
		if v.value < 0 || v.value > v.to {
			errs = append(errs, fmt.Errorf("evidence: %s is %d: 0 (the default) to %d", v.key, v.value, v.to))
		}
	}
	return errs
}

// openEvidence makes the directory, where there is to be one.
func (r *runner) openEvidence(replay bool) (err error) {
	e := &r.cfg.Evidence
	if e.Directory == "" {
		return nil
	}
	r.evidence, err = evidence.Open(evidence.Config{
		Directory: e.Directory, Packets: e.Packets, Memory: e.Memory << 20, Files: e.Files, Bytes: int64(e.Disk) << 20,
		Application: "netcap-guard " + r.env.Version, Inline: replay, Log: r.log,
	})
	return err
}

func (r *runner) closeEvidence(ctx context.Context) error {
	if r.evidence == nil {
		return nil
	}
	return r.evidence.Close(ctx)
}

// endEvidence ends what a run that failed early has begun, without waiting.
func (r *runner) endEvidence() {
	ended, end := context.WithCancel(context.Background())
	end()
	_ = r.closeEvidence(ended) // shutdown has waited, and said what was lost
}

// acted tells of an action, and has the packets kept that led to a new block.
func (r *runner) acted(a engine.ActionEvent) {
	file := ""
	if r.evidence != nil && a.Err == nil && a.Result.Outcome == firewall.Created {
		file = r.evidence.Collect(evidence.Case{
			Prefix: a.Prefix, Destination: a.Target == backend.Destination, Rule: a.Rule, At: a.Time,
		})
	}
	r.events.action(a, file)
}

// evidenceStats count the files.
type evidenceStats struct {
	Files   uint64 `json:"files"`
	Bytes   uint64 `json:"bytes"`
	Written uint64 `json:"written"`
	Evicted uint64 `json:"evicted"` // files that gave way to others
	Lost    uint64 `json:"lost"`    // blocks without a file: too many waited
	Failed  uint64 `json:"failed"`  // files that could not be written
	Missed  uint64 `json:"missed"`  // packets that were not copied
}

func (r *runner) evidenceStats() evidenceStats {
	if r.evidence == nil {
		return evidenceStats{}
	}
	return evidenceStats(r.evidence.Stats())
}

// addEvidence names the files about a host, and about the prefixes around it
// that are blocked.
func (l *local) addEvidence(s *ShowObject, host netip.Prefix) error {
	if l.evidence == "" {
		return nil
	}
	dir, err := filepath.Abs(l.evidence)
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	wanted := []netip.Prefix{host}
	for _, b := range s.Blocks {
		if p, err := netip.ParsePrefix(b.Prefix); err == nil && p != host {
			wanted = append(wanted, p)
		}
	}
	for _, p := range wanted {
		files, err := evidence.Files(dir, p)
		if err != nil {
			return err
		}
		s.Evidence = append(s.Evidence, files...)
	}
	return nil
}
