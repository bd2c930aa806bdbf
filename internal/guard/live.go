package guard

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// followInterval is how often this host's own addresses are read again.
const followInterval = 5 * time.Second

func (r *runner) openInterface(name string) (capture.Source, error) {
	return capture.OpenLive(capture.LiveConfig{Interface: name})
}

// live captures until ctx ends or a capture fails. When it returns, every
// worker has ended.
func (r *runner) live(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.followOwn()
	var workers sync.WaitGroup
	for _, s := range r.sources {
		w := newWorker(r.shared)
		r.workers = append(r.workers, w)
		workers.Go(func() {
			if err := w.drain(s); err != nil {
				cancel(err)
			}
		})
	}
	r.attend(ctx)
	r.closeSources()
	workers.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// drain takes a source's packets until it is closed.
func (w *worker) drain(s capture.Source) error {
	var p capture.Packet
	for {
		if err := s.Next(&p); err != nil {
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		}
		w.packet(&p, 0)
	}
}

// attend looks after the run until ctx ends: a hangup reopens the event file
// and reads the rules anew.
func (r *runner) attend(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	follow := time.NewTicker(followInterval)
	defer follow.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-follow.C:
			r.followOwn()
		case <-hangup:
			if err := r.events.reopen(); err != nil {
				r.log.Error("the event file stays open as it was", "error", err)
			}
			r.reload()
		}
	}
}

// followOwn tells the workers this host's addresses.
func (r *runner) followOwn() {
	entries, err := hostaddr.Snapshot(hostaddr.Config{NoSpecial: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true})
	if err != nil {
		r.log.Warn("this host's addresses cannot be read", "error", err)
		return
	}
	own := make(map[netip.Addr]struct{}, len(entries))
	for _, e := range entries {
		own[e.Prefix.Addr()] = struct{}{}
	}
	r.shared.own.Store(&own)
}
