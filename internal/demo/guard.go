package demo

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

//go:embed rules.yml
var ruleFile []byte

// keptLines is how many lines of the guard's standard error are kept to
// explain a failure.
const keptLines = 5

// event is what the demo reads of the guard's events.
type event struct {
	Type  string     `json:"event_type"`
	SrcIP netip.Addr `json:"src_ip"`
	Alert struct {
		Signature string `json:"signature"`
		Severity  string `json:"severity"`
		Count     int    `json:"count"`
		Window    int    `json:"threshold_window"`
	} `json:"alert"`
	Action struct {
		Type    string    `json:"type"`
		Result  string    `json:"result"`
		IP      string    `json:"ip"`
		Expires time.Time `json:"expires"`
		Rule    string    `json:"rule"`
	} `json:"action"`
	Stats struct {
		Packets  uint64            `json:"packets"`
		Firewall map[string]uint64 `json:"firewall"`
	} `json:"stats"`
}

// guard is the running guard process.
type guard struct {
	cmd   *exec.Cmd
	ready chan string   // its ready line
	ended chan struct{} // closed when the process is over
	err   error         // how it ended; read after ended

	mu      sync.Mutex // guards what follows
	events  []event
	last    []string      // of standard error
	changed chan struct{} // closed and replaced at each new event
}

// startGuard writes the rules, starts the guard inside the victim and waits
// until it says that it captures.
func (s *stage) startGuard(ctx context.Context, binary string) error {
	rules, config := filepath.Join(s.temp, "rules.yml"), filepath.Join(s.temp, "config.yaml")
	if err := os.WriteFile(rules, ruleFile, 0o600); err != nil {
		return fmt.Errorf("write the demo's rules: %w", err)
	}
	// An empty configuration keeps the machine's own out of the demo.
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return fmt.Errorf("write the demo's configuration: %w", err)
	}
	args := []string{"-i", "eth0", "--backend=" + s.backend.name, "--rules", rules, "--config", config,
		"--control", filepath.Join(s.temp, "control.sock"), "-o", "json"}
	s.out.step("netcap-guard " + strings.Join(args[:3], " "))
	g, err := launch(ctx, s.victim, binary, args)
	if err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	s.guard = g
	select {
	case line := <-g.ready:
		s.out.say("%s", line)
		return nil
	case <-g.ended:
		return fmt.Errorf("the guard ended before it was ready: %w", g.why())
	case <-ctx.Done():
		return ctx.Err()
	}
}

func launch(ctx context.Context, ns *netlab.NS, binary string, args []string) (*guard, error) {
	g := &guard{ready: make(chan string, 1), ended: make(chan struct{}), changed: make(chan struct{})}
	g.cmd = ns.Command(ctx, binary, args...)
	g.cmd.Cancel = func() error { return g.cmd.Process.Signal(syscall.SIGTERM) }
	stdout, err := g.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	var readers sync.WaitGroup
	readers.Go(func() { scan(stdout, g.addEvent) })
	readers.Go(func() { scan(stderr, g.addLine) })
	go func() {
		readers.Wait() // Wait closes the pipes, so they are read to the end first
		g.err = g.cmd.Wait()
		close(g.ended)
	}()
	return g, nil
}

// scan hands every line to f. A line that is too long ends the reading of
// lines, but never blocks the writer.
func scan(r io.Reader, f func([]byte)) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f(lines.Bytes())
	}
	_, _ = io.Copy(io.Discard, r) // the pipe's end is all there is to learn
}

func (g *guard) addEvent(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		g.addLine(fmt.Appendf(nil, "unreadable event %q: %v", line, err))
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, e)
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *guard) addLine(line []byte) {
	text := string(line)
	if strings.HasPrefix(text, "guarding ") {
		select {
		case g.ready <- text:
		default: // said twice
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last = append(g.last, text); len(g.last) > keptLines {
		g.last = g.last[1:]
	}
}

// await returns the first event, past or to come within d, that fits.
func (g *guard) await(ctx context.Context, d time.Duration, what string, fits func(event) bool) (event, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for seen, over := 0, false; ; {
		g.mu.Lock()
		news, changed := g.events[seen:], g.changed
		seen = len(g.events)
		g.mu.Unlock()
		for _, e := range news {
			if fits(e) {
				return e, nil
			}
		}
		if over {
			return event{}, fmt.Errorf("the guard ended without %s: %w", what, g.why())
		}
		select {
		case <-changed:
		case <-g.ended:
			over = true
		case <-ctx.Done():
			return event{}, fmt.Errorf("waited %s for %s: %w", d, what, ctx.Err())
		}
	}
}

// stop asks the guard to end in order and waits for it.
func (g *guard) stop(ctx context.Context) error {
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the guard: %w", err)
	}
	select {
	case <-g.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if g.err != nil {
		return g.why()
	}
	return nil
}

// kill ends the guard in order, or at once if it does not follow, and waits.
func (g *guard) kill() {
	_ = g.cmd.Process.Signal(syscall.SIGTERM) // an error: it is over already
	select {
	case <-g.ended:
		return
	case <-time.After(3 * time.Second):
	}
	_ = g.cmd.Process.Kill()
	<-g.ended
}

// why explains how the guard ended with the last it said.
func (g *guard) why() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(g.err, errors.New(strings.Join(g.last, "\n")))
}
