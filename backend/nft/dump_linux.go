package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// reader reads sets out of the kernel. The library's way of doing it is
// quadratic in the kernel, because it offers a small buffer (1.4 s for 100,000
// elements against 0.2 s, Linux 6.18), and panics on malformed userdata, which
// anybody with CAP_NET_ADMIN can leave in our table.
type reader struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	buf  []byte
}

// dumpBuffer is what a dump is read with. The kernel fills at most 32 KB.
const dumpBuffer = 64 << 10

func newReader(netns int) (*reader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &reader{conn: conn, raw: raw, buf: make([]byte, dumpBuffer)}, nil
}

func (r *reader) close() error { return r.conn.Close() }

// dump asks for all objects of a type and calls each with the attributes of
// every object, which are valid during the call, and the time they were read.
// It reports whether the kernel says that something changed meanwhile.
func (r *reader) dump(msg uint16, request []netlink.Attribute, each func(attrs []byte, read time.Time)) (changed bool, err error) {
	data, err := netlink.MarshalAttributes(request)
	if err != nil {
		return false, fmt.Errorf("encode request: %w", err)
	}
	// struct nfgenmsg: family, version, resource id.
	data = append([]byte{byte(nftables.TableFamilyINet), unix.NFNETLINK_V0, 0, 0}, data...)
	sent, err := r.conn.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | msg), Flags: netlink.Request | netlink.Dump},
		Data:   data,
	})
	if err != nil {
		return false, fmt.Errorf("request dump: %w", err)
	}
	// The kernel makes the next piece of a dump while it hands one over
	// (netlink_recvmsg), the first one with the request. However long this
	// process was kept from reading, that is the time its times count from.
	for made := time.Now(); ; {
		n, err := r.receive()
		if err != nil {
			return changed, fmt.Errorf("read dump: %w", err)
		}
		read := made
		made = time.Now()
		done, again, err := walk(r.buf[:n], sent.Header.Sequence, read, each)
		changed = changed || again
		if done || err != nil {
			return changed, err
		}
	}
}

// single asks for one object and returns its attributes, which are valid until
// the next call.
func (r *reader) single(msg uint16, request []netlink.Attribute) ([]byte, error) {
	data, err := netlink.MarshalAttributes(request)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	sent, err := r.conn.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | msg), Flags: netlink.Request},
		Data:   append([]byte{byte(nftables.TableFamilyINet), unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if err != nil {
		return nil, err
	}
	for {
		n, err := r.receive()
		if err != nil {
			return nil, err
		}
		for h, body := range messages(r.buf[:n]) {
			switch {
			case !h.whole || h.sequence != sent.Header.Sequence || len(body) < 4:
			case h.typ == unix.NLMSG_ERROR:
				return nil, status(body)
			default:
				return body[4:], nil
			}
		}
	}
}

func (r *reader) receive() (n int, err error) {
	var flags int
	ioErr := r.raw.Read(func(fd uintptr) bool {
		n, _, flags, _, err = unix.Recvmsg(int(fd), r.buf, nil, 0)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if ioErr != nil {
		return 0, ioErr
	}
	if err == nil && flags&unix.MSG_TRUNC != 0 {
		return 0, errors.New("message is longer than the buffer")
	}
	return n, err
}

// walk goes through the messages of one read. Messages of another request are
// what an aborted dump left behind.
func walk(b []byte, sequence uint32, read time.Time, each func([]byte, time.Time)) (done, changed bool, err error) {
	for h, body := range messages(b) {
		switch {
		case !h.whole:
			return false, changed, errors.New("malformed message in a dump")
		case h.sequence != sequence:
			continue
		}
		changed = changed || h.flags&unix.NLM_F_DUMP_INTR != 0
		switch h.typ {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			return true, changed, status(body)
		}
		if len(body) >= 4 {
			each(body[4:], read)
		}
	}
	return false, changed, nil
}

// status reads the negative errno that ends a dump.
func status(body []byte) error {
	if len(body) < 4 {
		return nil
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if code >= 0 {
		return nil
	}
	return unix.Errno(-code)
}

func text(s string) []byte { return append([]byte(s), 0) }
