package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/capture/filter"
	"github.com/netcap-guard/netcap-guard/configs"
	"github.com/netcap-guard/netcap-guard/engine"
)

// builtinRules is what the rules in the binary are called in messages.
const builtinRules = "built-in rules"

// ruleSources are the rules the configuration asks for: the paths, else the
// default folder if it is there, else the rules in the binary.
func ruleSources(cfg *Config) []engine.Source {
	if len(cfg.Rules) == 0 {
		if _, err := os.Stat(DefaultRulesDir); errors.Is(err, fs.ErrNotExist) {
			return []engine.Source{engine.Bytes(builtinRules, configs.FirewallRules())}
		}
		return []engine.Source{engine.Path(DefaultRulesDir)}
	}
	sources := make([]engine.Source, len(cfg.Rules))
	for i, p := range cfg.Rules {
		sources[i] = engine.Path(p)
	}
	return sources
}

// loadRules reads the rules; every mistake is a line of the error, and every
// warning a line of the log.
func (r *runner) loadRules() (*engine.RuleSet, error) {
	r.rules = ruleSources(&r.cfg)
	rs, report := engine.LoadFor(r.cfg.Backend, r.rules...)
	if err := rulesError(report); err != nil {
		return nil, err
	}
	unserved := 0
	for _, w := range report.Warnings {
		if w.File == builtinRules {
			unserved++ // check names them; nobody here wrote them
			continue
		}
		r.warn(w)
	}
	if unserved > 0 {
		r.log.Warn("some built-in rules are not yet served and do not run (netcap-guard check names them)", "rules", unserved)
	}
	return rs, nil
}

func (r *runner) warn(p engine.Problem) {
	if !r.cfg.Quiet {
		fmt.Fprintln(r.env.Err, "warning:", p.Error())
	}
}

// reload reads the rules and the whitelist files anew; if the rules hold a
// mistake the running ones stay.
func (r *runner) reload() (*ReloadObject, error) {
	if _, _, err := r.cfg.whitelistFiles(); err != nil {
		return nil, err
	}
	r.reloading.Lock()
	defer r.reloading.Unlock()
	r.setFilter(nil) // the new rules may need what the old ones did not
	defer r.filterSources()
	report, err := r.engine.Reload(r.rules...)
	if err != nil {
		return nil, &ExitError{ExitConfig, err}
	}
	if err := r.applyWhitelist(); err != nil {
		return nil, err
	}
	r.shared.refreshWant()
	if r.kernel != nil {
		r.kernel.look(time.Now(), r.engine.Rules())
	}
	out := &ReloadObject{Warnings: []string{}}
	for _, w := range report.Warnings {
		out.Warnings = append(out.Warnings, w.Error())
	}
	out.Rules = running(r.engine.Rules())
	return out, nil
}

// running is how many rules are evaluated.
func running(rs *engine.RuleSet) int {
	n := 0
	for _, rule := range rs.Rules() {
		if rule.Runs() {
			n++
		}
	}
	return n
}

// rulesError is what is wrong with rules: each problem on its line, with the
// place underlined below it.
func rulesError(report engine.Report) error {
	if len(report.Errors) == 0 {
		return nil
	}
	var text strings.Builder
	for _, p := range report.Errors {
		text.WriteString(p.Error() + "\n" + p.Excerpt())
	}
	return &ExitError{ExitConfig, errors.New(strings.TrimRight(text.String(), "\n"))}
}

// Check reads configuration and rules and says what is wrong with them; the
// error asks for exit code 78. It touches nothing.
func Check(cfg Config, std Streams) error {
	_, _, listErr := cfg.whitelistFiles()
	rs, report := engine.LoadFor(cfg.Backend, ruleSources(&cfg)...)
	for _, w := range report.Warnings {
		if !cfg.Quiet {
			fmt.Fprint(std.Err, "warning: ", w.Error(), "\n", w.Excerpt())
		}
	}
	if err := errors.Join(rulesError(report), listErr); err != nil {
		return &ExitError{ExitConfig, err}
	}
	var run, disabled, unserved, slow int
	for _, rule := range rs.Rules() {
		switch {
		case rule.Runs():
			run++
		case !rule.Enabled:
			disabled++
		default:
			unserved++
		}
		if !rule.Native() {
			slow++
		}
	}
	if cfg.Verbose {
		fmt.Fprintf(std.Err, "the kernel keeps of live packets:\n%s\n", filter.Compile(needs(rs, cfg.Decap)))
	}
	if run == 0 && !cfg.Quiet {
		fmt.Fprintln(std.Err, "warning: no rule runs: nothing will be blocked")
	}
	if cfg.Quiet {
		return nil
	}
	line := rulesRun(run)
	for _, part := range []struct {
		n    int
		what string
	}{{disabled, "disabled"}, {unserved, "not yet served"}, {slow, "slow (expression VM)"}, {len(report.Warnings), "warnings"}} {
		if part.n > 0 {
			line += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	_, err := fmt.Fprintln(std.Out, "ok:", line)
	return err
}
