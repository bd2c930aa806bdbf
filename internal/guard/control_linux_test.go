package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// inert is the daemon side of a guard without packets: its Manager is real,
// and what only a run can do is noted.
type inert struct {
	local
	reload  error
	stopped chan struct{}
}

func (*inert) Stats(context.Context) (*statsBody, error) { return &statsBody{Packets: 42}, nil }

func (d *inert) Reload(context.Context) (*ReloadObject, error) {
	return &ReloadObject{Rules: 3, Warnings: []string{"careful"}}, d.reload
}

func (d *inert) Stop(context.Context) error {
	close(d.stopped)
	return nil
}

func newInert(t testing.TB) *inert {
	t.Helper()
	m, err := firewall.NewManager(&firewall.ManagerConfig{
		DryRun: true, Whitelist: []string{"203.0.113.0/24"},
		Protect: hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return &inert{local: local{m: m}, stopped: make(chan struct{})}
}

// serveInert serves a daemon on a socket of its own.
func serveInert(t *testing.T) (*inert, string) {
	t.Helper()
	d := newInert(t)
	path := socketPath(t)
	c, err := startControl(path, d, slog.New(slog.DiscardHandler), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(context.Background()); err != nil {
			t.Errorf("close the control socket: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return d, path
}

// socketPath is short: the test's own folder may be too long for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ng-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "control.sock")
}

func dialed(t *testing.T, path string) *remote {
	t.Helper()
	c := VerbConfig{Config: Config{Control: path}}
	r, err := c.dial()
	if err != nil || r == nil {
		t.Fatalf("dial: %v, %v", r, err)
	}
	return r
}

// TestControlRoundTrip: every request says over the socket what it says to
// the Manager itself.
func TestControlRoundTrip(t *testing.T) {
	d, path := serveInert(t)
	r, ctx := dialed(t, path), t.Context()
	hour := time.Hour
	answers, err := r.Block(ctx, []BlockEntry{
		{Prefix: netip.MustParsePrefix("192.0.2.9/24"), Duration: &hour, Reason: "\"quoted\" \x00 \U0001F980\nline"},
		{Prefix: netip.MustParsePrefix("::ffff:198.51.100.1/128"), Target: "dst", Action: "REJECT"},
		{Prefix: netip.MustParsePrefix("203.0.113.7/32")},
		{Prefix: netip.MustParsePrefix("127.0.0.1/32")},
		{Prefix: netip.MustParsePrefix("0.0.0.0/0")},
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Action: "log"},
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Target: "left"},
		{},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ result, prefix, why, says string }{
		{"created", "192.0.2.0/24", "", ""}, {"created", "198.51.100.1/32", "", ""},
		{"whitelisted", "", "", ""}, {"whitelisted", "", "loopback", ""},
		{"failed", "", "", "everybody"}, {"failed", "", "", "use drop, reject"}, {"failed", "", "", "left"}, {"failed", "", "", "prefix"},
	} {
		a := answers[i]
		if a.Result != want.result || a.Why != want.why || !strings.Contains(a.Error, want.says) || (a.Error == "") != (want.says == "") {
			t.Errorf("answer %d is %+v, want %+v", i, a, want)
		}
		if (want.prefix != "") != (len(a.Blocks) == 1) || want.prefix != "" && a.Blocks[0].Prefix != want.prefix {
			t.Errorf("answer %d has the blocks %+v, want %s", i, a.Blocks, want.prefix)
		}
	}
	list, err := r.List(ctx)
	if err != nil || len(list) != 2 || list[0].Prefix != "192.0.2.0/24" || list[0].Origin != "manual" || *list[0].Remaining > 3600 ||
		list[1].Action != "REJECT" || list[1].Target != "destination" {
		t.Errorf("list: %v, %+v", err, list)
	}
	mustShow(t, r)
	unblocked, err := r.Unblock(ctx, []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("192.0.2.77/24"), {}})
	if err != nil || len(unblocked) != 3 || unblocked[0].Why != "192.0.2.0/24" || unblocked[0].Result != "not blocked" ||
		unblocked[1].Result != "unblocked" || unblocked[2].Error == "" {
		t.Errorf("unblock: %v, %+v", err, unblocked)
	}
	if n, err := r.Flush(ctx); err != nil || n != 1 || len(d.m.GetActiveBlocks()) != 0 {
		t.Errorf("flush lifted %d of 1 (%v), left %v", n, err, d.m.GetActiveBlocks())
	}
	if s, err := r.Stats(ctx); err != nil || s.Packets != 42 {
		t.Errorf("stats: %v, %+v", err, s)
	}
}

func mustShow(t *testing.T, r *remote) {
	t.Helper()
	s, err := r.Show(t.Context(), netip.MustParseAddr("192.0.2.7"))
	if err != nil || !s.Blocked || len(s.Blocks) != 1 || s.Whitelisted || s.Protected != nil || s.Alerts == nil {
		t.Errorf("show of a blocked address: %v, %+v", err, s)
	}
	s, err = r.Show(t.Context(), netip.MustParseAddr("127.0.0.1"))
	if err != nil || s.Blocked || s.Protected == nil || *s.Protected != "loopback" {
		t.Errorf("show of a protected address: %v, %+v", err, s)
	}
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("fe80::1%eth0")} {
		if _, err := r.Show(t.Context(), a); ExitCode(err) != ExitUsage {
			t.Errorf("show of %q: %v, want exit code %d", a, err, ExitUsage)
		}
	}
}

func TestControlWhitelistReloadStop(t *testing.T) {
	d, path := serveInert(t)
	r, ctx := dialed(t, path), t.Context()
	p := netip.MustParsePrefix("192.0.2.0/28")
	if _, err := r.Block(ctx, []BlockEntry{{Prefix: netip.MustParsePrefix("192.0.2.5/32")}, {Prefix: netip.MustParsePrefix("192.0.2.99/32")}}); err != nil {
		t.Fatal(err)
	}
	if done, err := r.EditWhitelist(ctx, WhitelistEdit{Add: []netip.Prefix{p}}); err != nil || done.Lifted != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	list, err := r.Whitelist(ctx)
	if err != nil || len(list) != 2 || list[0].Prefix != p || list[0].Origins[0] != firewall.OriginAPI || list[1].Origins[0] != firewall.OriginConfig {
		t.Errorf("whitelist: %v, %+v", err, list)
	}
	for _, want := range []int{ExitOK, ExitNotFound} {
		if _, err := r.EditWhitelist(ctx, WhitelistEdit{Remove: []netip.Prefix{p}}); ExitCode(err) != want {
			t.Errorf("removing %v: %v, want exit code %d", p, err, want)
		}
	}
	if out, err := r.Reload(ctx); err != nil || out.Rules != 3 || len(out.Warnings) != 1 {
		t.Errorf("reload: %v, %+v", err, out)
	}
	d.reload = Exit(ExitConfig, "rules.yml:3: no such field")
	if _, err := r.Reload(ctx); ExitCode(err) != ExitConfig || !strings.Contains(err.Error(), "rules.yml:3") {
		t.Errorf("a failed reload: %v, want exit code %d and the place", err, ExitConfig)
	}
	if err := r.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	<-d.stopped
}

// raw sends bytes as they are and returns the whole answer.
func raw(t *testing.T, path, text string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, text) // a server that has read enough closes
	answer, _ := io.ReadAll(conn)     // a reset ends it as well
	return string(answer)
}

