package backendtest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Ends is implemented by Probers at whose two ends the suite can open sockets
// of its own.
type Ends interface {
	// AtGuard and AtPeer run f on a thread in the guard's or in the peer's
	// namespace.
	AtGuard(f func() error) error
	AtPeer(f func() error) error
}

// streams: what a single probe cannot tell.
func streams(t *testing.T, s Suite, p Prober) {
	ends, ok := p.(Ends)
	if !ok {
		return
	}
	t.Run("established connections stall", func(t *testing.T) {
		for _, f := range families() {
			established(t, s, ends, f)
		}
	})
	t.Run("no unblocked moment", func(t *testing.T) {
		for _, f := range families() {
			unbroken(t, s, ends, f)
		}
	})
}

// conversation is an established TCP connection between the attacker and the
// guard.
type conversation struct{ attacker, guard net.Conn }

func converse(t *testing.T, ends Ends, f family) conversation {
	t.Helper()
	var ln net.Listener
	var c conversation
	err := ends.AtGuard(func() (err error) {
		ln, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(f.guard, "0"))
		return err
	})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer func() { _ = ln.Close() }()
	err = ends.AtPeer(func() (err error) {
		d := dialer(netip.MustParseAddr(f.attacker), false)
		c.attacker, err = d.DialContext(t.Context(), "tcp", ln.Addr().String())
		return err
	})
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	if c.guard, err = ln.Accept(); err != nil {
		t.Fatalf("accept: %v", err)
	}
	t.Cleanup(func() { _, _ = c.attacker.Close(), c.guard.Close() })
	for _, pair := range [][2]net.Conn{{c.attacker, c.guard}, {c.guard, c.attacker}} {
		if !carries(t, pair[0], pair[1], answerLimit) {
			t.Fatal("the connection carries nothing although nothing is blocked")
		}
	}
	return c
}

// silence is how long nothing may arrive on a stalled connection; the kernel
// sends a lost segment again after 200 ms.
const silence = 500 * time.Millisecond

// carries writes a byte at one end and reports whether one arrives at the
// other in time.
func carries(t *testing.T, from, to net.Conn, limit time.Duration) bool {
	t.Helper()
	if err := to.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := from.Write([]byte("x")); err != nil {
		t.Fatalf("write: %v", err)
	}
	_, err := to.Read(make([]byte, 1))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read: %v", err)
	}
	return err == nil
}

// established: a connection from before the block carries nothing in the
// direction that the block covers, and goes on when the block is gone.
func established(t *testing.T, s Suite, ends Ends, f family) {
	for _, target := range []backend.Target{backend.Source, backend.Destination} {
		b := s.start(t)
		c := converse(t, ends, f)
		from, to := c.attacker, c.guard
		if target == backend.Destination {
			from, to = to, from
		}
		one := with(block(f.attacker), func(b *backend.Block) { b.Target = target })
		apply(t, b, add(one))
		if carries(t, from, to, silence) {
			t.Errorf("%s: the connection still carries data", one)
		}
		apply(t, b, remove(one))
		if err := to.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Read(make([]byte, 1)); err != nil {
			t.Errorf("%s: after the block the connection does not go on: %v", one, err)
		}
		closeIt(t, b)
	}
}

// unbroken: a flood never finds a gap while its block is extended, shortened,
// changed in its action and rebuilt.
func unbroken(t *testing.T, s Suite, ends Ends, f family) {
	b := s.start(t)
	fl := startFlood(t, ends, f)
	until(t, answerLimit, "the flood arrives", func() bool { return fl.arrived.Load() > 0 })
	one := block(f.attacker)
	apply(t, b, add(one))
	fl.settle(t)
	before := fl.arrived.Load()
	sent := fl.sent.Load()
	for i := range 30 {
		apply(t, b, add(lasting(one, time.Duration(i+2)*time.Hour)))
		apply(t, b, add(lasting(one, time.Hour))) // longer than any test takes
		apply(t, b, backend.Change{Replaces: true, Add: []backend.Block{lasting(one, 2*time.Hour)}})
		apply(t, b, add(permanent(one)))
		rejected := acting(one, backend.Reject)
		apply(t, b, backend.Change{Remove: []backend.Block{one}, Add: []backend.Block{rejected}})
		apply(t, b, backend.Change{Remove: []backend.Block{rejected}, Add: []backend.Block{one}})
		if s.watcher {
			apply(t, b, backend.Change{Rebuild: true, Add: []backend.Block{one}})
		}
	}
	fl.settle(t)
	if got := fl.arrived.Load() - before; got != 0 {
		t.Errorf("%d of %d packets passed while the block was being replaced", got, fl.sent.Load()-sent)
	}
	apply(t, b, remove(one))
	until(t, answerLimit, "the flood arrives again", func() bool { return fl.arrived.Load() > before })
	fl.stop()
	closeIt(t, b)
}

// flood is the attacker sending datagrams to the guard without a pause.
type flood struct {
	sent, arrived atomic.Int64
	stop          func()
}

func startFlood(t *testing.T, ends Ends, f family) *flood {
	t.Helper()
	fl := new(flood)
	var in net.PacketConn
	var out net.Conn
	err := ends.AtGuard(func() (err error) {
		in, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", net.JoinHostPort(f.guard, "0"))
		return err
	})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	err = ends.AtPeer(func() (err error) {
		d := dialer(netip.MustParseAddr(f.attacker), true)
		out, err = d.DialContext(t.Context(), "udp", in.LocalAddr().String())
		return err
	})
	if err != nil {
		t.Fatalf("connect: %v", errors.Join(err, in.Close()))
	}
	var done sync.WaitGroup
	quit := make(chan struct{})
	done.Go(func() {
		for {
			select {
			case <-quit:
				return
			default: // reject answers surface as errors here: they are wanted
				_, _ = fmt.Fprint(out, "flood")
				fl.sent.Add(1)
			}
		}
	})
	done.Go(func() {
		buf := make([]byte, 64)
		for {
			n, _, err := in.ReadFrom(buf)
			if err != nil {
				return
			}
			if strings.HasPrefix(string(buf[:n]), "flood") {
				fl.arrived.Add(1)
			}
		}
	})
	fl.stop = sync.OnceFunc(func() {
		close(quit)
		_ = in.Close()
		done.Wait()
		_ = out.Close()
	})
	t.Cleanup(fl.stop)
	return fl
}

// settle waits until what was on its way has arrived: a thousand more were
// sent, and none came for a moment.
func (fl *flood) settle(t *testing.T) {
	t.Helper()
	sent, last, calm := fl.sent.Load(), fl.arrived.Load(), 0
	until(t, answerLimit, "the flood is under way", func() bool {
		now := fl.arrived.Load()
		calm++
		if now != last {
			last, calm = now, 0
		}
		return calm > 5 && fl.sent.Load() > sent+1000
	})
}
