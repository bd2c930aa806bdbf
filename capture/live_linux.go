package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// live is a Source over one AF_PACKET socket, which it asks for one packet
// after another. With AnyInterface, and for interfaces that are not
// Ethernet-like, the kernel takes the link header off and a Linux cooked
// header (version 1) is put in its place, as libpcap does.
type live struct {
	name   string
	link   LinkType
	index  int // 0 for AnyInterface
	fd     int
	wakeFD int // an eventfd that Close writes

	// reading is held by Next, so that Close closes nothing under its feet.
	reading sync.Mutex
	msg     message // Next's
	number  uint64  // Next's: packets delivered
	down    bool    // Next's: the interface was down once
	closed  atomic.Bool
	// finish is when Finish was called, Unix nanoseconds; 0 = not yet.
	finish atomic.Int64

	// counting guards what follows and the socket's counters, which reading
	// resets.
	counting  sync.Mutex
	stats     Stats
	fdsClosed bool
}

// OpenLive captures from an interface of the network namespace that the
// calling thread is in (lock the goroutine to its thread where that is not the
// process's own; Next and Close may be called from anywhere). Of loopback
// interfaces the outgoing copy of each packet is left out, because the same
// packet comes in again.
//
// Errors wrap ErrInterface (which lists the interfaces there are) or
// fs.ErrPermission (it takes CAP_NET_RAW). The interface may go down and come
// up again; Next returns an error wrapping ErrInterface when it is removed.
func OpenLive(config LiveConfig) (Source, error) {
	config = config.filled()
	l := &live{name: config.Interface, fd: -1, wakeFD: -1}
	if err := l.open(config); err != nil {
		l.closeFDs()
		return nil, fmt.Errorf("capture on %s: %w", config.Interface, err)
	}
	return l, nil
}

func (l *live) open(config LiveConfig) error {
	hardware, err := l.find()
	if err != nil {
		return err
	}
	kind := unix.SOCK_RAW
	l.link = LinkEthernet
	if hardware != unix.ARPHRD_ETHER && hardware != unix.ARPHRD_LOOPBACK {
		kind = unix.SOCK_DGRAM
		l.link = LinkLinuxSLL
	}
	// Protocol 0: nothing arrives before the socket is set up and bound.
	l.fd, err = unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("open packet socket: %w; it takes root or the capability CAP_NET_RAW", err)
		}
		return fmt.Errorf("open packet socket: %w", err)
	}
	if l.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("open eventfd: %w", err)
	}
	if err := l.configure(config); err != nil {
		return err
	}
	l.msg.init(config.SnapLen, l.link)
	if err := unix.Bind(l.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: l.index}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

// find looks the interface up and returns its hardware type, 0xffff for
// AnyInterface. Without that privilege, too, an unknown interface is named as
// such.
func (l *live) find() (uint16, error) {
	if l.name == AnyInterface {
		return 0xffff, nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	index, err := indexOf(fd, l.name)
	if err != nil {
		return 0, err
	}
	l.index = index
	req, err := unix.NewIfreq(l.name)
	if err != nil {
		return 0, fmt.Errorf("interface name: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, req); err != nil {
		return 0, fmt.Errorf("read hardware type: %w", err)
	}
	return req.Uint16(), nil
}

// indexOf asks, through a socket and so in its network namespace, for an
// interface's index.
func indexOf(fd int, name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
	}
	switch {
	case err == nil:
		return int(req.Uint32()), nil
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EINVAL): // EINVAL: no name could be that long
		return 0, fmt.Errorf("%w; %s", ErrInterface, present())
	}
	return 0, fmt.Errorf("look interface up: %w", err)
}

// present lists the interfaces there are.
func present() string {
	list, err := net.Interfaces()
	if err != nil || len(list) == 0 {
		return "and none could be listed"
	}
	names := make([]string, 0, len(list)+1)
	for _, i := range list {
		names = append(names, i.Name)
	}
	return "there are " + strings.Join(append(names, AnyInterface), ", ")
}

// configure sets the options of the socket.
func (l *live) configure(config LiveConfig) error {
	if err := unix.SetsockoptInt(l.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return fmt.Errorf("ask for VLAN tags: %w", err)
	}
	if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("ask for time stamps: %w", err)
	}
	// The FORCE variant goes beyond net.core.rmem_max and takes CAP_NET_ADMIN.
	if unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, config.BufferBytes) != nil {
		if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, config.BufferBytes); err != nil {
			return fmt.Errorf("set receive buffer: %w", err)
		}
	}
	if config.Promiscuous && l.index != 0 {
		// It ends with the socket.
		mreq := unix.PacketMreq{Ifindex: int32(l.index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(l.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
			return fmt.Errorf("set promiscuous mode: %w", err)
		}
	}
	return nil
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// Stats implements Source. Received is what the kernel handed over; the
// outgoing copies on loopback interfaces are among it.
func (l *live) Stats() Stats {
	l.counting.Lock()
	defer l.counting.Unlock()
	l.count()
	return l.stats
}

// count adds what the socket counted since the last time.
func (l *live) count() {
	if l.fdsClosed {
		return
	}
	s, err := unix.GetsockoptTpacketStats(l.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return // the counters stay as they are
	}
	l.stats.Received += uint64(s.Packets - min(s.Drops, s.Packets))
	l.stats.Dropped += uint64(s.Drops)
}

// Finish implements Finisher.
func (l *live) Finish() error {
	l.counting.Lock() // against a Close that takes the eventfd away
	defer l.counting.Unlock()
	if l.fdsClosed || !l.finish.CompareAndSwap(0, time.Now().UnixNano()) {
		return nil
	}
	return l.wake()
}

// wake ends a waiting, and every later one.
func (l *live) wake() error {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := unix.Write(l.wakeFD, one); err != nil {
		return fmt.Errorf("wake capture on %s: %w", l.name, err)
	}
	return nil
}

// Close implements Source; it returns when a waiting Next has.
func (l *live) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	if err := l.wake(); err != nil {
		return err
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	l.counting.Lock()
	defer l.counting.Unlock()
	l.count()
	l.closeFDs()
	return nil
}

func (l *live) closeFDs() {
	for _, fd := range []int{l.fd, l.wakeFD} {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing is buffered in either
		}
	}
	l.fdsClosed = true
}
