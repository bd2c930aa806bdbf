package guard

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/nflog"
)

// failingLog is a reader of the kernel's log that fails when it is told to.
type failingLog struct {
	fail   chan error
	stats  nflog.Stats
	closed sync.Once
}

func (l *failingLog) Run(func(*nflog.Packet)) error { return <-l.fail }
func (l *failingLog) Stats() nflog.Stats            { return l.stats }
func (l *failingLog) Close() error {
	l.closed.Do(func() { close(l.fail) })
	return nil
}

// A reader that fails is closed and another is opened in its place; what it
// counted is not forgotten, and the end joins whoever reads.
func TestKernelLogIsReopened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened []*failingLog
		var log bytes.Buffer
		busy := false
		k := &kernelLog{log: slog.New(slog.NewTextHandler(&log, nil)), wanted: true, open: func(uint16) (logReader, error) {
			if busy {
				return nil, nflog.ErrInUse
			}
			l := &failingLog{fail: make(chan error), stats: nflog.Stats{Received: 10, Lost: 2, Malformed: 1}}
			opened = append(opened, l)
			return l, nil
		}}
		retry := func(want kernelLogStats, readers int) {
			t.Helper()
			k.retry(time.Now())
			if got := k.stats(); got != want || len(opened) != readers {
				t.Errorf("%d readers, %+v, want %d, %+v", len(opened), got, readers, want)
			}
		}
		one := kernelLogStats{Packets: 10, Lost: 2, Malformed: 1}
		retry(one, 1)
		opened[0].fail <- errors.New("bad file descriptor")
		synctest.Wait()
		if _, open := <-opened[0].fail; open {
			t.Error("the reader that failed is not closed")
		}
		retry(one, 1) // not at once
		busy = true
		time.Sleep(kernelLogRetry)
		one.Unavailable = 1
		retry(one, 1)
		busy = false
		time.Sleep(kernelLogRetry)
		retry(kernelLogStats{Packets: 20, Lost: 4, Malformed: 2, Unavailable: 1}, 2)
		if got := log.String(); strings.Count(got, "level=") != 2 || !strings.Contains(got, "bad file descriptor") || !strings.Contains(got, "is seen now") {
			t.Errorf("log %s", got)
		}
		opened[1].fail <- errors.New("again")
		if err := k.close(); err != nil { // joins the one that has just failed
			t.Error(err)
		}
		if got := k.stats().Packets; got != 20 || k.reader != nil {
			t.Errorf("at the end %d packets, reader %v", got, k.reader)
		}
	})
}

// Where the kernel does not say how many packets it stopped, the statistics
// show what it said last, and one warning says so.
func TestDropsOfABusyKernel(t *testing.T) {
	var c dropCounts
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	busy := errors.New("context deadline exceeded")
	if got := c.take(nil, busy, logger); got == nil || len(got) != 0 {
		t.Errorf("before there was an answer: %v", got)
	}
	list := []backend.Drops{{Action: backend.Drop, Packets: 7}, {Action: backend.Drop, Is6: true, Packets: 8}}
	for i, err := range []error{nil, busy, busy} {
		if got := c.take(list, err, logger); got["DROP"] != (familyDrops{7, 8}) {
			t.Errorf("answer %d: %v", i, got)
		}
		list = nil
	}
	if got := strings.Count(log.String(), "level="); got != 1 {
		t.Errorf("said %d times: %s", got, log.String())
	}
}
