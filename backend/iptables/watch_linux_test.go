package iptables

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// TestWatch: one event each interval, none before it, and nothing after ctx.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBackend(t, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var at []time.Duration
		begin := time.Now()
		ready, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- b.Watch(ctx, ready, func(e backend.Event) {
				if e.Kind != backend.Look || e.Reason != "time to look" || len(e.Keys) != 0 || e.By != "" {
					t.Errorf("event %+v", e)
				}
				at = append(at, time.Since(begin))
			})
		}()
		<-ready
		time.Sleep(35 * time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("watch: %v", err)
		}
		time.Sleep(time.Minute)
		if len(at) != 3 || at[0] != 10*time.Second || at[2] != 30*time.Second {
			t.Errorf("events after %v, want every 10 s for 35 s", at)
		}
	})
}

// TestWatchSlowly: what takes longer than the interval does not pile up.
func TestWatchSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBackend(t, Config{CheckInterval: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), 61*time.Second)
		defer cancel()
		n := 0
		err := b.Watch(ctx, nil, func(backend.Event) {
			n++
			time.Sleep(10 * time.Second)
		})
		if err != nil || n < 6 || n > 7 {
			t.Errorf("%d events in a minute, %v", n, err)
		}
	})
}

// TestWatchBeside: a Watch runs beside everything else that a Backend does
// (the race detector is the judge), and what it calls may use the Backend.
func TestWatchBeside(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		b, _ := start(t, Config{Variant: v, CheckInterval: time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		looks, ended := make(chan struct{}, 1000), make(chan error, 1)
		go func() { ended <- b.Watch(ctx, nil, func(backend.Event) { looks <- struct{}{} }) }()
		one := fresh("192.0.2.1", backend.Drop)
		for range 5 {
			<-looks
			apply(t, b, add(one))
			if n := count(t, b); n != 1 {
				t.Errorf("%d blocks, want 1", n)
			}
			apply(t, b, backend.Change{Rebuild: true})
			if err := b.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// counting makes every program of a variant write its name into a file, and
// returns what reads the names and begins anew.
func counting(t *testing.T, v string) func() []string {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	for _, tool := range tools() {
		wrap(t, dir, tool, v, `echo `+tool+` "$@" >> `+log)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		text, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.WriteFile(log, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
}

// TestLookupCounts: packets are counted exactly, over all rules of a block, and
// one listing a family answers for every key.
func TestLookupCounts(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		ran := counting(t, v)
		b, _ := start(t, Config{})
		in, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = in.Close() }()
		host, wide := fresh("127.0.0.2", backend.Drop), fresh("127.1.0.0/16", backend.Drop)
		permanent, six := fresh("198.51.100.0/24", backend.Reject), fresh("2001:db8::1", backend.RejectReset)
		permanent.ExpiresAt = time.Time{}
		var holes []netip.Prefix
		for i := range maxHoles + 1 { // so many that the block has two rules
			holes = append(holes, netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 1, byte(i), 9}), 32))
		}
		apply(t, b, backend.Change{Add: []backend.Block{host, wide, permanent, six}, Allow: &holes})
		for from, n := range map[string]int{"127.0.0.2": 7, "127.1.0.1": 3, "127.1.200.1": 4, "127.1.3.9": 2} {
			out, err := dialFrom(from, in.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			for range n {
				_, _ = out.Write([]byte("x")) // EPERM: our own OUTPUT chain drops it
			}
			_ = out.Close()
		}
		ran()
		unknown := fresh("127.0.0.3", backend.Drop)
		got, err := b.Lookup(t.Context(), []backend.Key{six.Key, unknown.Key, host.Key, wide.Key, permanent.Key})
		if err != nil || len(got) != 5 {
			t.Fatalf("lookup: %v, %v", got, err)
		}
		if runs := ran(); len(runs) != 2 {
			t.Errorf("ran %q, want one listing a family", runs)
		}
		for i, want := range []backend.Status{
			{Key: six.Key, Found: true, Action: backend.RejectReset, HasPackets: true},
			{Key: unknown.Key},
			{Key: host.Key, Found: true, HasPackets: true, Packets: 7},
			{Key: wide.Key, Found: true, HasPackets: true, Packets: 7},
			{Key: permanent.Key, Found: true, Action: backend.Reject, Permanent: true, HasPackets: true},
		} {
			left := got[i].Remaining
			got[i].Remaining = 0
			timed := want.Found && !want.Permanent
			if got[i] != want || timed != (left > 59*time.Minute && left <= time.Hour) {
				t.Errorf("status %+v with %s left, want %+v", got[i], left, want)
			}
		}
		if got, err = b.Lookup(t.Context(), []backend.Key{host.Key}); err != nil || got[0].Packets != 7 {
			t.Errorf("again: %v, %v", got, err)
		}
		if runs := ran(); len(runs) != 1 || !strings.HasPrefix(runs[0], "iptables ") {
			t.Errorf("ran %q, want one listing of IPv4", runs)
		}
	})
}

// TestLookupElsewhere: what another process left is found without Init, from
// the date in the rule; a missing chain has nothing.
func TestLookupElsewhere(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		one := fresh("192.0.2.1", backend.Drop)
		look, _ := newBackend(t, Config{Variant: v})
		if got, err := look.Lookup(t.Context(), []backend.Key{one.Key}); !errors.Is(err, backend.ErrGone) {
			t.Errorf("lookup without a chain: %v, %v; want ErrGone", got, err)
		}
		b, _ := start(t, Config{Variant: v})
		apply(t, b, add(one))
		got, err := look.Lookup(t.Context(), []backend.Key{one.Key})
		if err != nil || !got[0].Found || got[0].Permanent {
			t.Fatalf("lookup: %+v, %v", got, err)
		}
		if off := got[0].Remaining - time.Until(one.ExpiresAt); off < -time.Second || off > time.Second {
			t.Errorf("%s remain, want %s", got[0].Remaining, time.Until(one.ExpiresAt))
		}
		if !b.EndsOnWallClock() {
			t.Error("the ends are dates, and EndsOnWallClock is false")
		}
	})
}