func post(path, body string) string {
	return "POST /v1/" + path + " HTTP/1.0\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// TestControlBadRequests: a clear error, nothing blocked, and the next
// administrator is answered.
func TestControlBadRequests(t *testing.T) {
	d, path := serveInert(t)
	good := `[{"prefix":"192.0.2.1/32"}]`
	for _, tc := range []struct{ name, request, status, says string }{
		{"garbage", "\x00\x16\x03\x01 what\r\n\r\n", "400", ""},
		{"no such request", "GET /v1/nonsense HTTP/1.0\r\n\r\n", "404", `"error":"GET \"/v1/nonsense\": no such request"`},
		{"path upwards", "GET /v1/../../etc/passwd HTTP/1.0\r\n\r\n", "", ""},
		{"wrong method", "GET /v1/block HTTP/1.0\r\n\r\n", "405", "use POST"},
		{"wrong method for a listing", post("list", "{}"), "405", "use GET"},
		{"made up method", "BLOCK /v1/block HTTP/1.0\r\n\r\n", "405", "use POST"},
		{"no body", post("block", ""), "400", "EOF"},
		{"no JSON", post("block", "192.0.2.1"), "400", "request: "},
		{"an object for a list", post("block", `{"prefix":"192.0.2.1/32"}`), "400", "request: "},
		{"unknown field", post("block", `[{"prefix":"192.0.2.1/32","prefixx":1}]`), "400", "prefixx"},
		{"two values", post("block", good+good), "400", "more than one value"},
		{"cut in the middle", post("block", good[:len(good)-3]), "400", "EOF"},
		{"shorter than it says", "POST /v1/block HTTP/1.0\r\nContent-Length: 10000\r\n\r\n" + good[:5], "", ""},
		{"an address for a prefix", post("block", `[{"prefix":"192.0.2.1"}]`), "400", "192.0.2.1"},
		{"zone", post("block", `[{"prefix":"fe80::1%eth0/128"}]`), "400", "fe80::1%eth0/128"},
		{"duration as text", post("block", `[{"prefix":"192.0.2.1/32","duration":"1h"}]`), "400", "duration"},
		{"duration that overflows", post("block", `[{"prefix":"192.0.2.1/32","duration":9223372036854775808}]`), "400", "duration"},
		{"negative duration", post("block", `[{"prefix":"192.0.2.1/32","duration":-1}]`), "200", "negative"},
		{"show nonsense", post("show", `"nonsense"`), "400", "nonsense"},
		{"show nothing", post("show", `null`), "422", "not an IP address"},
		{"whitelist nothing", post("whitelist/edit", `{"add":[""]}`), "422", "invalid"},
		{"oversized header", "GET /v1/list HTTP/1.0\r\nX: " + strings.Repeat("x", 2*maxControlHeader) + "\r\n\r\n", "431", ""},
		{"oversized body", post("block", `["`+strings.Repeat("x", maxControlBody)+`"]`), "400", "request: "},
		{"nested without end", post("block", strings.Repeat("[", 1<<20)), "400", "request: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if strings.HasPrefix(tc.name, "shorter") {
				shorter(t, path, tc.request)
				return
			}
			answer := raw(t, path, tc.request)
			line, _, _ := strings.Cut(answer, "\r\n")
			if strings.Contains(line, "200") != (tc.status == "200") || !strings.Contains(line, tc.status) || !strings.Contains(answer, tc.says) {
				t.Errorf("the answer is %.400q, want %s and %q", answer, tc.status, tc.says)
			}
			if got := d.m.GetActiveBlocks(); len(got) > 0 {
				t.Errorf("it blocked %+v", got)
			}
			if _, err := dialed(t, path).List(t.Context()); err != nil {
				t.Errorf("the next client: %v", err)
			}
		})
	}
}

