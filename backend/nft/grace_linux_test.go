package nft_test

import (
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// slowRules is how many rules a packet has to go through between two of our
// sets: about a tenth of a millisecond's worth, more than a transaction takes.
const slowRules = 20_000

// TestSlowPacket: a packet that takes longer from one set to the next than two
// transactions take finds its block in one of them, in whichever direction the
// block goes.
func TestSlowPacket(t *testing.T) {
	if !beside(t, "") {
		return
	}
	nstest.Tool(t, "nft")
	peer, _ := network(t)
	b := start(t, nft.Config{})
	drop, reject := permanent(block(t, attacker, backend.Drop)), permanent(block(t, attacker, backend.Reject))
	apply(t, b, backend.Change{Add: []backend.Block{drop, reject}})
	apply(t, b, backend.Change{Remove: []backend.Block{reject}})
	found := regexp.MustCompile(`@reject_src4_32 .*# handle (\d+)`).FindStringSubmatch(run(t, "-a", "list", "chain", "inet", "NETCAP", "source"))
	if found == nil {
		t.Fatal("no rule for the rejected")
	}
	load(t, strings.Repeat("insert rule inet NETCAP source handle "+found[1]+" meta mark 1 meta mark 2\n", slowRules))

	sent, passed := floodFrom(t, peer, attacker)
	now, other := drop, reject
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		apply(t, b, backend.Change{Remove: []backend.Block{now}, Add: []backend.Block{other}})
		now, other = other, now
	}
	for before := sent.Load(); sent.Load() < before+10; { // what was under way has arrived
		time.Sleep(time.Millisecond)
	}
	if got := passed.Load(); got != 0 {
		t.Errorf("%d of %d packets passed while the action changed", got, sent.Load())
	}
}

// floodFrom sends datagrams from the peer to the guard until the test ends and
// counts those sent and those that arrived.
func floodFrom(t *testing.T, peer *netlab.NS, from string) (sent, arrived *atomic.Int64) {
	t.Helper()
	sent, arrived = new(atomic.Int64), new(atomic.Int64)
	in, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", net.JoinHostPort(backendtest.Guard4, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var out net.PacketConn
	if err := peer.Do(func() error {
		out, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(from), 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	quit := make(chan struct{})
	done.Go(func() {
		for {
			select {
			case <-quit:
				return
			default: // a reject answer is an error here, and wanted
				_, _ = out.WriteTo([]byte("x"), in.LocalAddr())
				sent.Add(1)
			}
		}
	})
	done.Go(func() {
		buf := make([]byte, 64)
		for {
			if _, _, err := in.ReadFrom(buf); err != nil {
				return
			}
			arrived.Add(1)
		}
	})
	t.Cleanup(func() {
		close(quit)
		_ = in.Close()
		done.Wait()
		_ = out.Close()
	})
	return sent, arrived
}
