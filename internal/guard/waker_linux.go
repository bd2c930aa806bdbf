package guard

import (
	"encoding/binary"
	"errors"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/engine"
)

// waker is an engine.Waker over an eventfd. Its thread sleeps in the kernel, so
// that whoever wakes it makes it run at once. A goroutine that waits for a
// channel has to be found by the scheduler first, which on a busy machine took
// most of the time from an attack to the block.
type waker struct {
	fd     int
	locked bool // Wait's goroutine has its thread
}

// newWaker returns nil where the kernel has no eventfd to give: a channel does,
// too. Close it.
func newWaker() *waker {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil
	}
	return &waker{fd: fd}
}

// Wake implements engine.Waker. The counter never comes near its end, where a
// write would wait: the reader takes all of it.
func (w *waker) Wake() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(w.fd, one[:])
}

// Wait implements engine.Waker. It gives the goroutine a thread of its own.
func (w *waker) Wait() {
	if !w.locked {
		w.locked = true
		runtime.LockOSThread()
		soon()
	}
	var count [8]byte
	for {
		if _, err := unix.Read(w.fd, count[:]); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// close gives the eventfd back; nobody may wait any more.
func (w *waker) close() {
	if w != nil {
		_ = unix.Close(w.fd) // nothing is buffered in it
	}
}

// engineWaker is w as the engine takes it.
func (w *waker) engineWaker() engine.Waker {
	if w == nil {
		return nil
	}
	return w
}