// shorter ends its side of the connection where more was promised.
func shorter(t *testing.T, path, request string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, werr := io.WriteString(conn, request)
	if err := errors.Join(werr, conn.(*net.UnixConn).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), "400") {
		t.Errorf("the answer is %q (%v), want 400", answer, err)
	}
}

// TestControlCrowd: slow clients take their own slots and nothing else; when
// they are gone the administrator is answered.
func TestControlCrowd(t *testing.T) {
	_, path := serveInert(t)
	var crowd []net.Conn
	for range maxControlConns + 8 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "GET /v1/list HT") // one too many is closed at once
		crowd = append(crowd, conn)
	}
	for i, conn := range crowd[maxControlConns:] {
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("client %d beyond the limit is served: %v", i+1, err)
		}
	}
	for _, conn := range crowd {
		_ = conn.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := dialed(t, path).List(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody is answered after the crowd: %v", err)
		}
	}
}

func TestControlSocketFile(t *testing.T) {
	_, path := serveInert(t)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 || info.Mode()&os.ModeSocket == 0 {
		t.Fatalf("the socket's mode is %v (%v), want 0660", info.Mode(), err)
	}
	log := slog.New(slog.DiscardHandler)
	if _, err := startControl(path, newInert(t), log, false); err == nil || !strings.Contains(err.Error(), "in use by another guard") {
		t.Errorf("a second guard on the socket: %v", err)
	}
	if c, err := startControl(path, newInert(t), log, true); c != nil || err != nil {
		t.Errorf("a dry run beside it: %v, %v; want neither a socket nor an error", c, err)
	}
	long := filepath.Join(filepath.Dir(path), strings.Repeat("x", 100))
	if _, err := startControl(long, newInert(t), log, false); err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("a path that is too long: %v", err)
	}
	left := socketPath(t)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false) // as a killed guard does
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := startControl(left, newInert(t), log, false)
	if err != nil {
		t.Fatalf("a stale socket is not replaced: %v", err)
	}
	if err := c.close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNoGuardIsNoError(t *testing.T) {
	c := VerbConfig{Config: Config{Control: socketPath(t)}}
	if r, err := c.dial(); r != nil || err != nil {
		t.Errorf("dial: %v, %v", r, err)
	}
	err := WithGuard(c, func(*Verb, Daemon) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "no guard is running") || !strings.Contains(err.Error(), c.Control) {
		t.Errorf("WithGuard: %v", err)
	}
}

