package demo

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

func TestNames(t *testing.T) {
	for _, tc := range []struct {
		name, line, addr string
		want             bool
	}{
		{"nft element", "\t\telements = { 192.0.2.66 timeout 8s expires 7s988ms comment \"NETCAP: x\" }", "192.0.2.66", true},
		{"nft second element", "\t\t\t     192.0.2.66 timeout 8s,", "192.0.2.66", true},
		{"nft IPv6", "elements = { 2001:db8::66 timeout 8s }", "2001:db8::66", true},
		{"iptables rule", "-A NETCAP -s 192.0.2.66/32 -m comment --comment x -j DROP", "192.0.2.66", true},
		{"ip6tables rule", "-A NETCAP -s 2001:db8::66/128 -j DROP", "2001:db8::66", true},
		{"longer address", "-A NETCAP -s 192.0.2.166/32 -j DROP", "192.0.2.66", false},
		{"address with more digits", "elements = { 192.0.2.66 }", "192.0.2.6", false},
		{"other line", "-N NETCAP", "192.0.2.66", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := names(tc.line, netip.MustParseAddr(tc.addr)); got != tc.want {
				t.Errorf("names(%q, %s) = %v", tc.line, tc.addr, got)
			}
		})
	}
}

func TestComplete(t *testing.T) {
	a := &attack{rule: scanRule}
	for _, tc := range []struct {
		name string
		l    listed
		want bool
	}{
		{"end and comment", listed{lines: []string{`192.0.2.66 timeout 8s expires 7s comment "NETCAP: Block Port Scanner"`}, end: "expires"}, true},
		{"no end", listed{lines: []string{`192.0.2.66 comment "NETCAP: Block Port Scanner"`}, end: "expires"}, false},
		{"other rule", listed{lines: []string{`192.0.2.66 expires 7s comment "NETCAP: Something"`}, end: "expires"}, false},
		{"nothing", listed{end: "expires"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.l.complete(a); got != tc.want {
				t.Errorf("complete(%q) = %v", tc.l.lines, got)
			}
		})
	}
}

func TestUnknownBackend(t *testing.T) {
	if err := Run(t.Context(), Config{Backend: "pf", Out: &bytes.Buffer{}}); !errors.Is(err, ErrBackend) {
		t.Errorf("Run: %v, want ErrBackend", err)
	}
}

func TestParseEvent(t *testing.T) {
	for _, tc := range []struct {
		name string
		line netlab.Line
		want string // the event's type; empty: no event
	}{
		{"alert", netlab.Line{Text: `{"event_type":"alert","src_ip":"192.0.2.66","alert":{"signature":"x"}}`}, "alert"},
		{"action of a permanent block", netlab.Line{Text: `{"event_type":"action","action":{"expires":null}}`}, "action"},
		{"on standard error", netlab.Line{Stderr: true, Text: `{"event_type":"alert"}`}, ""},
		{"no JSON", netlab.Line{Text: "guarding eth0"}, ""},
		{"bad address", netlab.Line{Text: `{"event_type":"alert","src_ip":"nobody"}`}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if e, ok := parseEvent(tc.line); e.Type != tc.want || ok != (tc.want != "") {
				t.Errorf("parseEvent: %+v, %v; want type %q", e, ok, tc.want)
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		name    string
		stage   stage
		failure error
		want    string // part of the error; empty: pass
	}{
		{"all held", stage{checks: 3}, nil, ""},
		{"an expectation failed", stage{checks: 3, failed: []string{"ping"}}, nil, "1 of 3 expectations failed, first: ping"},
		{"an error", stage{}, errors.New("no network"), "no network"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			tc.stage.out = newPrinter(&out)
			err := tc.stage.end(t.Context(), tc.failure)
			if tc.want == "" {
				if err != nil || !strings.Contains(out.String(), "PASS") {
					t.Errorf("end: %v, printed %q", err, out.String())
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(out.String(), "PASS") {
				t.Errorf("end: %v, printed %q; want an error with %q", err, out.String(), tc.want)
			}
		})
	}
}

func TestInterruptedIsNoPass(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir() + "/demo"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := stage{checks: 1, temp: dir, out: newPrinter(&bytes.Buffer{})}
	if err := s.end(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("end: %v, want the context's error", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary folder is still there: %v", err)
	}
}

func TestNoColourWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	newPrinter(&out).check(false, "text")
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("colour codes in %q", out.String())
	}
}
