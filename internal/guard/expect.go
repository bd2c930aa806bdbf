package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/netcap-guard/netcap-guard/engine"
)

// Expectations are what a test of rules says of the alerts of one capture.
type Expectations struct {
	// Alerts must be raised, NoAlerts must not.
	Alerts   []Expectation `yaml:"alerts"`
	NoAlerts []Expectation `yaml:"no_alerts"`
	// Strict: there are no alerts but those.
	Strict bool `yaml:"strict"`
}

// Expectation names alerts: of a rule, and where they are given, of a source,
// a destination, at a packet. Times is how many there are, at least one where
// it is not given.
type Expectation struct {
	Rule        string `yaml:"rule"`
	Source      string `yaml:"source"`
	Destination string `yaml:"destination"`
	Packet      uint64 `yaml:"packet"`
	Times       *int   `yaml:"times"`
}

// String is the expectation in words: rule for 192.0.2.1 at packet 10.
func (x Expectation) String() string {
	text := x.Rule
	if x.Source != "" {
		text += " for " + x.Source
	}
	if x.Destination != "" {
		text += " to " + x.Destination
	}
	if x.Packet != 0 {
		text += " at packet " + strconv.FormatUint(x.Packet, 10)
	}
	if x.Times != nil {
		text += fmt.Sprintf(", %d times", *x.Times)
	}
	return text
}

// raised is one alert as expectations speak of it.
type raised struct {
	rule     string
	src, dst string
	packet   uint64
}

func (r raised) String() string {
	return Expectation{Rule: r.rule, Source: r.src, Destination: r.dst, Packet: r.packet}.String()
}

func (x Expectation) names(r raised) bool {
	return x.Rule == r.rule && (x.Source == "" || x.Source == r.src) &&
		(x.Destination == "" || x.Destination == r.dst) && (x.Packet == 0 || x.Packet == r.packet)
}

// maxExpectations bounds what is read of a file of expectations.
const maxExpectations = 1 << 20

// readExpectations reads a file and checks it against the rules; the error
// names every mistake.
func readExpectations(path string, rs *engine.RuleSet) (*Expectations, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxExpectations+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxExpectations {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxExpectations)
	}
	var x Expectations
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&x); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var names []string
	for _, r := range rs.Rules() {
		names = append(names, r.Name)
	}
	var errs []error
	for list, all := range map[string][]Expectation{"alerts": x.Alerts, "no_alerts": x.NoAlerts} {
		for i := range all {
			if err := all[i].check(names, list == "alerts"); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s[%d]: %w", path, list, i, err))
			}
		}
	}
	if len(x.Alerts)+len(x.NoAlerts) == 0 && !x.Strict {
		errs = append(errs, fmt.Errorf("%s: nothing is expected: write alerts:, no_alerts: or strict: true", path))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return &x, errors.Join(errs...)
}

// check looks at one expectation and gives its addresses the form that events
// have.
func (x *Expectation) check(rules []string, times bool) error {
	var errs []error
	if !slices.Contains(rules, x.Rule) {
		errs = append(errs, fmt.Errorf("there is no rule %q", x.Rule))
	}
	for _, text := range []*string{&x.Source, &x.Destination} {
		if *text == "" {
			continue
		}
		a, err := netip.ParseAddr(*text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%q is no address", *text))
			continue
		}
		*text = a.Unmap().WithZone("").String()
	}
	if x.Times != nil && (!times || *x.Times < 0) {
		errs = append(errs, errors.New("times goes with alerts, and is not negative"))
	}
	return errors.Join(errs...)
}

// compare returns the differences, each a line that begins with - for what is
// missing and + for what is too much.
func (x *Expectations) compare(alerts []raised) []string {
	var out []string
	for _, e := range x.Alerts {
		var hits []raised
		for _, r := range alerts {
			if e.names(r) {
				hits = append(hits, r)
			}
		}
		switch {
		case e.Times != nil && len(hits) != *e.Times:
			out = append(out, fmt.Sprintf("- %s", e), fmt.Sprintf("+ %s", found(len(hits))))
		case e.Times == nil && len(hits) == 0:
			out = append(out, fmt.Sprintf("- %s", e))
			for _, r := range firstFew(alerts, e.Rule) {
				out = append(out, fmt.Sprintf("+ %s", r))
			}
		}
	}
	for _, r := range alerts {
		named := func(e Expectation) bool { return e.names(r) }
		if slices.ContainsFunc(x.NoAlerts, named) || x.Strict && !slices.ContainsFunc(x.Alerts, named) {
			if line := fmt.Sprintf("+ %s", r); !slices.Contains(out, line) {
				out = append(out, line)
			}
		}
	}
	return out
}

func found(n int) string {
	if n == 1 {
		return "found once"
	}
	return fmt.Sprintf("found %d times", n)
}

// firstFew are the first alerts of a rule, which show what came instead.
func firstFew(alerts []raised, rule string) []raised {
	var out []raised
	for _, r := range alerts {
		if r.rule == rule && len(out) < 3 {
			out = append(out, r)
		}
	}
	return out
}

// alertReader takes the alerts out of a stream of events.
type alertReader struct {
	rest   []byte
	alerts []raised
}

// Write implements io.Writer.
func (a *alertReader) Write(p []byte) (int, error) {
	a.rest = append(a.rest, p...)
	for {
		line, rest, ok := bytes.Cut(a.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		a.rest = rest
		var ev event
		if err := json.Unmarshal(line, &ev); err != nil {
			return 0, err
		}
		if ev.Alert != nil {
			a.alerts = append(a.alerts, raised{ev.Alert.Signature, ev.SrcIP, ev.DestIP, ev.Packet})
		}
	}
}

// TestRules replays a capture and compares its alerts with the expectations in
// a file: a readable difference, and an error that asks for exit code 1, where
// they are not met. Rules or expectations that cannot be used ask for exit
// code 78. Nothing is blocked, and nothing else is touched.
func TestRules(ctx context.Context, cfg Config, capture, expect string, env Environment) error {
	rs, report := engine.Load(ruleSources(&cfg)...)
	if err := report.Err(); err != nil {
		return &ExitError{ExitConfig, err}
	}
	x, err := readExpectations(expect, rs)
	if err != nil {
		return &ExitError{ExitConfig, err}
	}
	cfg.Read, cfg.Interfaces, cfg.Enforce, cfg.Events, cfg.Output = []string{capture}, nil, false, "", OutputJSON
	std, quiet := env.Streams, cfg.Quiet
	var got alertReader
	env.Out, cfg.Quiet = &got, true
	if err := Run(ctx, cfg, env); err != nil {
		return err
	}
	differences := x.compare(got.alerts)
	if len(differences) == 0 {
		if !quiet {
			_, err = fmt.Fprintf(std.Out, "ok: %s: %d expectations met, %d alerts\n", capture, len(x.Alerts)+len(x.NoAlerts), len(got.alerts))
		}
		return err
	}
	_, err = fmt.Fprintf(std.Out, "%s: not as %s expects (- expected, + found)\n%s\n", capture, expect, strings.Join(differences, "\n"))
	return errors.Join(err, Exit(ExitFailed, "%s: the alerts are not as expected", capture))
}