func TestControlPath(t *testing.T) {
	for _, tc := range []struct{ control, chain, netns, want string }{
		{"", "", "", "/run/netcap-guard/control.sock"},
		{"", "NETCAP", "", "/run/netcap-guard/control.sock"},
		{"", "OTHER", "", "/run/netcap-guard/control-OTHER.sock"},
		{"", "", "blue", "/run/netcap-guard/blue.sock"},
		{"", "OTHER", "/var/run/netns/blue", "/run/netcap-guard/blue-OTHER.sock"},
		{"/tmp/x.sock", "OTHER", "blue", "/tmp/x.sock"},
	} {
		c := Config{Control: tc.control, Chain: tc.chain}
		if got := c.ControlPath(tc.netns); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
}

// TestMayControl: root, the guard's user and its group, and nobody else.
func TestMayControl(t *testing.T) {
	own := &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	for _, tc := range []struct {
		name string
		cred *unix.Ucred
		code int
	}{
		{"root", &unix.Ucred{Pid: 1, Uid: 0, Gid: 12345}, ExitOK},
		{"the guard's user", own, ExitOK},
		{"the guard's group", &unix.Ucred{Pid: 1 << 30, Uid: 12345, Gid: own.Gid}, ExitOK},
		{"a stranger", &unix.Ucred{Pid: 1 << 30, Uid: 12345, Gid: 12345}, ExitFailed},
		{"nobody knows", nil, ExitFailed},
	} {
		ctx := t.Context()
		if tc.cred != nil {
			ctx = context.WithValue(ctx, peerKey{}, tc.cred)
		}
		if err := mayControl(ctx); ExitCode(err) != tc.code {
			t.Errorf("%s: %v, want exit code %d", tc.name, err, tc.code)
		}
	}
	if got := parseGroups("Name:\tx\nGroups:\t4 24 27 \nNStgid:\t1\n"); strings.Join(got, ",") != "4,24,27" {
		t.Errorf("groups %q", got)
	}
}

// FuzzControlRequest: whatever is asked, the answer is JSON, an error says
// what is wrong, and only an accepted request blocks anything.
func FuzzControlRequest(f *testing.F) {
	paths := []string{"block", "unblock", "flush", "list", "show", "whitelist", "whitelist/edit", "stats", "reload", "nonsense"}
	for _, body := range []string{
		`[{"prefix":"192.0.2.1/32","target":"dst","action":"reject","duration":1000000000,"reason":"x","force":true}]`,
		`["192.0.2.0/24","::/0"]`, `"192.0.2.1"`, `{"add":["192.0.2.0/28"],"remove":["::1/128"]}`, `{}`, `null`, `[null]`, `[{}]`, `""`, `[""]`, ``, `[[`,
		`[{"prefix":"::ffff:1.2.3.4/100"}]`, `[{"prefix":"0.0.0.0/0","force":true}]`,
	} {
		for i := range paths {
			f.Add(uint8(i), true, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, isPost bool, body []byte) {
		d := newInert(t)
		c := &control{admin: d}
		method := http.MethodGet
		if isPost {
			method = http.MethodPost
		}
		req := httptest.NewRequest(method, "/v1/"+paths[int(which)%len(paths)], bytes.NewReader(body))
		req = req.WithContext(context.WithValue(t.Context(), peerKey{}, &unix.Ucred{}))
		rec := httptest.NewRecorder()
		c.routes().ServeHTTP(rec, req)
		if !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%s %s: the answer is no JSON: %q", method, req.URL.Path, rec.Body)
		}
		if rec.Code == http.StatusOK {
			return
		}
		var e controlError
		if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil || e.Error == "" || e.Code == ExitOK {
			t.Errorf("%s %s: status %d, error %+v (%v)", method, req.URL.Path, rec.Code, e, err)
		}
		if n := len(d.m.GetActiveBlocks()); n != 0 {
			t.Errorf("%s %s: refused, yet %d blocks", method, req.URL.Path, n)
		}
	})
}
