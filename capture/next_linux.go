package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastWait bounds how long Next waits, once finished, for the block that the
// kernel is filling; it hands that over within milliseconds.
const lastWait = 500 * time.Millisecond

// Next implements Source.
func (l *live) Next(p *Packet) error {
	if !l.holds && !l.enter() {
		return l.over(os.ErrClosed)
	}
	r := l.ring
	for {
		if l.closed.Load() {
			return l.leave(os.ErrClosed)
		}
		if r.left > 0 {
			if !r.take(p) {
				continue
			}
			if end := l.finish.Load(); end != 0 && p.Time > end {
				return l.leave(io.EOF)
			}
			l.number++
			p.Number = l.number
			return nil
		}
		r.release()
		if r.acquire() {
			l.busy = true
			continue
		}
		if err := l.wait(); err != nil {
			return l.leave(err)
		}
		r = l.ring // the interface may have come back
	}
}

// enter takes the ring; it fails when the source has ended.
func (l *live) enter() bool {
	l.holds = l.err == nil && l.use.CompareAndSwap(idle, inUse)
	return l.holds
}

// leave ends the source with an error and gives the ring back.
func (l *live) leave(err error) error {
	l.use.Store(ended)
	l.holds = false
	l.end()
	return l.over(err)
}

// over is the final error: the first one.
func (l *live) over(err error) error {
	if l.err == nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("capture on %s: %w", l.config.Interface, err)
	}
	if l.err == nil {
		l.err = err
	}
	return l.err
}

// wait blocks until there may be a block, Finish or Close calls, or something
// has become of the interface; that it deals with. io.EOF: it is finished, and
// all that came before was read.
func (l *live) wait() error {
	if end := l.finish.Load(); end != 0 {
		return l.waitLast(end)
	}
	if l.onWait != nil {
		l.onWait()
	}
	l.fds = [3]unix.PollFd{
		{Fd: int32(l.ring.fd), Events: unix.POLLIN},
		{Fd: int32(l.wakeFD), Events: unix.POLLIN},
		{Fd: int32(l.hintFD), Events: unix.POLLIN}, // one below 0 is passed over
	}
	n, err := l.poll()
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("wait for packets: %w", err)
	case n == 0, l.fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0, l.fds[2].Revents != 0:
		return l.changed()
	}
	return nil
}

// briefly is how long the thread of who has just had packets keeps its place in
// Go's scheduler while it waits for more: a ring that is in use hands a block
// over every millisecond. To give the place up and take it again costs more
// than to decode what comes, and keeps the runtime's monitor awake all the time.
const briefly = 2 * time.Millisecond

// poll waits until one of the descriptors is ready, or until it is worth to
// look at the ring, and returns how many are ready; 0 when nothing happened for
// as long as the follower says.
func (l *live) poll() (int, error) {
	if !l.busy {
		return unix.Poll(l.fds[:], l.follow.timeout())
	}
	l.busy = false
	if rest := l.ring.rest(); rest > 0 {
		if _, err := pollHere(l.fds[1:], rest); err != nil {
			return 0, err
		}
		return 1, nil
	}
	if n, err := pollHere(l.fds[:], briefly); n > 0 || err != nil {
		return n, err
	}
	return unix.Poll(l.fds[:], l.follow.timeout())
}

// pollHere is poll without the scheduler's knowledge: nothing else runs in the
// place of this goroutine meanwhile.
func pollHere(fds []unix.PollFd, limit time.Duration) (int, error) {
	until := unix.NsecToTimespec(int64(limit))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)),
		uintptr(unsafe.Pointer(&until)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// waitLast waits for the block that was being filled when Finish was called.
func (l *live) waitLast(end int64) error {
	if !l.ring.filling() || time.Now().UnixNano()-end > int64(lastWait) {
		return io.EOF
	}
	fds := [1]unix.PollFd{{Fd: int32(l.ring.fd), Events: unix.POLLIN}}
	const step = 10 // ms, after which a Close is seen, too
	if _, err := unix.Poll(fds[:], step); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for the last packets: %w", err)
	}
	return nil
}
