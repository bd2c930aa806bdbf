package guard

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// openInterface gives as many sources as there are to be workers on it.
func (r *runner) openInterface(name string) ([]capture.Source, error) {
	all, err := capture.OpenWorkers(capture.LiveConfig{
		Interface: name, Workers: r.cfg.Workers, RingBytes: r.cfg.RingSize << 20, Promiscuous: r.cfg.Promiscuous, Log: r.log,
		Filter: r.filter.Instructions(), // until the guard is ready, the ring is filled and not read
	})
	sources := make([]capture.Source, len(all))
	for i, s := range all {
		sources[i] = s
	}
	return sources, err
}

// live captures until ctx ends or a capture fails. When it returns, every
// worker has ended.
func (r *runner) live(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	r.startOwn(ctx, &workers)
	workers.Go(func() { r.followNames(ctx) })
	if err := r.startLinks(ctx, &workers); err != nil {
		cancel(err)
		workers.Wait()
		return err
	}
	r.filterSources()
	r.startWorkers()
	// A worker keeps its share of the scheduler while it waits briefly for
	// packets; what else there is to do must not wait for it.
	before := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(before + len(r.sources))
	defer runtime.GOMAXPROCS(before)
	var drains sync.WaitGroup
	for i, s := range r.sources {
		w := r.workers[i]
		drains.Go(func() {
			if err := w.drain(s); err != nil {
				cancel(err)
			}
		})
	}
	losses := lossWatch{log: r.log}
	r.attend(ctx, &losses)
	r.finishSources(&drains)
	losses.end(r.captureStats())
	workers.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// finishSources ends the captures: what the kernel holds of them by now still
// counts, as far as it can be taken within the drain limit.
func (r *runner) finishSources(drains *sync.WaitGroup) {
	for _, s := range r.sources {
		if f, ok := s.(capture.Finisher); ok {
			if err := f.Finish(); err != nil {
				r.log.Warn("ending a capture", "error", err)
			}
		}
	}
	drained := make(chan struct{})
	go func() {
		drains.Wait()
		close(drained)
	}()
	limit := time.NewTimer(drainLimit)
	defer limit.Stop()
	select {
	case <-drained:
	case <-limit.C:
	}
	r.closeSources()
	<-drained
}

// publishEvery is how many packets that follow each other closely are counted
// before others see the counters: to publish them costs as much as to decode.
const publishEvery = 256

// drain takes a source's packets until it is finished or closed.
func (w *worker) drain(s capture.Source) error {
	runtime.LockOSThread() // the kernel wakes the thread that reads the ring
	defer runtime.UnlockOSThread()
	soon()
	if l, ok := s.(capture.LiveSource); ok {
		l.OnWait(w.publish)
	}
	defer w.publish()
	var p capture.Packet
	for {
		if err := s.Next(&p); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		}
		w.take(&p, 0)
		if w.tally.packets == publishEvery {
			w.publish()
		}
	}
}

// attend looks after the run until ctx ends: a hangup reopens the event file
// and reads the rules anew.
func (r *runner) attend(ctx context.Context, losses *lossWatch) {
	look := time.NewTicker(lossEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-look.C:
			losses.look(now, r.captureStats())
			r.kernel.retry(now)
		case <-r.hangups:
			if err := r.events.reopen(); err != nil {
				r.log.Error("the event file stays open as it was", "error", err)
			}
			r.hangup()
		}
	}
}

// hangup is what SIGHUP asks for.
func (r *runner) hangup() {
	out, err := r.reload()
	if err != nil {
		r.log.Error("the running rules stay", "error", err)
		return
	}
	for _, w := range out.Warnings {
		r.log.Warn(w)
	}
	r.log.Info("rules reloaded", "rules", out.Rules)
}

// startWorkers makes one worker a source.
func (r *runner) startWorkers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range r.sources {
		r.workers = append(r.workers, newWorker(r.shared))
	}
}

// allWorkers are the workers so far, for who reads their counters.
func (r *runner) allWorkers() []*worker {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.workers
}

// startOwn follows this host's addresses and returns when the first reading is
// in force, or has failed.
func (r *runner) startOwn(ctx context.Context, group *sync.WaitGroup) {
	known, ended := make(chan struct{}), make(chan struct{})
	group.Go(func() {
		defer close(ended)
		r.followOwn(ctx, known)
	})
	select {
	case <-known:
	case <-ended:
	}
}

// followOwn tells the workers this host's addresses, until ctx ends.
func (r *runner) followOwn(ctx context.Context, known chan<- struct{}) {
	err := hostaddr.Follow(ctx, hostaddr.OwnOnly(), known, func(entries []hostaddr.Entry) {
		r.shared.own.Store(newAddresses(hostaddr.Own(entries)))
	})
	if err != nil {
		r.log.Warn("this host's addresses cannot be followed: packets it sends are not counted", "error", err)
	}
}
