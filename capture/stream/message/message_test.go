package message_test

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/stream/message"
	"github.com/netcap-guard/netcap-guard/record"
)

func everything() record.Want {
	var w record.Want
	for _, t := range []record.Type{record.TypeHTTP, record.TypeSSH, record.TypeTLSClientHello, record.TypeTLSServerHello} {
		typ := reflect.TypeOf(t.New()).Elem()
		for i := range typ.NumField() {
			w.Add(t, typ.Field(i).Name)
		}
	}
	return w
}

func parser() *message.Parser {
	p := &message.Parser{}
	p.SetWant(everything())
	return p
}

func header() *record.Header {
	return &record.Header{Time: 7, Proto: 6, Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("198.51.100.2"), SrcPort: 40000, DstPort: 80}
}

func TestRequestFields(t *testing.T) {
	head := "POST /a%27b?x=1&y=%20&x=2 HTTP/1.1\r\nHOST: shop.example\r\nUser-Agent:  me \r\nReferer: r\r\nCookie: a=1; b=\"2\"\r\n" +
		"Content-Type: text/plain\r\nContent-Length: 12\r\nContent-Encoding: gzip\r\nAuthorization: Basic eDp5\r\n" +
		"X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 203.0.113.2\r\nX-Real-IP: 203.0.113.3\r\nX-Twice: 1\r\nx-twice: 2\r\n\r\n"
	var got record.HTTP
	f := parser().HTTP([]byte(head), header(), &got)
	want := record.HTTP{
		Timestamp: 7, Proto: "HTTP/1.1", Method: "POST", Host: "shop.example", UserAgent: "me", Referer: "r",
		ReqCookies:       []*record.HTTPCookie{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}},
		ReqContentLength: 12, URL: "/a%27b?x=1&y=%20&x=2", URLDecoded: "/a'b?x=1&y= &x=2", ContentType: "text/plain",
		SrcIP: "192.0.2.1", DstIP: "198.51.100.2", SrcPort: 40000, DstPort: 80, ReqContentEncoding: "gzip",
		RequestHeader: map[string]string{"Host": "shop.example", "User-Agent": "me", "Referer": "r", "Cookie": "a=1; b=\"2\"",
			"Content-Type": "text/plain", "Content-Length": "12", "Content-Encoding": "gzip", "Authorization": "Basic eDp5",
			"X-Forwarded-For": "203.0.113.1, 203.0.113.2", "X-Real-Ip": "203.0.113.3", "X-Twice": "1, 2"},
		Parameters: map[string]string{"x": "1", "y": " "}, Flow: "192.0.2.1:40000->198.51.100.2:80", AuthorizationType: "Basic",
		XForwardedFor: "203.0.113.1, 203.0.113.2", XRealIP: "203.0.113.3", CommunityID: header().CommunityID(),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !f.OK || f.Chunked || !f.HasLength || f.Length != 12 || f.Method != message.OtherMethod {
		t.Errorf("framing %+v", f)
	}
}

func TestAnswerFields(t *testing.T) {
	head := "HTTP/1.0 302 Found\nServer: x/1\nX-Powered-By: y\nContent-Type: text/html\nContent-Length: 5\nTransfer-Encoding: gzip, Chunked\n" +
		"Strict-Transport-Security: max-age=1\nContent-Security-Policy: c\nX-Content-Type-Options: nosniff\nX-Frame-Options: DENY\n" +
		"X-XSS-Protection: 0\nReferrer-Policy: no\nAccess-Control-Allow-Origin: *\nServer-Timing: z\nContent-Encoding: br\n" +
		"Set-Cookie: id=5; Path=/; Domain=d; Max-Age=60; Expires=Wed, 21 Oct 2015 07:28:00 GMT; Secure; HttpOnly; SameSite=Strict\n\n"
	var got record.HTTP
	f := parser().HTTP([]byte(head), header(), &got)
	got.ResponseHeader = nil
	want := record.HTTP{
		Timestamp: 7, Proto: "HTTP/1.0", StatusCode: 302, IsResponse: true, Server: "x/1", ServerName: "x/1", XPoweredBy: "y",
		ResContentType: "text/html", ResContentLength: 5, ResContentEncoding: "br", StrictTransportSecurity: "max-age=1",
		ContentSecurityPolicy: "c", XContentTypeOptions: "nosniff", XFrameOptions: "DENY", XXSSProtection: "0", ReferrerPolicy: "no",
		AccessControlAllowOrigin: "*", HasServerTiming: true, SrcIP: "192.0.2.1", DstIP: "198.51.100.2", SrcPort: 40000, DstPort: 80,
		ResCookies: []*record.HTTPCookie{{Name: "id", Value: "5", Path: "/", Domain: "d", MaxAge: 60, Expires: 1445412480, Secure: true,
			HttpOnly: true, SameSite: 3}},
		Flow: "192.0.2.1:40000->198.51.100.2:80", CommunityID: header().CommunityID(),
	}
	if !reflect.DeepEqual(got, want) || !f.OK || !f.Chunked {
		t.Errorf("got  %+v\nwant %+v\n%+v", got, want, f)
	}
}

