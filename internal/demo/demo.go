// Package demo is `netcap-guard demo`: it builds a network of namespaces with
// an attacker, a bystander and a victim, runs the real guard on the victim and
// a real attack against it, and shows what happens. Every step is an
// expectation: the demo fails if the attacker gets through, if the bystander
// does not, if a block does not end, or if anything is left behind.
//
// It touches nothing outside its own namespaces and a temporary folder, and
// removes both, also when it is interrupted.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

// limit ends a demo in which something hangs; a good one takes about 15 s.
const limit = 60 * time.Second

// ErrBackend says that the demo does not know the backend.
var ErrBackend = errors.New("unknown backend (use nft or iptables)")

// Config says what to show.
type Config struct {
	// Backend is nft or iptables; auto and empty are nft.
	Backend string
	// Binary is the guard to run; empty is the running program itself.
	Binary string
	// Out receives the show: plain lines, coloured only where it is a
	// terminal and NO_COLOR is not set. Nil is os.Stdout.
	Out io.Writer
}

// Run shows one attack and its end. It returns nil where every expectation
// held. When ctx ends it stops, removes everything and returns an error that
// wraps ctx's.
func Run(ctx context.Context, cfg Config) (err error) {
	cfg, b, err := complete(cfg)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// A terminal that is closed must not leave the namespaces behind either.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	s := &stage{out: newPrinter(cfg.Out), backend: b}
	defer func() { err = s.end(ctx, err) }()
	if s.temp, err = os.MkdirTemp("", "netcap-guard-demo-"); err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	if s.lab, err = netlab.New(); err != nil {
		return err
	}
	if err := s.build(ctx); err != nil {
		return fmt.Errorf("build the network: %w", err)
	}
	if err := s.startGuard(ctx, cfg.Binary); err != nil {
		return err
	}
	return s.play(ctx)
}

// complete fills in the defaults and checks that the programs are there.
func complete(cfg Config) (Config, backend, error) {
	if cfg.Out == nil {
		cfg.Out = os.Stdout
	}
	if cfg.Backend == "" || cfg.Backend == "auto" {
		cfg.Backend = "nft"
	}
	b, ok := backendNamed(cfg.Backend)
	if !ok {
		return cfg, b, fmt.Errorf("%w: %q", ErrBackend, cfg.Backend)
	}
	tools := [][2]string{{"ip", "iproute2"}, {"nmap", "nmap"}, {"ping", "iputils-ping"}, {b.program, b.pkg}}
	for _, t := range tools {
		if err := netlab.Tool(t[0], t[1]); err != nil {
			return cfg, b, err
		}
	}
	if cfg.Binary == "" {
		exe, err := os.Executable()
		if err != nil {
			return cfg, b, fmt.Errorf("find the running program: %w", err)
		}
		cfg.Binary = exe
	}
	abs, err := filepath.Abs(cfg.Binary)
	cfg.Binary = abs
	return cfg, b, err
}

// end removes everything, whatever happened, and turns what happened into the
// verdict.
func (s *stage) end(ctx context.Context, failure error) error {
	var left []error
	if s.guard != nil {
		s.guard.Kill()
	}
	if s.lab != nil {
		left = append(left, s.lab.Close())
	}
	for _, c := range s.closers {
		left = append(left, c.Close())
	}
	if s.temp != "" {
		left = append(left, os.RemoveAll(s.temp))
	}
	if err := errors.Join(left...); err != nil {
		failure = errors.Join(failure, fmt.Errorf("remove the demo's network: %w", err))
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("demo: stopped early, everything removed: %w", ctx.Err())
	case failure != nil:
		return fmt.Errorf("demo: %w", failure)
	case len(s.failed) > 0:
		return fmt.Errorf("demo: %d of %d expectations failed, first: %s", len(s.failed), s.checks, s.failed[0])
	}
	s.out.verdict("%s: the attacker was blocked and, %s later, let in again; the bystander was served all along (%d checks)",
		s.backend.name, s.blocked.Round(100*time.Millisecond), s.checks)
	return nil
}
