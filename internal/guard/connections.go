package guard

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/conntrack"
)

// maxKills bounds the prefixes that wait for their connections to end.
const maxKills = 100_000

// connKiller ends the connections of blocked addresses in connection tracking.
// Reading that table costs the same for one address as for a thousand, so what
// is blocked while it is read waits, and goes together.
type connKiller struct {
	log                  *slog.Logger
	killed, failed, lost atomic.Uint64

	mu      sync.Mutex // guards what follows
	waiting map[netip.Prefix]struct{}
	closed  bool

	wake chan struct{}
	done chan struct{}
}

// newConnKiller starts one; nil, after one warning, where the kernel does not
// track connections at all. Close it after the Manager.
func newConnKiller(ctx context.Context, log *slog.Logger) *connKiller {
	if err := conntrack.Probe(ctx); err != nil {
		log.Warn("connections of blocked addresses are not ended (kill_connections)", "error", err)
		return nil
	}
	k := &connKiller{log: log, waiting: map[netip.Prefix]struct{}{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go k.run()
	return k
}

// Kill is firewall.Killer's. It waits for nothing: what comes of it is counted
// here.
func (k *connKiller) Kill(_ context.Context, prefix netip.Prefix, _ backend.Target) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || len(k.waiting) >= maxKills {
		k.lost.Add(1)
		return 0, nil
	}
	k.waiting[prefix] = struct{}{}
	k.rouse()
	return 0, nil
}

func (k *connKiller) rouse() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *connKiller) run() {
	defer close(k.done)
	for range k.wake {
		k.mu.Lock()
		waiting, last := k.waiting, k.closed
		k.waiting = map[netip.Prefix]struct{}{}
		k.mu.Unlock()
		k.kill(waiting)
		if last {
			return
		}
	}
}

func (k *connKiller) kill(waiting map[netip.Prefix]struct{}) {
	list := make([]netip.Prefix, 0, len(waiting))
	for p := range waiting {
		list = append(list, p)
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	n, err := conntrack.Kill(context.Background(), list, nil)
	k.killed.Add(uint64(n))
	if err != nil && k.failed.Add(1) == 1 {
		k.log.Warn("connections of blocked addresses were not ended", "error", err)
	}
}

// close ends what still waits, in bounded time, and joins the goroutine.
func (k *connKiller) close() {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.closed = true
	k.rouse()
	k.mu.Unlock()
	<-k.done
}

// stats are the counters so far.
func (k *connKiller) stats() connectionStats {
	if k == nil {
		return connectionStats{}
	}
	return connectionStats{Ended: k.killed.Load(), Failed: k.failed.Load(), Lost: k.lost.Load()}
}