func TestRequestLine(t *testing.T) {
	for line, want := range map[string]message.Answer{
		"GET / HTTP/1.1\r\n": message.Yes, "GET /": message.Yes, "GET": message.Perhaps, "GET /x\r\n": message.Yes,
		"BREW / HTTP/1.1\n": message.Yes, "BREW /": message.Perhaps, "EHLO x\r\n": message.No, "USER root\r\n": message.No,
		"OPTIONS rtsp://a RTSP/1.0\r\n": message.No, "PRI * HTTP/2.0\r\n": message.No, "get / HTTP/1.1\r\n": message.Yes, "GET / http/1.0\r\n": message.Yes, "x.y /a.php HTTP/1.1\n": message.Yes, "(x) / HTTP/1.1\n": message.No, "\x00": message.No,
		strings.Repeat("A", 40): message.Perhaps, strings.Repeat("A", 9000): message.No, "POST /" + strings.Repeat("x", 1<<17): message.Yes, "BREW /" + strings.Repeat("x", 1<<17): message.No, "GET  / HTTP/1.1": message.Perhaps,
	} {
		if got := message.RequestLine([]byte(line)); got != want {
			t.Errorf("%q: %d, want %d", line, got, want)
		}
	}
}

func TestChunkSize(t *testing.T) {
	for line, want := range map[string]uint64{"0": 0, "1a": 26, "FF;x=y": 255, "10 ": 16, "fffffffffffffff": 1<<60 - 1} {
		if got, ok := message.ChunkSize([]byte(line)); !ok || got != want {
			t.Errorf("%q: %d, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", ";x", "x", "-1", "1ffffffffffffffff", "0x10"} {
		if got, ok := message.ChunkSize([]byte(line)); ok {
			t.Errorf("%q: %d", line, got)
		}
	}
}

// TestJA4 is the example of the fingerprint's specification: a Chrome with 15
// ciphers and 16 extensions.
func TestJA4(t *testing.T) {
	word := func(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var exts []byte
	for _, e := range []struct{ kind, data string }{
		{"7a7a", ""}, {"001b", "020002"}, {"0000", "000c 00 0009 612e6578616d706c65"}, {"0033", ""}, {"0010", "000c 02 6832 08 687474702f312e31"},
		{"4469", ""}, {"0017", ""}, {"002d", ""}, {"000d", "0010 0403 0804 0401 0503 0805 0501 0806 0601"}, {"0005", ""}, {"0023", ""},
		{"0012", ""}, {"002b", "06 fafa 0304 0303"}, {"ff01", ""}, {"000b", "0100"}, {"000a", "0008 eaea 001d 0017 0018"}, {"0015", "00"},
	} {
		exts = append(append(exts, unhex(e.kind)...), word(unhex(e.data))...)
	}
	ciphers := unhex("1a1a 1301 1302 1303 c02b c02f c02c c030 cca9 cca8 c013 c014 009c 009d 002f 0035")
	body := append(append(unhex("0303"), make([]byte, 32)...), 0)
	body = append(append(append(body, word(ciphers)...), 1, 0), word(exts)...)
	msg := append([]byte{message.ClientHello, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	var r record.TLSClientHello
	if !parser().ClientHello(msg, header(), &r) {
		t.Fatal("cannot be read")
	}
	if r.Ja4 != "t13d1516h2_8daaf6152771_e5627efa2ab1" {
		t.Errorf("JA4 %s", r.Ja4)
	}
	if r.SNI != "a.example" || !reflect.DeepEqual(r.ALPNs, []string{"h2", "http/1.1"}) || r.Version != 0x303 || r.HandshakeVersion != 0x304 ||
		len(r.CipherSuites) != 16 || r.ExtensionCount != 17 || !r.HasGreaseExtensions || r.IsSuspiciousCipherOrder || len(r.SupportedGroups) != 4 {
		t.Errorf("%+v", r)
	}
	for n := range msg { // no truncation panics, and one in the fixed part is an error
		if ok := parser().ClientHello(msg[:n], header(), &r); ok && n < 4+2+32+1+2+len(ciphers)+2 {
			t.Errorf("%d of %d bytes are taken for a hello", n, len(msg))
		}
	}
}

func TestSSH(t *testing.T) {
	var kex bytes.Buffer
	kex.WriteString("\x04\x14" + strings.Repeat("c", 16))
	for _, l := range []string{"kex", "host", "enc-up", "enc-down", "mac-up", "mac-down", "none", "zlib", "", ""} {
		kex.Write([]byte{0, 0, 0, byte(len(l))})
		kex.WriteString(l)
	}
	packet := append([]byte{0, 0, 0, byte(kex.Len())}, kex.Bytes()...)
	var r record.SSH
	for _, tt := range []struct {
		client bool
		want   string
	}{
		{true, "kex;enc-up;mac-up;none"},
		{false, "kex;enc-down;mac-down;zlib"},
	} {
		if !parser().SSH([]byte("SSH-2.0-x y\r\n"), packet, tt.client, header(), &r) {
			t.Fatal("cannot be read")
		}
		sum := md5.Sum([]byte(tt.want))
		if r.Algorithms != tt.want || r.HASSH != hex.EncodeToString(sum[:]) || r.Ident != "SSH-2.0-x y" || r.IsClient != tt.client || r.DstPort != 80 {
			t.Errorf("%+v", r)
		}
	}
	for n := range packet[:30] {
		if parser().SSH([]byte("SSH-2.0-x\n"), packet[:n], true, header(), &r) {
			t.Errorf("%d bytes are taken for an offer", n)
		}
	}
}

// TestMethods: what may stand in a method is what may stand in a token.
func TestMethods(t *testing.T) {
	const tokens = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for c := range 256 {
		want := message.No
		if strings.IndexByte(tokens, byte(c)) >= 0 {
			want = message.Yes
		}
		if got := message.RequestLine(append([]byte{byte(c)}, " / HTTP/1.1\n"...)); got != want {
			t.Errorf("%#x: %d, want %d", c, got, want)
		}
	}
}

// TestManyHeaderLines: what a head costs grows with its length, and the line
// that matters may be the last.
func TestManyHeaderLines(t *testing.T) {
	value := strings.Repeat("v", 200)
	head := "GET / HTTP/1.1\r\n" + strings.Repeat("X-Forwarded-For: "+value+"\r\nX: "+value+"\r\n", 150) +
		"X-Forwarded-For: 192.0.2.9\r\nContent-Length:\r\n  7\r\n\r\n"
	p := parser()
	var r record.HTTP
	f := p.HTTP([]byte(head), header(), &r)
	if f.Length != 7 || !strings.HasSuffix(r.XForwardedFor, ", "+value+", 192.0.2.9") || len(r.XForwardedFor) != 150*202+9 {
		t.Errorf("%+v, %d bytes of X-Forwarded-For", f, len(r.XForwardedFor))
	}
	if got := r.RequestHeader["X"]; got != strings.Repeat(value+", ", 127)+value {
		t.Errorf("%d bytes of X", len(got))
	}
	var before, after runtime.MemStats
	const rounds = 20
	runtime.ReadMemStats(&before)
	for range rounds {
		p.HTTP([]byte(head), header(), &r)
	}
	runtime.ReadMemStats(&after)
	if n := int(after.TotalAlloc-before.TotalAlloc) / rounds; n > 4*len(head) {
		t.Errorf("%d bytes allocated for a head of %d", n, len(head))
	}
}

// TestHeadEndInSteps: however much was looked at before, the end is the same.
func TestHeadEndInSteps(t *testing.T) {
	for _, head := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", "A\n\nrest", "GET /x\r\nrest", "A\r\nB\r\n\nrest", "A\nB\n\r\nrest", "A\n\r"} {
		stepwise(t, []byte(head))
	}
}

func stepwise(t *testing.T, data []byte) {
	whole := message.HeadEnd(data, 0)
	scanned := 0
	for n := 1; n <= len(data); n++ {
		end := message.HeadEnd(data[:n], scanned)
		if end >= 0 {
			if end != whole {
				t.Fatalf("%q: in steps %d, at once %d", data, end, whole)
			}
			return
		}
		scanned = max(n-3, 0)
	}
	if whole >= 0 {
		t.Fatalf("%q: at once %d, in steps none", data, whole)
	}
}

// FuzzMessages: nothing panics on any bytes, and what is read stays inside them.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Expires=x; Max-Age=9\r\n\r\n"))
	f.Add([]byte("SSH-2.0-x\r\n\x00\x00\x00\x20\x04\x14cccccccccccccccc\x00\x00\x00\x01a"))
	f.Add([]byte("\x01\x00\x00\x30\x03\x03rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr\x00\x00\x02\x13\x01\x01\x00\x00\x05\x00\x10\x00\x01\x00"))
	f.Add([]byte("\x02\x00\x00\x30\x03\x03rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr\x00\x13\x01\x00\x00\x06\x00\x2b\x00\x02\x03\x04"))
	p := parser()
	f.Fuzz(func(t *testing.T, data []byte) {
		var set, full record.Set
		set.Header = *header()
		stepwise(t, data)
		message.RequestLine(data)
		message.ChunkSize(data)
		p.HTTP(data, &set.Header, &set.HTTP)
		line, packet, _ := bytes.Cut(data, []byte("\n"))
		p.SSH(line, packet, len(data)&1 == 0, &set.Header, &set.SSH)
		p.ClientHello(data, &set.Header, &set.ClientHello)
		p.ServerHello(data, &set.Header, &set.ServerHello)
		for _, typ := range []record.Type{record.TypeHTTP, record.TypeSSH, record.TypeTLSClientHello, record.TypeTLSServerHello} {
			set.Late = len(data)&2 == 0
			full.Header = set.Header
			p.Full(typ, data, &set, &full)
			full.Snapshot(typ)
		}
		if h := &set.HTTP; len(h.URL)+len(h.Method)+len(h.Host)+len(h.UserAgent) > len(data) || len(h.URLDecoded) > len(h.URL) {
			t.Fatalf("more than there is: %+v", h)
		}
	})
}
