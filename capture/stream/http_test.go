package stream_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

// dialogue is a catcher that notes HTTP records in a line each.
type dialogue struct{ lines []string }

func (d *dialogue) Record(set *record.Set) {
	r := &set.HTTP
	if !set.Have.Has(record.TypeHTTP) {
		d.lines = append(d.lines, "another record")
		return
	}
	side := "unconfirmed"
	if set.Confirmed {
		side = "confirmed"
	}
	if r.IsResponse {
		d.lines = append(d.lines, strings.Clone(fmt.Sprintf("%v %s %d %s", set.Src, side, r.StatusCode, r.Server)))
		return
	}
	d.lines = append(d.lines, strings.Clone(fmt.Sprintf("%v %s %s %s %s", set.Src, side, r.Method, r.URL, r.Host)))
}

func TestHTTPDialogues(t *testing.T) {
	e := web()
	const (
		get  = "192.0.2.1 confirmed GET / a"
		get2 = "192.0.2.1 confirmed GET /2 a"
		ok   = "198.51.100.2 confirmed 200 x"
	)
	long := strings.Repeat("z", 9000)
	for name, tt := range map[string]struct {
		up, down string
		want     []string
	}{
		"one": {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 3\r\n\r\nabc", []string{get, ok}},
		"pipelined, with bodies": {
			"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /no HTTP/1.1\r\nHost: a\r\nGET /2 HTTP/1.1\r\nhost:a\r\n\r\n",
			"", []string{"192.0.2.1 confirmed POST /1 a", get2}},
		"chunked": {
			"POST /1 HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n5;x=y\r\nGET /\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n" +
				"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n", "", []string{"192.0.2.1 confirmed POST /1 a", get2}},
		"long lines between chunks": {
			"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;" + long + "\r\nGET /\r\n0000000000;" + long + "\r\nTrailer: " +
				long + "\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", "", []string{"192.0.2.1 confirmed POST /1 a", get2}},
		"folded header lines": {
			"POST /1 HTTP/1.1\r\nHost:\r\n a\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
			"", []string{"192.0.2.1 confirmed POST /1 a", get2}},
		"a length behind hundreds of header lines": {
			"POST /1 HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 600) + "Content-Length: 20\r\n\r\nGET /no HTTP/1.1\r\n\r\n" +
				"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n", "", []string{"192.0.2.1 confirmed POST /1 a", get2}},
		"answer to HEAD has no body": {"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 30\r\n\r\nHTTP/1.0 404 No\r\nServer: y\r\nContent-Length: 0\r\n\r\n",
			[]string{"192.0.2.1 confirmed HEAD / a", get2, ok, "198.51.100.2 confirmed 404 y"}},
		"continue": {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\n\r\nHTTP/1.1 500 No\r\n\r\n",
			[]string{get, "198.51.100.2 confirmed 100 ", ok}},
		"simple request":     {"GET /x\r\n", "", []string{"192.0.2.1 confirmed GET /x "}},
		"empty lines before": {"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "", []string{get}},
		"many of them":       {strings.Repeat("\r\n", 100) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", []string{get}},
		"another version":    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", nil},
		"another protocol":   {"EHLO example\r\nMAIL FROM:<x>\r\n", "220 hello\r\n", nil},
		"a method unknown":   {"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", "", []string{"192.0.2.1 confirmed BREW /pot a"}},
		"blanks in the target": {"GET /a' union select 1 HTTP/1.1\r\nHost: a\r\n\r\n", "",
			[]string{"192.0.2.1 confirmed GET /a' union select 1 a"}},
		"a tunnel ends HTTP": {"CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n\x00\x01GET /no HTTP/1.1\r\n\r\n",
			"HTTP/1.1 200 Go\r\nServer: x\r\n\r\n\x00noise", []string{"192.0.2.1 confirmed CONNECT b:443 a", ok}},
	} {
		t.Run(name, func(t *testing.T) {
			var want record.Want
			want.Add(record.TypeHTTP)
			for _, step := range []int{1, 2, 3, 7, 1 << 20} {
				d := &dialogue{}
				table := stream.New(want, d, stream.Config{})
				for _, p := range e.open() {
					table.Segment(p.set(), false)
				}
				for i := 0; i < len(tt.up); i += step {
					table.Segment(e.up(i, tt.up[i:min(i+step, len(tt.up))]).set(), false)
				}
				for i := 0; i < len(tt.down); i += step {
					table.Segment(e.down(i, tt.down[i:min(i+step, len(tt.down))]).set(), false)
				}
				if fmt.Sprint(d.lines) != fmt.Sprint(tt.want) {
					t.Errorf("in steps of %d:\n%q, want\n%q", step, d.lines, tt.want)
				}
				if s := table.Stats(); s.Bytes != 0 {
					t.Errorf("in steps of %d: %d bytes are kept", step, s.Bytes)
				}
			}
		})
	}
}
