package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// live is a Source over one ring. Of interfaces that are not Ethernet-like a
// packet's link header is replaced by a Linux cooked header (version 1), as
// libpcap does.
type live struct {
	config LiveConfig
	first  bool // of the workers: it tells what becomes of the interface
	group  *fanout
	*handles
	cleanup runtime.Cleanup

	// What follows up to the next comment is Next's.
	holds  bool // it is in use, see use
	number uint64
	err    error // the final one
	follow follower
	fds    [3]unix.PollFd // of the ring, the eventfd and the hints
	onWait func()
	busy   bool // packets came since it waited last

	use    atomic.Int32 // idle, inUse or ended
	closed atomic.Bool
	// finish is when Finish was called, Unix nanoseconds; 0 = not yet.
	finish atomic.Int64

	// control guards what follows, the ring's socket options and counters
	// (reading resets them) and the ring's replacement.
	control sync.Mutex
	stats   Stats
	filter  []bpf.RawInstruction
}

// States of live.use. Memory that a lent packet lies in must stay: who gives
// it back is Next where it runs or has lent a packet, else Close.
const (
	idle int32 = iota
	inUse
	ended
)

// handles are what the kernel holds for us, apart from live so that they can be
// given back when nobody refers to live any more.
type handles struct {
	ring   *ring
	wakeFD int // an eventfd that Close and Finish write
	hintFD int // a netlink socket that tells of changes of interfaces; -1 for none
}

func (h *handles) release() {
	if h.ring != nil {
		h.ring.close()
	}
	for _, fd := range []*int{&h.wakeFD, &h.hintFD} {
		if *fd >= 0 {
			_ = unix.Close(*fd) // nothing is buffered in either
			*fd = -1
		}
	}
}

