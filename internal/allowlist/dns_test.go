package allowlist

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// Response codes and the type of DNS (RFC 1035).
const (
	success, servfail, nxdomain = 0, 2, 3
	typeA                       = 1
)

// serve answers DNS questions on loopback until the test ends and returns a
// resolver that asks there. answer says for the first label of the name and the
// type asked for the response code and the addresses; code -1: no response.
func serve(t *testing.T, answer func(label string, typ uint16) (code int, addrs []netip.Addr)) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := respond(buf[:n], answer); reply != nil {
				if _, err := conn.WriteTo(reply, from); err != nil {
					t.Errorf("respond: %v", err)
				}
			}
		}
	}()
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func respond(query []byte, answer func(string, uint16) (int, []netip.Addr)) []byte {
	const header = 12
	end := header + bytes.IndexByte(query[header:], 0) + 5
	label := string(query[header+1 : header+1+int(query[header])])
	code, addrs := answer(label, binary.BigEndian.Uint16(query[end-4:]))
	if code < 0 {
		return nil
	}
	out := slices.Clone(query[:2])
	out = binary.BigEndian.AppendUint16(out, 0x8180|uint16(code)) // a response, recursion desired and available
	for _, count := range []int{1, len(addrs), 0, 0} {
		out = binary.BigEndian.AppendUint16(out, uint16(count))
	}
	out = append(out, query[header:end]...)
	for _, a := range addrs {
		out = append(out, 0xc0, header) // the name asked for
		out = append(out, query[end-4:end]...)
		out = binary.BigEndian.AppendUint32(out, 60)
		out = binary.BigEndian.AppendUint16(out, uint16(a.BitLen()/8))
		out = append(out, a.AsSlice()...)
	}
	return out
}

// TestStandardResolver: what the resolver of the standard library says of real
// responses is understood.
func TestStandardResolver(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	r := serve(t, func(label string, typ uint16) (int, []netip.Addr) {
		is4 := typ == typeA
		switch {
		case label == "both" && is4, label == "half" && is4, label == "only4" && is4, label == "hang" && is4:
			return success, []netip.Addr{four}
		case label == "both":
			return success, []netip.Addr{six}
		case label == "half":
			return servfail, nil
		case label == "hang":
			return -1, nil
		case label == "only4":
			return success, nil
		case label == "broken":
			return servfail, nil
		}
		return nxdomain, nil
	})
	failed := errors.New("any")
	for _, tt := range []struct {
		name   string
		want   string // addresses; - = has none; ! = nothing is known
		failed error
	}{
		{"both", "[192.0.2.1] [2001:db8::1]", nil},
		{"only4", "[192.0.2.1] -", nil},
		{"half", "[192.0.2.1] !", failed},
		{"hang", "[192.0.2.1] !", failed},
		{"broken", "! !", failed},
		{"absent", "- -", errNoAddress},
	} {
		t.Run(tt.name, func(t *testing.T) {
			timeout := 20 * time.Second
			if tt.name == "hang" {
				timeout = 2 * time.Second // enough for the family that answers
			}
			got := resolve(t.Context(), r, tt.name+".example.", timeout, 10)
			show := func(a answer) string {
				switch {
				case a.err != nil:
					return "!"
				case a.none:
					return "-"
				}
				return fmt.Sprint(a.addrs)
			}
			if s := show(got[0]) + " " + show(got[1]); s != tt.want {
				t.Errorf("got %s, want %s (%v)", s, tt.want, got.failure())
			}
			if err := got.failure(); (err == nil) != (tt.failed == nil) || errors.Is(tt.failed, errNoAddress) && !errors.Is(err, errNoAddress) {
				t.Errorf("failure %v, want %v", err, tt.failed)
			}
		})
	}
}
