package nstest

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// senderBatch is how many frames are handed over in one system call.
const senderBatch = 256

// Sender sends Ethernet frames out of an interface as they are, as fast as one
// goroutine can. It belongs to that one.
type Sender struct {
	fd   int
	msgs [senderBatch]messageHeader
	iovs [senderBatch]unix.Iovec
	to   unix.RawSockaddrLinklayer
}

// messageHeader is the kernel's struct mmsghdr.
type messageHeader struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// NewSender opens the interface of the network namespace that the calling
// thread is in. Close the Sender.
func NewSender(iface string) (*Sender, error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("find interface: %w", err)
	}
	s := &Sender{to: unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: int32(i.Index)}}
	if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	for i := range s.msgs {
		h := &s.msgs[i].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.to)), unix.SizeofSockaddrLinklayer
		h.Iov = &s.iovs[i]
		h.SetIovlen(1)
	}
	return s, nil
}

// Send sends the frames in order. A frame that the device has no room for is
// sent again until it has.
func (s *Sender) Send(frames ...[]byte) error {
	for len(frames) > 0 {
		n := min(len(frames), senderBatch)
		for i, f := range frames[:n] {
			s.iovs[i].Base = &f[0]
			s.iovs[i].SetLen(len(f))
		}
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msgs[0])), uintptr(n), 0, 0, 0)
		switch errno {
		case 0:
			frames = frames[sent:]
		case unix.ENOBUFS, unix.EAGAIN, unix.EINTR:
		default:
			return fmt.Errorf("send frames: %w", errno)
		}
	}
	return nil
}

// Close gives the socket back.
func (s *Sender) Close() error { return unix.Close(s.fd) }
