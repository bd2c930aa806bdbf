package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// monitor is the connection that a Watch reads. It is made with the others, so
// that it is in the same network namespace, and hears nothing until a Watch
// joins the group. Its methods may run beside everything else of the Backend.
type monitor struct {
	conn    *netlink.Conn
	raw     syscall.RawConn
	buf     []byte // a running Watch owns it
	size    int    // how much the kernel may queue, in bytes
	running atomic.Bool
	closed  atomic.Bool
}

// monitorBuffer is how much the kernel may queue for us: about 100,000
// deletions. It is no memory until messages wait.
const monitorBuffer = 32 << 20

func newMonitor(netns int) (*monitor, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &monitor{conn: conn, raw: raw, buf: make([]byte, dumpBuffer), size: monitorBuffer}, nil
}

func (m *monitor) close() error {
	m.closed.Store(true)
	return m.conn.Close()
}

// Watch reports what others do to our table, as the kernel tells it. What this
// Backend does is known by the netlink port of its connection; a second
// Backend on the same table, even in this process, is somebody else. That the
// kernel expires an element raises no event.
//
// Deletions from several sets by one transaction are one Removed with the
// elements that went alone, and an Emptied for each set that lost several. Any
// other change of the transaction to our objects is a Damaged or a Look and
// goes before them, because only a List tells what is left then.
//
// End it before Close or Detach; otherwise they end it with ErrClosed.
func (b *Backend) Watch(ctx context.Context, ready chan<- struct{}, f func(backend.Event)) error {
	m := b.monitor
	if m.closed.Load() {
		return b.fail("watch", backend.ErrClosed)
	}
	if !m.running.CompareAndSwap(false, true) {
		return b.fail("watch", fmt.Errorf("%w: there is a watch already", backend.ErrInvalid))
	}
	defer m.running.Store(false)
	err := m.watch(ctx, ready, &transcript{table: b.config.Table, port: b.port, emit: func(e backend.Event) {
		if ctx.Err() == nil {
			f(e)
		}
	}})
	if err != nil && m.closed.Load() {
		return b.fail("watch", backend.ErrClosed)
	}
	return b.explain("watch", err, true)
}

func (m *monitor) watch(ctx context.Context, ready chan<- struct{}, t *transcript) error {
	// A smaller buffer only means that messages are lost earlier, which is
	// noticed.
	_ = m.conn.SetReadBuffer(m.size)
	if err := m.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if err := m.drain(); err != nil { // what the last Watch left unread
		return err
	}
	if err := m.conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if ready != nil {
		close(ready)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = m.conn.SetReadDeadline(time.Unix(1, 0)) // fails only if closed
	})
	err := m.read(ctx, t)
	if !stop() {
		<-woken
	}
	if m.closed.Load() {
		return err
	}
	return errors.Join(err, m.conn.LeaveGroup(unix.NFNLGRP_NFTABLES))
}

func (m *monitor) read(ctx context.Context, t *transcript) error {
	for ctx.Err() == nil {
		n, err := m.receive(false)
		switch {
		case err == nil:
			t.feed(m.buf[:n])
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, errTooLong):
			// Until its queue is empty once, the kernel goes on to lose
			// messages without saying so again.
			if err := m.drain(); err != nil {
				return err
			}
			t.lost()
		default:
			return fmt.Errorf("read: %w", err)
		}
	}
	return nil
}

// errTooLong is a message that does not fit the buffer.
var errTooLong = errors.New("message is longer than the buffer")

// drain forgets what is queued.
func (m *monitor) drain() error {
	for {
		_, err := m.receive(true)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, errTooLong):
			return fmt.Errorf("read: %w", err)
		}
	}
}

// receive reads one datagram of the kernel. At once it does not wait, and says
// EAGAIN where there is none.
func (m *monitor) receive(atOnce bool) (n int, err error) {
	var flags int
	var from unix.Sockaddr
	ioErr := m.raw.Read(func(fd uintptr) bool {
		for {
			n, _, flags, from, err = unix.Recvmsg(int(fd), m.buf, nil, unix.MSG_DONTWAIT)
			if !errors.Is(err, unix.EINTR) {
				return atOnce || !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	switch kernel, ok := from.(*unix.SockaddrNetlink); {
	case ioErr != nil:
		return 0, ioErr
	case err != nil:
		return 0, err
	case !ok || kernel.Pid != 0:
		return 0, nil // another process wrote to our port
	case flags&unix.MSG_TRUNC != 0:
		return 0, errTooLong
	}
	return n, nil
}
