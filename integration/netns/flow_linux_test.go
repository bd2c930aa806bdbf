package netns

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// datagram is one that arrived.
type datagram struct{ sent, received time.Time }

// flow is a stream of datagrams that never stops, each with the time of its
// sending, and what of it arrives.
type flow struct {
	name string
	sent atomic.Int64

	mu      sync.Mutex // guards arrived
	arrived []datagram
}

// flowPort is where flows go; nothing else does.
const flowPort = 5005

// startFlow sends a datagram every 5 ms until the test ends.
func startFlow(t *testing.T, name string, from host, at *host, to netip.Addr) *flow {
	t.Helper()
	fl := &flow{name: name}
	var in net.PacketConn
	var out net.Conn
	err := at.Do(func() (err error) {
		in, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", netip.AddrPortFrom(to, flowPort).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = from.Do(func() (err error) {
		out, err = (&net.Dialer{}).DialContext(t.Context(), "udp", netip.AddrPortFrom(to, flowPort).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var both sync.WaitGroup
	both.Go(func() { fl.receive(in) })
	both.Go(func() { fl.send(ctx, out) })
	t.Cleanup(func() {
		cancel()
		_ = in.Close()  // ends receive
		_ = out.Close() // nothing is lost that matters
		both.Wait()
	})
	return fl
}

func (fl *flow) send(ctx context.Context, out net.Conn) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// An error is the answer to an earlier datagram, or the neighbour
			// that cannot be found yet: the next one is sent all the same.
			_, _ = out.Write(binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())))
			fl.sent.Add(1)
		}
	}
}

func (fl *flow) receive(in net.PacketConn) {
	buf := make([]byte, 16)
	for {
		n, _, err := in.ReadFrom(buf)
		now := time.Now()
		if err != nil {
			return
		}
		if n == 8 {
			fl.mu.Lock()
			fl.arrived = append(fl.arrived, datagram{time.Unix(0, int64(binary.BigEndian.Uint64(buf))), now})
			fl.mu.Unlock()
		}
	}
}

// since returns the first and the last of what arrived that was sent after a
// moment, and how many there were.
func (fl *flow) since(moment time.Time) (first, last datagram, n int) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, d := range fl.arrived {
		if d.sent.After(moment) {
			if n == 0 {
				first = d
			}
			last = d
			n++
		}
	}
	return first, last, n
}

// more waits until another n datagrams have been sent, so that the earlier
// ones have arrived or never will.
func (fl *flow) more(t *testing.T, n int64) {
	t.Helper()
	until := fl.sent.Load() + n
	eventually(t, "more of "+fl.name+" is sent", func() bool { return fl.sent.Load() >= until })
}

// mustPass checks that datagrams sent from now on arrive.
func (fl *flow) mustPass(t *testing.T, when string) {
	t.Helper()
	now := time.Now()
	eventually(t, fl.name+" arrives "+when, func() bool { _, _, n := fl.since(now); return n > 0 })
}

// mustStop checks that of the datagrams sent from now on none arrives.
func (fl *flow) mustStop(t *testing.T, when string) {
	t.Helper()
	now := time.Now()
	fl.more(t, 40)
	if _, _, n := fl.since(now); n > 0 {
		t.Errorf("%s: %d datagrams of %s arrived", when, n, fl.name)
	}
}
