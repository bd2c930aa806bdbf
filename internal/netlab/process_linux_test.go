package netlab_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

func start(t *testing.T, script string) *netlab.Process {
	t.Helper()
	p, err := netlab.Start(exec.CommandContext(t.Context(), "sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func is(text string) func(netlab.Line) bool {
	return func(l netlab.Line) bool { return l.Text == text }
}

func TestAwaitLine(t *testing.T) {
	p := start(t, "echo first; echo second >&2; read x; echo third")
	for range 2 { // the second time both are past
		for _, want := range []netlab.Line{{Text: "first"}, {Stderr: true, Text: "second"}} {
			if got, err := p.Await(t.Context(), is(want.Text)); err != nil || got != want {
				t.Errorf("Await: %+v, %v; want %+v", got, err, want)
			}
		}
	}
}

func TestAwaitOfAProgramThatEnds(t *testing.T) {
	p := start(t, "echo why it failed >&2; exit 3")
	_, err := p.Await(t.Context(), is("never"))
	var exit *exec.ExitError
	if !errors.Is(err, netlab.ErrEnded) || !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "why it failed") {
		t.Errorf("Await: %v, want ErrEnded with status 3 and what was said", err)
	}
}

func TestAwaitEndsWithContext(t *testing.T) {
	p := start(t, "exec sleep 600")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.Await(ctx, is("never")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Await: %v, want the context's error", err)
	}
}

func TestStopAndKill(t *testing.T) {
	orderly := start(t, `trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done`)
	if _, err := orderly.Await(t.Context(), is("up")); err != nil {
		t.Fatal(err)
	}
	if err := orderly.Stop(t.Context()); err != nil {
		t.Errorf("Stop of a program that ends in order: %v", err)
	}
	if lines := orderly.Lines(); lines[len(lines)-1].Text != "bye" {
		t.Errorf("lines %v, want the last to be bye", lines)
	}
	deaf := start(t, `trap '' TERM; echo up; while :; do sleep 0.01; done`)
	if _, err := deaf.Await(t.Context(), is("up")); err != nil {
		t.Fatal(err)
	}
	deaf.Kill()
	if err := deaf.Wait(t.Context()); err == nil {
		t.Error("a program that ignores SIGTERM ended with status 0")
	}
}

func TestLinesAreBounded(t *testing.T) {
	p := start(t, "seq 1 12000")
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := p.Lines()
	if len(lines) != 10000 || lines[9999].Text != "12000" {
		t.Errorf("%d lines, last %v; want the newest 10000", len(lines), lines[len(lines)-1])
	}
}

// TestChildrenKeepNobodyWaiting: a program's end does not wait for children
// that have its output in their hands.
func TestChildrenKeepNobodyWaiting(t *testing.T) {
	p := start(t, "sleep 600 & echo $!; exec sleep 600")
	child, err := p.Await(t.Context(), func(l netlab.Line) bool { return !l.Stderr })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := exec.Command("kill", child.Text).Run(); err != nil {
			t.Errorf("the child did not outlive its parent: %v", err)
		}
	}()
	p.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Wait(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v, want that it was killed", err)
	}
}
