package backendtest

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What linux/netfilter/nfnetlink_log.h says of NFLOG, and the group that
// backends copy to by default.
const (
	logGroup    = 77
	logConfig   = unix.NFNL_SUBSYS_ULOG<<8 | 1
	logPacket   = unix.NFNL_SUBSYS_ULOG << 8
	logBind     = 1  // NFULNL_CFG_CMD_BIND
	attrCommand = 1  // NFULA_CFG_CMD
	attrMode    = 2  // NFULA_CFG_MODE
	attrQueue   = 5  // NFULA_CFG_QTHRESH
	attrPrefix  = 10 // NFULA_PREFIX
)

// Logged implements Listener.
func (v *veth) Logged(t testing.TB, want int, f func()) []string {
	t.Helper()
	fd, err := listenLog()
	if err != nil {
		t.Fatalf("listen to log group %d: %v", logGroup, err)
	}
	defer func() { _ = unix.Close(fd) }()
	f()
	var out []string
	buf := make([]byte, 1<<16)
	for limit := time.Now().Add(answerLimit); time.Now().Before(limit) && len(out) < want || want == 0; {
		n, _, err := unix.Recvfrom(fd, buf, 0) // waits for grace at most; see listenLog
		switch {
		case errors.Is(err, unix.EAGAIN) && want == 0:
			return out
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			t.Fatalf("read log group %d: %v", logGroup, err)
		}
		out = append(out, prefixesIn(buf[:n])...)
	}
	return out
}

// listenLog asks for the headers of the group's packets, each at once.
func listenLog() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	tv := unix.NsecToTimeval(int64(grace))
	err = errors.Join(unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	for _, attr := range [][]byte{
		{5, 0, attrCommand, 0, logBind, 0, 0, 0},
		{10, 0, attrMode, 0, 0, 0, 0, 128, 2, 0, 0, 0}, // NFULNL_COPY_PACKET
		{8, 0, attrQueue, 0, 0, 0, 0, 1},
	} {
		if err == nil {
			err = configure(fd, attr)
		}
	}
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// configure sends one request and waits for its acknowledgement. The attribute
// is written as on a little-endian machine.
func configure(fd int, attr []byte) error {
	for i := range 2 {
		n := binary.LittleEndian.Uint16(attr[2*i:])
		binary.NativeEndian.PutUint16(attr[2*i:], n)
	}
	msg := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+4+len(attr)))
	msg = binary.NativeEndian.AppendUint16(msg, logConfig)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	msg = append(msg, make([]byte, 8)...)
	msg = append(msg, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, logGroup)
	if err := unix.Sendto(fd, append(msg, attr...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		if n >= unix.NLMSG_HDRLEN+4 && binary.NativeEndian.Uint16(buf[4:]) == unix.NLMSG_ERROR {
			if code := int32(binary.NativeEndian.Uint32(buf[unix.NLMSG_HDRLEN:])); code != 0 {
				return unix.Errno(-code)
			}
			return nil
		}
	}
}

// prefixesIn are the prefixes of the packets in one read.
func prefixesIn(b []byte) []string {
	var out []string
	for len(b) >= unix.NLMSG_HDRLEN+4 {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN+4 || length > len(b) {
			return out
		}
		if binary.NativeEndian.Uint16(b[4:]) == logPacket {
			out = append(out, prefixIn(b[unix.NLMSG_HDRLEN+4:length]))
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return out
}

func prefixIn(attrs []byte) string {
	for len(attrs) >= 4 {
		n := int(binary.NativeEndian.Uint16(attrs))
		if n < 4 || n > len(attrs) {
			return ""
		}
		if binary.NativeEndian.Uint16(attrs[2:])&0x3fff == attrPrefix {
			return unix.ByteSliceToString(attrs[4:n])
		}
		attrs = attrs[min((n+3)&^3, len(attrs)):]
	}
	return ""
}
