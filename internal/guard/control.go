package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/netcap-guard/netcap-guard/firewall"
)

// controlDir holds the control sockets.
const controlDir = "/run/netcap-guard"

// dryRunHeader is in the answers of a guard that leaves the kernel alone.
const dryRunHeader = "Netcap-Guard-Dry-Run"

// Bounds of the control socket: nobody who may use it can make the guard wait
// or grow.
const (
	maxControlBody     = 16 << 20 // ten thousand blocks of a list, at more than a kilobyte each
	maxControlHeader   = 16 << 10
	maxControlConns    = 32
	maxControlPath     = 107 // the kernel's limit for the address of a unix socket
	controlReadLimit   = 30 * time.Second
	controlHeaderLimit = 5 * time.Second
	controlWriteLimit  = 2 * time.Minute
	controlIdleLimit   = 10 * time.Second
)

// ControlPath is the control socket of a guard: the configured one, else one
// for each network namespace and chain.
func (c *Config) ControlPath(netnsName string) string {
	if c.Control != "" {
		return c.Control
	}
	name := "control"
	if netnsName != "" {
		name = filepath.Base(netnsName)
	}
	if c.Chain != "" && c.Chain != firewall.DefaultChainName {
		name += "-" + c.Chain
	}
	return filepath.Join(controlDir, name+".sock")
}

// control serves the control socket of a running guard.
type control struct {
	admin  Daemon
	log    *slog.Logger
	server *http.Server
	ln     net.Listener
	memory giveBack
	dryRun bool
	done   chan struct{}
}

