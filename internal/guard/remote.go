package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// remote is the admin of a running guard, over its control socket. It is for
// one goroutine.
type remote struct {
	path   string
	client *http.Client
	dryRun bool // an answer said that the guard leaves the kernel alone
}

// dial looks for the running guard; nil without an error where none runs. On
// the default socket a guard that works in another network namespace (this
// process may run under ip netns exec) is none: its blocks would not be the
// ones that were meant.
func (c *VerbConfig) dial() (*remote, error) {
	path := c.ControlPath(c.Netns)
	conn, err := net.DialTimeout("unix", path, 5*time.Second)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, nil
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("talk to the guard at %s: permission denied (root, or the guard's group)", path)
	case err != nil:
		return nil, fmt.Errorf("talk to the guard: %w", err)
	}
	other := c.Control == "" && elsewhere(conn)
	_ = conn.Close() // nothing was written; the client dials for itself
	if other {
		return nil, nil
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	return &remote{path: path, client: &http.Client{Transport: transport, Timeout: controlWriteLimit}}, nil
}

// call sends one request and decodes the answer.
func (r *remote) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://guard/v1/"+path, body)
	if err != nil {
		return fmt.Errorf("ask the guard: %w", err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the guard at %s: %w", r.path, err)
	}
	defer resp.Body.Close()
	r.dryRun = resp.Header.Get(dryRunHeader) != ""
	dec := json.NewDecoder(resp.Body)
	if resp.StatusCode == http.StatusOK {
		if err := dec.Decode(out); err != nil {
			return fmt.Errorf("answer of the guard: %w", err)
		}
		return nil
	}
	var e controlError
	if err := dec.Decode(&e); err != nil || e.Error == "" {
		return fmt.Errorf("the guard at %s says: %s", r.path, resp.Status)
	}
	return &ExitError{e.Code, errors.New(e.Error)}
}

// Block asks the guard for blocks; an answer for each entry.
func (r *remote) Block(ctx context.Context, entries []BlockEntry) (out []Answer, err error) {
	err = r.call(ctx, http.MethodPost, "block", entries, &out)
	return out, err
}

// Unblock asks the guard to lift blocks.
func (r *remote) Unblock(ctx context.Context, prefixes []netip.Prefix) (out []Answer, err error) {
	err = r.call(ctx, http.MethodPost, "unblock", prefixes, &out)
	return out, err
}

// Flush asks the guard to lift all blocks.
func (r *remote) Flush(ctx context.Context) (n int, err error) {
	err = r.call(ctx, http.MethodPost, "flush", none{}, &n)
	return n, err
}

// List asks for the guard's listing.
func (r *remote) List(ctx context.Context) (out []BlockObject, err error) {
	err = r.call(ctx, http.MethodGet, "list", nil, &out)
	return out, err
}

// Show asks for everything about one address.
func (r *remote) Show(ctx context.Context, a netip.Addr) (*ShowObject, error) {
	out := &ShowObject{}
	return out, r.call(ctx, http.MethodPost, "show", a, out)
}

// Whitelist asks for the whitelist in force.
func (r *remote) Whitelist(ctx context.Context) (out []WhitelistObject, err error) {
	err = r.call(ctx, http.MethodGet, "whitelist", nil, &out)
	return out, err
}

// EditWhitelist asks for entries to be added and removed.
func (r *remote) EditWhitelist(ctx context.Context, edit WhitelistEdit) (out WhitelistEdited, err error) {
	err = r.call(ctx, http.MethodPost, "whitelist/edit", edit, &out)
	return out, err
}

// Stats asks for the guard's counters.
func (r *remote) Stats(ctx context.Context) (*statsBody, error) {
	out := &statsBody{}
	return out, r.call(ctx, http.MethodGet, "stats", nil, out)
}

// Reload asks the guard to read its rules anew.
func (r *remote) Reload(ctx context.Context) (*ReloadObject, error) {
	out := &ReloadObject{}
	return out, r.call(ctx, http.MethodPost, "reload", none{}, out)
}

// Stop asks the guard to end.
func (r *remote) Stop(ctx context.Context) error {
	return r.call(ctx, http.MethodPost, "stop", none{}, &none{})
}
