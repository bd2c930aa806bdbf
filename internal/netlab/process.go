package netlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrEnded says that a program ended before it printed what was waited for.
var ErrEnded = errors.New("program ended")

const (
	// maxLines is how many lines of output a Process keeps; the oldest go.
	maxLines = 10000
	// lastLines is how many of them explain a failure.
	lastLines = 5
	// grace is how long Kill waits for an orderly end.
	grace = 3 * time.Second
)

// Line is one line that a program printed.
type Line struct {
	Stderr bool
	Text   string // without the line feed
}

// Process is a running program whose output is read line by line, so that it
// never blocks on a full pipe. It is safe for concurrent use.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when the program is over and its output read
	err   error         // how it ended; written before ended is closed

	mu      sync.Mutex // guards what follows
	lines   []Line
	dropped int           // lines that are kept no more
	changed chan struct{} // closed and replaced at each new line
}

// Start starts a prepared program (see NS.Command) and reads its output; what
// its children print is read until 2 s after its end. When
// the command's context ends the program is asked to end (SIGTERM) and killed
// if it does not. The caller ends it with Stop or Kill.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, ended: make(chan struct{}), changed: make(chan struct{})}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = pipeWait
	}
	// Not StdoutPipe: its reader waits for every child that inherited the
	// pipe, however long that outlives the program. Wait gives up on them.
	stdout, outEnd := io.Pipe()
	stderr, errEnd := io.Pipe()
	cmd.Stdout, cmd.Stderr = outEnd, errEnd
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.read(stdout, false) })
	readers.Go(func() { p.read(stderr, true) })
	go func() {
		p.err = cmd.Wait()
		_, _ = outEnd.Close(), errEnd.Close() // they return nil always
		readers.Wait()
		close(p.ended)
	}()
	return p, nil
}

// read keeps every line. A line that is too long ends the reading of lines,
// but never blocks the program.
func (p *Process) read(r io.Reader, stderr bool) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.add(Line{stderr, lines.Text()})
	}
	_, _ = io.Copy(io.Discard, r) // the pipe's end is all there is to learn
}

func (p *Process) add(l Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lines = append(p.lines, l); len(p.lines) > maxLines {
		p.lines = p.lines[1:]
		p.dropped++
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// since returns the lines from number n on, the number after the last, and
// what is closed when there are more.
func (p *Process) since(n int) ([]Line, int, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := min(max(n-p.dropped, 0), len(p.lines))
	return append([]Line(nil), p.lines[from:]...), p.dropped + len(p.lines), p.changed
}

// Lines returns what the program printed so far, in order of reading.
func (p *Process) Lines() []Line {
	lines, _, _ := p.since(0)
	return lines
}

// Await returns the first line, past or to come, that fits. Its error wraps
// ErrEnded with the last lines where the program ended without it, or the
// context's.
func (p *Process) Await(ctx context.Context, fits func(Line) bool) (Line, error) {
	for n, over := 0, false; ; {
		lines, next, changed := p.since(n)
		n = next
		for _, l := range lines {
			if fits(l) {
				return l, nil
			}
		}
		if over {
			return Line{}, fmt.Errorf("%w: %w", ErrEnded, p.why())
		}
		select {
		case <-changed:
		case <-p.ended:
			over = true
		case <-ctx.Done():
			return Line{}, ctx.Err()
		}
	}
}

// PID is the program's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to the program.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Wait waits for the program's end. Its error says how it ended where that
// was not with status 0, with the last lines it printed, and wraps
// *exec.ExitError.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.err != nil {
		return p.why()
	}
	return nil
}

// Stop asks the program to end (SIGTERM) and waits for it.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.Wait(ctx)
}

// Kill ends the program whatever it takes: in order if it follows within 3 s,
// else at once. It returns when the program is over.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGTERM) // an error: it is over already
	select {
	case <-p.ended:
		return
	case <-time.After(grace):
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// why is how the program ended, with the last it said.
func (p *Process) why() error {
	lines := p.Lines()
	text := make([]string, 0, lastLines)
	for _, l := range lines[max(len(lines)-lastLines, 0):] {
		text = append(text, l.Text)
	}
	how := p.err
	if how == nil {
		how = errors.New("status 0")
	}
	return fmt.Errorf("%w: %s", how, strings.Join(text, " | "))
}