// OpenLive captures from an interface of the network namespace that the
// calling thread is in, with one worker. Of loopback interfaces the outgoing
// copy of each packet is left out, because the same packet comes in again.
//
// Errors wrap ErrInterface (which lists the interfaces there are) or
// fs.ErrPermission (it takes CAP_NET_RAW). The interface may go down or be
// removed: capture goes on when it is up again or another has its name, which
// takes that Next is called in a thread of the same namespace. A packet that
// Next has lent stays valid after Close.
func OpenLive(config LiveConfig) (LiveSource, error) {
	config.Workers = 1
	all, err := OpenWorkers(config)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// OpenWorkers is OpenLive for several workers, each a goroutine with its own
// source and ring. All packets between two addresses, either way, come to the
// same source; which one is hard to foresee for who does not know the key.
// Their counters add up.
func OpenWorkers(config LiveConfig) ([]LiveSource, error) {
	config = config.filled()
	var group *fanout
	if config.Workers > 1 {
		group = newFanout()
	}
	all := make([]LiveSource, 0, config.Workers)
	for i := range config.Workers {
		l, err := openOne(config, group, i == 0)
		if err != nil {
			err = fmt.Errorf("capture on %s: %w", config.Interface, err)
			for _, s := range all {
				err = errors.Join(err, s.Close())
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func openOne(config LiveConfig, group *fanout, first bool) (*live, error) {
	l := &live{config: config, first: first, group: group, filter: config.Filter,
		handles: &handles{wakeFD: -1, hintFD: -1}}
	if err := l.open(); err != nil {
		l.release()
		return nil, err
	}
	l.cleanup = runtime.AddCleanup(l, (*handles).release, l.handles)
	return l, nil
}

func (l *live) open() error {
	var err error
	if l.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("open eventfd: %w", err)
	}
	if l.config.Interface != AnyInterface {
		// First the subscription, then the first look: nothing falls between.
		if l.hintFD, err = openHints(); err != nil {
			return err
		}
		if err := l.follow.find(l.config.Interface); err != nil {
			return err
		}
	}
	if l.ring, err = l.openRing(l.follow.link); err != nil {
		return err
	}
	if l.first && l.hintFD >= 0 && !l.follow.link.up {
		l.config.Log.Warn("interface " + l.config.Interface + " is down: nothing is captured on it until it is up")
	}
	return nil
}

// openRing makes a ring that captures from the interface.
func (l *live) openRing(from linkState) (*ring, error) {
	r, err := openRing(l.config.RingBytes)
	if err != nil {
		return nil, err
	}
	if err := l.bind(r, from); err != nil {
		r.close()
		return nil, err
	}
	if l.first && len(r.mem) <= l.config.RingBytes/2 {
		l.config.Log.Warn(fmt.Sprintf("the kernel has no memory for a ring of %d MiB in front of each worker: it is %d KiB",
			l.config.RingBytes>>20, len(r.mem)>>10))
	}
	return r, nil
}

func (l *live) bind(r *ring, from linkState) error {
	if from.hardware == unix.ARPHRD_LOOPBACK {
		_ = unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) // before Linux 4.20 take does it alone
	}
	if l.config.Promiscuous && from.index != 0 {
		// It ends with the socket.
		mreq := unix.PacketMreq{Ifindex: int32(from.index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(r.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
			return fmt.Errorf("set promiscuous mode: %w", err)
		}
	}
	if l.group == nil {
		if err := attach(r.fd, l.filter, l.config.SnapLen); err != nil {
			return err
		}
		return bindTo(r.fd, from.index)
	}
	// Until it is one of the group, each of its packets would come twice.
	if err := attach(r.fd, dropAll(), 0); err != nil {
		return err
	}
	if err := bindTo(r.fd, from.index); err != nil {
		return err
	}
	if err := l.group.join(r.fd, from.index); err != nil {
		return err
	}
	return attach(r.fd, l.filter, l.config.SnapLen)
}

func bindTo(fd, index int) error {
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// Stats implements Source. Received is what the kernel put into the ring.
func (l *live) Stats() Stats {
	l.control.Lock()
	defer l.control.Unlock()
	l.count()
	return l.stats
}

// count adds what the socket counted since the last time.
func (l *live) count() {
	if l.ring.fd < 0 {
		return
	}
	s, err := unix.GetsockoptTpacketStatsV3(l.ring.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return // the counters stay as they are
	}
	l.stats.Received += uint64(s.Packets - min(s.Drops, s.Packets))
	l.stats.Dropped += uint64(s.Drops)
	l.stats.Full += uint64(s.Freeze_q_cnt)
}

// SetFilter implements LiveSource.
func (l *live) SetFilter(program []bpf.RawInstruction) error {
	l.control.Lock()
	defer l.control.Unlock()
	if l.closed.Load() || l.ring.fd < 0 {
		return nil
	}
	if err := attach(l.ring.fd, program, l.config.SnapLen); err != nil {
		return fmt.Errorf("capture on %s: %w", l.config.Interface, err)
	}
	l.filter = program
	return nil
}

// OnWait implements LiveSource.
func (l *live) OnWait(f func()) { l.onWait = f }

// Finish implements Finisher.
func (l *live) Finish() error {
	l.control.Lock() // against an end that takes the eventfd away
	defer l.control.Unlock()
	if l.closed.Load() || !l.finish.CompareAndSwap(0, time.Now().UnixNano()) {
		return nil
	}
	return l.wake()
}

// wake ends a waiting, and every later one.
func (l *live) wake() error {
	if l.wakeFD < 0 {
		return nil // a Next that has seen the end was faster
	}
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := unix.Write(l.wakeFD, one); err != nil {
		return fmt.Errorf("wake capture on %s: %w", l.config.Interface, err)
	}
	return nil
}

// Close implements Source. A Next that waits returns; until the next call of
// Next, a packet that was lent keeps the ring's memory, yet nothing is
// captured any more.
func (l *live) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	if l.use.CompareAndSwap(idle, ended) {
		l.end()
		return nil
	}
	l.control.Lock()
	defer l.control.Unlock()
	if l.ring.fd >= 0 {
		l.count()
		_ = attach(l.ring.fd, dropAll(), 0) // for speed alone
	}
	return l.wake()
}

// end gives everything back. Its caller owns the ring.
func (l *live) end() {
	l.control.Lock()
	defer l.control.Unlock()
	l.count()
	l.cleanup.Stop()
	l.release()
}