// startControl listens on path. A socket that a dead guard left is replaced:
// the chain's lock says that no other guard lives. With dryRun (which locks
// nothing) a socket that somebody answers on is left to him, and the result is
// nil; the answers on one of its own say that they are a dry run's.
func startControl(path string, a Daemon, log *slog.Logger, dryRun bool) (*control, error) {
	if len(path) > maxControlPath {
		return nil, fmt.Errorf("control socket %s: the path is %d bytes long, at most %d are possible", path, len(path), maxControlPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if answers(path) {
		if dryRun {
			return nil, nil
		}
		return nil, fmt.Errorf("control socket %s is in use by another guard (--control chooses another socket)", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ln, err := listenControl(path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	c := &control{admin: a, log: log, ln: ln, dryRun: dryRun, done: make(chan struct{})}
	c.server = &http.Server{
		Handler:           c.routes(),
		ReadHeaderTimeout: controlHeaderLimit, ReadTimeout: controlReadLimit,
		WriteTimeout: controlWriteLimit, IdleTimeout: controlIdleLimit,
		MaxHeaderBytes: maxControlHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext:    withPeer,
	}
	go func() {
		defer close(c.done)
		if err := c.server.Serve(limitConns(ln, maxControlConns)); !errors.Is(err, http.ErrServerClosed) {
			log.Error("control socket", "error", err)
		}
	}()
	return c, nil
}

// answers reports whether somebody accepts connections on the socket.
func answers(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was written
	return true
}

// close stops serving, lets requests under way finish, and removes the socket.
func (c *control) close(ctx context.Context) error {
	if c == nil {
		return nil
	}
	err := c.server.Shutdown(ctx)
	<-c.done
	c.memory.end()
	return err
}

// routes are the requests that the socket answers. Every answer is JSON; an
// error is {"error": "...", "code": exit code}.
func (c *control) routes() http.Handler {
	mux := http.NewServeMux()
	route := func(method, path string, h http.HandlerFunc) {
		mux.HandleFunc(method+" /v1/"+path, h)
		mux.HandleFunc("/v1/"+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", method)
			fail(w, http.StatusMethodNotAllowed, Exit(ExitUsage, "%s %s: use %s", r.Method, r.URL.Path, method))
		})
	}
	route(http.MethodPost, "block", handle(func(ctx context.Context, in []BlockEntry) (any, error) {
		defer c.memory.after(len(in))
		return c.admin.Block(ctx, in)
	}))
	route(http.MethodPost, "unblock", handle(func(ctx context.Context, in []netip.Prefix) (any, error) {
		defer c.memory.after(len(in))
		return c.admin.Unblock(ctx, in)
	}))
	route(http.MethodPost, "flush", handle(func(ctx context.Context, _ none) (any, error) {
		n, err := c.admin.Flush(ctx)
		c.memory.after(n)
		return n, err
	}))
	route(http.MethodGet, "list", handle(func(ctx context.Context, _ none) (any, error) {
		out, err := c.admin.List(ctx)
		c.memory.after(len(out))
		return out, err
	}))
	route(http.MethodPost, "show", handle(func(ctx context.Context, in netip.Addr) (any, error) { return c.admin.Show(ctx, in) }))
	route(http.MethodGet, "whitelist", handle(func(ctx context.Context, _ none) (any, error) { return c.admin.Whitelist(ctx) }))
	route(http.MethodPost, "whitelist/edit", handle(func(ctx context.Context, in WhitelistEdit) (any, error) {
		return c.admin.EditWhitelist(ctx, in)
	}))
	route(http.MethodGet, "stats", handle(func(ctx context.Context, _ none) (any, error) { return c.admin.Stats(ctx) }))
	route(http.MethodPost, "reload", handle(func(ctx context.Context, _ none) (any, error) { return c.admin.Reload(ctx) }))
	route(http.MethodPost, "stop", handle(func(ctx context.Context, _ none) (any, error) { return none{}, c.admin.Stop(ctx) }))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, Exit(ExitUsage, "%s %.100q: no such request", r.Method, r.URL.Path))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := mayControl(r.Context()); err != nil {
			fail(w, http.StatusForbidden, err)
			return
		}
		if c.dryRun {
			w.Header().Set(dryRunHeader, "true")
		}
		mux.ServeHTTP(w, r)
	})
}

// none is the body of a request or an answer that says nothing.
type none struct{}

// controlError is the body of an error.
type controlError struct {
	Error string `json:"error"`
	Code  int    `json:"code"`
}

func fail(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(controlError{err.Error(), ExitCode(err)}) // the client went away
}

// handle decodes a request strictly, runs f and encodes what it returns.
func handle[In any](f func(context.Context, In) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method == http.MethodPost {
			dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBody))
			dec.DisallowUnknownFields()
			err := dec.Decode(&in)
			if err == nil && dec.More() {
				err = errors.New("more than one value")
			}
			if err != nil {
				fail(w, http.StatusBadRequest, Exit(ExitUsage, "request: %w", err))
				return
			}
		}
		out, err := f(r.Context(), in)
		if err != nil {
			fail(w, http.StatusUnprocessableEntity, coded(err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the client went away
	}
}

// coded gives an error of the firewall the exit code that a verb has for it.
func coded(err error) error {
	if errors.Is(err, firewall.ErrNotWhitelisted) {
		return &ExitError{ExitNotFound, err}
	}
	return err
}

// limitConns refuses connections beyond n, so that a crowd of slow clients
// costs nothing but their own connections.
func limitConns(ln net.Listener, n int) net.Listener {
	return &limited{Listener: ln, slots: make(chan struct{}, n)}
}

type limited struct {
	net.Listener
	slots chan struct{}
}

// Accept waits for a connection that there is room for.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &slotConn{Conn: conn, release: l.slots}, nil
		default:
			_ = conn.Close() // one too many
		}
	}
}

// slotConn gives its slot back when it is closed.
type slotConn struct {
	net.Conn
	release chan struct{}
	once    sync.Once
}

// Close may be called more than once, and from several goroutines.
func (s *slotConn) Close() error {
	defer s.once.Do(func() { <-s.release })
	return s.Conn.Close()
}

// parseGroups reads the supplementary groups out of /proc/PID/status.
func parseGroups(status string) []string {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "Groups:"); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}
