package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// headroom is kept free in front of a received packet for a cooked
	// header and a VLAN tag.
	headroom  = cookedHeader + vlanTag
	vlanTag   = 4
	macs      = 12 // two addresses: the tag goes behind them
	etherVLAN = 0x8100

	cookedHeader = 16
)

// message is what recvmsg fills. Its parts point at each other, so it never
// moves.
type message struct {
	hdr  unix.Msghdr
	iov  unix.Iovec
	from unix.RawSockaddrLinklayer
	oob  [16]uint64 // control messages; words for their alignment
	buf  []byte
	link LinkType
}

func (m *message) init(snap int, link LinkType) {
	m.buf = make([]byte, headroom+snap)
	m.link = link
	m.iov.Base = &m.buf[headroom]
	m.iov.SetLen(snap)
	m.hdr.Iov = &m.iov
	m.hdr.SetIovlen(1)
	m.hdr.Name = (*byte)(unsafe.Pointer(&m.from))
	m.hdr.Control = (*byte)(unsafe.Pointer(&m.oob[0]))
}

// receive reads one packet without waiting and returns its length, which may
// be more than fitted. x/sys's own wrappers allocate for every packet.
func (m *message) receive(fd int) (int, error) {
	m.hdr.Namelen = uint32(unsafe.Sizeof(m.from))
	m.hdr.SetControllen(int(unsafe.Sizeof(m.oob)))
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.hdr)),
		unix.MSG_DONTWAIT|unix.MSG_TRUNC)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Next implements Source.
func (l *live) Next(p *Packet) error {
	l.reading.Lock()
	defer l.reading.Unlock()
	for {
		if l.closed.Load() {
			return fmt.Errorf("capture on %s: %w", l.name, os.ErrClosed)
		}
		n, err := l.msg.receive(l.fd)
		switch {
		case err == nil:
			from := &l.msg.from
			outgoing := from.Pkttype == unix.PACKET_OUTGOING
			if outgoing && from.Hatype == unix.ARPHRD_LOOPBACK {
				continue
			}
			l.msg.fill(p, n)
			if end := l.finish.Load(); end != 0 && p.Time > end {
				return io.EOF
			}
			l.number++
			p.Number = l.number
			p.Outgoing = outgoing
			return nil
		case errors.Is(err, unix.EAGAIN):
			if l.finish.Load() != 0 {
				return io.EOF
			}
			err = l.wait()
		case errors.Is(err, unix.ENETDOWN):
			// For good: packets that were captured before come after this error,
			// so that one of them says nothing of the interface now.
			l.down = true
			err = nil
		case errors.Is(err, unix.EINTR):
			err = nil
		}
		if err != nil {
			return fmt.Errorf("capture on %s: %w", l.name, err)
		}
	}
}

// wait blocks until there is a packet or Close calls. Once the interface was
// down it looks, in every second without a packet, whether it still exists,
// because the kernel says nothing more.
func (l *live) wait() error {
	timeout := -1
	if l.down {
		timeout = 1000
	}
	fds := [2]unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.wakeFD), Events: unix.POLLIN}}
	n, err := unix.Poll(fds[:], timeout)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for packets: %w", err)
	}
	if n == 0 && l.down {
		if index, err := indexOf(l.fd, l.name); err != nil {
			return err
		} else if index != l.index {
			return fmt.Errorf("%w: another one has taken its name", ErrInterface)
		}
	}
	return nil
}

// fill makes a Packet of what was received: n bytes on the wire.
func (m *message) fill(p *Packet, n int) {
	when, tpid, tci := m.control()
	end := headroom + min(n, len(m.buf)-headroom)
	start := headroom
	switch {
	case m.link == LinkEthernet && tpid != 0 && end-headroom >= macs:
		start -= vlanTag
		copy(m.buf[start:start+macs], m.buf[headroom:])
		binary.BigEndian.PutUint16(m.buf[start+macs:], tpid)
		binary.BigEndian.PutUint16(m.buf[start+macs+2:], tci)
	case m.link == LinkLinuxSLL:
		start = m.cooked(tpid, tci)
	}
	p.Data = m.buf[start:end:end]
	p.Length = n + headroom - start
	p.Time = when
	p.Link = m.link
	p.Iface = int(m.from.Ifindex)
}

// cooked writes a Linux cooked header in front of the packet and returns where
// it begins. A VLAN tag that the kernel took off goes behind it.
func (m *message) cooked(tpid, tci uint16) int {
	start := headroom - cookedHeader
	var protocol [2]byte
	binary.NativeEndian.PutUint16(protocol[:], m.from.Protocol) // it is in network order
	if tpid != 0 {
		start -= vlanTag
		binary.BigEndian.PutUint16(m.buf[start+cookedHeader:], tci)
		copy(m.buf[start+cookedHeader+2:], protocol[:])
		binary.BigEndian.PutUint16(protocol[:], tpid)
	}
	head := m.buf[start : start+cookedHeader]
	binary.BigEndian.PutUint16(head, uint16(m.from.Pkttype))
	binary.BigEndian.PutUint16(head[2:], m.from.Hatype)
	binary.BigEndian.PutUint16(head[4:], uint16(m.from.Halen))
	copy(head[6:14], m.from.Addr[:])
	copy(head[14:], protocol[:])
	return start
}

// control reads the control messages: the time stamp, and the VLAN tag that
// the kernel took off (tpid 0 for none).
func (m *message) control() (when int64, tpid, tci uint16) {
	oob := unsafe.Slice((*byte)(unsafe.Pointer(&m.oob[0])), unsafe.Sizeof(m.oob))
	oob = oob[:min(int(m.hdr.Controllen), len(oob))]
	head := unix.CmsgLen(0)
	for len(oob) >= head {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		size := int(h.Len)
		if size < head || size > len(oob) {
			break
		}
		data := oob[head:size]
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(data) >= int(unsafe.Sizeof(unix.Timespec{})):
			when = (*unix.Timespec)(unsafe.Pointer(&data[0])).Nano()
		case h.Level == unix.SOL_PACKET && h.Type == unix.PACKET_AUXDATA && len(data) >= int(unsafe.Sizeof(unix.TpacketAuxdata{})):
			aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&data[0]))
			if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
				tpid, tci = etherVLAN, aux.Vlan_tci
				if aux.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
					tpid = aux.Vlan_tpid
				}
			}
		}
		oob = oob[min(unix.CmsgSpace(size-head), len(oob)):]
	}
	if when == 0 { // this kernel does not stamp; the door may look at the clock
		when = time.Now().UnixNano()
	}
	return when, tpid, tci
}
