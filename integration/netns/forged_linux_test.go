package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

const injectRule = "Block SQL Injection Attempts"

// forger sends segments of connections that are not its own over a wire.
type forger struct {
	w          wire
	from, to   net.HardwareAddr
	s          *nstest.Sender
	clientPort uint16
}

func newForger(t *testing.T, w wire) *forger {
	t.Helper()
	mac := func(h host) (hw net.HardwareAddr) {
		err := h.Do(func() error {
			i, err := net.InterfaceByName("eth0")
			if err == nil {
				hw = i.HardwareAddr
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return hw
	}
	return &forger{w: w, from: mac(w.from), to: mac(w.to), s: w.sender(t), clientPort: 40000}
}

// says sends a segment of the client's to the server's port 80, or back.
func (f *forger) says(t *testing.T, client netip.Addr, back bool, flags byte, seq, ack uint32, data string) {
	t.Helper()
	packet := ipPacket(client, f.w.to.v4, 6, segmentOf(f.clientPort, 80, flags, seq, ack, data))
	if back {
		packet = ipPacket(f.w.to.v4, client, 6, segmentOf(80, f.clientPort, flags, seq, ack, data))
	}
	sum(packet[:20], packet[10:12], 0)
	// The pseudo header: addresses, protocol and length.
	sum(packet[12:], packet[36:38], uint32(6+len(packet)-20))
	frame := ether("\x08\x00", packet)
	copy(frame, f.to)
	copy(frame[6:], f.from)
	if err := f.s.Send(frame); err != nil {
		t.Fatal(err)
	}
}

// sum puts the Internet checksum of b and what is added to it into at, which
// is zero before.
func sum(b, at []byte, more uint32) {
	for i, c := range b {
		more += uint32(c) << (8 * (1 - i%2))
	}
	for more > 0xffff {
		more = more>>16 + more&0xffff
	}
	at[0], at[1] = ^byte(more>>8), ^byte(more)
}

// ways are how to send a request in the name of another who is not seen to
// answer.
func (f *forger) ways(t *testing.T) []func(client netip.Addr, request string) {
	alone := func(client netip.Addr, request string) {
		f.says(t, client, false, flagACK, 101, 501, request)
	}
	guessed := func(client netip.Addr, request string) { // the server's number
		f.says(t, client, false, flagSYN, 100, 0, "")
		f.says(t, client, false, flagACK, 101, 501, "")
		f.says(t, client, false, flagACK, 101, 501, request)
	}
	answered := func(client netip.Addr, request string) { // in the server's name, too
		f.says(t, client, false, flagSYN, 100, 0, "")
		f.says(t, client, true, flagSYN|flagACK, 500, 101, "")
		f.says(t, client, false, flagACK, 101, 501, "")
		f.says(t, client, false, flagACK, 101, 501, request)
		f.says(t, client, true, flagACK, 501, 101+uint32(len(request)), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
	before := func(client netip.Addr, request string) { // the answer before what it answers
		f.says(t, client, true, flagSYN|flagACK, 500, 101, "")
		f.says(t, client, false, flagSYN, 100, 0, "")
		f.says(t, client, false, flagACK, 101, 501, request)
	}
	return []func(netip.Addr, string){alone, guessed, answered, before}
}

// TestForgedRequests: segments on the wire never have the address blocked that
// they name, however much of a connection is forged. Who makes a connection
// of his own and asks the same is blocked. With a rule that does not care for
// the handshake a request alone has, which shows that what is sent here is
// taken for one; a handshake that the server contradicts is not even then.
func TestForgedRequests(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(shipped(t))
	if err != nil {
		t.Fatal(err)
	}
	careless := strings.ReplaceAll(string(text), "type: HTTP\n", "type: HTTP\n    confirmed: false\n")
	for name, tt := range map[string]struct {
		rules    string
		careless bool
	}{"shipped rules": {shipped(t), false}, "rules with confirmed: false": {write(t, "rules.yml", careless), true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFlavour(t, "nft")
			w := newWire(t)
			webServer(t, w.to)
			forger := newForger(t, w)
			g := startGuard(t, f, w.to.NS, tt.rules)
			var named []netip.Addr
			for _, forge := range forger.ways(t) {
				client := netip.AddrFrom4([4]byte{192, 0, 2, byte(101 + len(named))})
				named = append(named, client)
				// The named host is there, and keeps silent: what the server
				// answers it goes out.
				nstest.Run(t, w.to.NS, "ip", "neigh", "add", client.String(), "lladdr", forger.from.String(), "dev", "eth0")
				for range 5 {
					forger.clientPort++
					forge(client, "GET /item?id=1+union+select+2 HTTP/1.1\r\nHost: a\r\n\r\n")
				}
			}
			// His own connection, after the forged ones.
			w.from.run(t, "curl", "-sS", fmt.Sprintf("http://%s/item?id=[1-5]+union+select+2", w.to.v4))
			g.mustBlock(t, w.from.v4, injectRule)
			accused := []netip.Addr{w.from.v4}
			if tt.careless {
				g.mustBlock(t, named[0], injectRule)
				accused = append(accused, named[0])
			}
			g.mustAccuse(t, accused...)
			g.end(t)
		})
	}
}
