package guard

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// Streams are the program's standard streams.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Logger writes lines for people to w: warnings and errors, with verbose all,
// with quiet errors only.
func Logger(w io.Writer, verbose, quiet bool) *slog.Logger {
	level := slog.LevelWarn
	switch {
	case quiet:
		level = slog.LevelError
	case verbose:
		level = slog.LevelDebug
	}
	return slog.New(&lineHandler{level: level, out: w, mu: new(sync.Mutex)})
}

// lineHandler writes "warning: what happened: key value, key value", the form
// that everything on standard error has. The service manager adds the time.
type lineHandler struct {
	level slog.Level
	mu    *sync.Mutex // guards out; shared by all handlers made from one
	out   io.Writer
	attrs []slog.Attr
}

// Enabled is slog.Handler's.
func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// Handle is slog.Handler's.
func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var parts []string
	add := func(a slog.Attr) bool {
		if a.Key == "error" {
			parts = append(parts, a.Value.String())
		} else {
			parts = append(parts, a.Key+" "+a.Value.String())
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	line := strings.ToLower(r.Level.String()) + ": " + r.Message
	if r.Level == slog.LevelWarn {
		line = "warning: " + r.Message
	}
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.out, printable(strings.ReplaceAll(line, "\n", "; "))+"\n")
	return err
}

// WithAttrs is slog.Handler's.
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(append([]slog.Attr(nil), h.attrs...), attrs...)
	return &c
}

// WithGroup is slog.Handler's; a line has no groups.
func (h *lineHandler) WithGroup(string) slog.Handler { return h }
