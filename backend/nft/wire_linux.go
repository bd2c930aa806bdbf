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

// wire makes transactions and sends them over the library's connection, whose
// netlink port owns the table. The library encodes tables, chains, rules and
// sets (see structure); elements are written by hand (see elements), because
// its own way costs more than the kernel's work (104 ms against 66 ms for
// 100,000) and knows no limit in an element.
type wire struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	buf  []byte
	// last is where the last message begins in buf.
	last     int
	sequence uint32
	// now is when the transaction was begun: what timeouts count from.
	now time.Time
	// room is how much the socket takes at once, in bytes.
	room int
	// answer is what the kernel's word is read into.
	answer []byte
}

// answerSize is how much of the kernel's word is read at once.
const answerSize = 4096

const (
	// keep is the largest buffer that is kept when a change is done.
	keep = 64 << 10
	// skbOverhead is what the kernel takes off the socket's buffer
	// (netlink_sendmsg).
	skbOverhead  = 32
	nftSubsystem = unix.NFNL_SUBSYS_NFTABLES << 8
)

func newWire(conn *netlink.Conn) (*wire, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	// An error then comes back without the message that it is about.
	if err := conn.SetOption(netlink.CapAcknowledge, true); err != nil {
		return nil, fmt.Errorf("set socket option: %w", err)
	}
	w := &wire{conn: conn, raw: raw, answer: make([]byte, answerSize)}
	w.room, err = conn.WriteBuffer()
	return w, err
}

// begin begins a transaction, and forgets one that was not committed.
func (w *wire) begin() {
	w.buf = w.buf[:0]
	w.last = 0
	w.now = time.Now()
	w.open(unix.NFNL_MSG_BATCH_BEGIN, 0)
	w.shut()
}

// release gives back a large buffer.
func (w *wire) release() {
	if cap(w.buf) > keep {
		w.buf = nil
	}
}

// open begins a message: struct nlmsghdr and struct nfgenmsg.
func (w *wire) open(typ, flags uint16) {
	w.last = len(w.buf)
	w.sequence++
	family, resource := byte(nftables.TableFamilyINet), uint16(0)
	if typ == unix.NFNL_MSG_BATCH_BEGIN || typ == unix.NFNL_MSG_BATCH_END {
		family, resource = unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES
	}
	w.header(typ, flags|unix.NLM_F_REQUEST)
	w.buf = append(w.buf, family, unix.NFNETLINK_V0)
	w.buf = binary.BigEndian.AppendUint16(w.buf, resource)
}

func (w *wire) header(typ, flags uint16) {
	w.buf = append(w.buf, 0, 0, 0, 0) // the length; see shut
	w.buf = binary.NativeEndian.AppendUint16(w.buf, typ)
	w.buf = binary.NativeEndian.AppendUint16(w.buf, flags)
	w.buf = binary.NativeEndian.AppendUint32(w.buf, w.sequence)
	w.buf = append(w.buf, 0, 0, 0, 0) // the kernel knows the port
}

// shut ends the message.
func (w *wire) shut() {
	binary.NativeEndian.PutUint32(w.buf[w.last:], uint32(len(w.buf)-w.last))
}

// structure adds what f tells the library to do. The library gives its
// messages only to a connection, so it gets one that keeps them.
func (w *wire) structure(f func(*nftables.Conn) error) error {
	var messages []netlink.Message
	c, err := nftables.New(nftables.WithTestDial(func(batch []netlink.Message) ([]netlink.Message, error) {
		messages = append(messages, batch...)
		return nil, nil
	}))
	if err == nil {
		err = f(c)
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	for _, m := range messages {
		if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
			continue // begin and end of its batch
		}
		w.last = len(w.buf)
		w.sequence++
		w.header(uint16(m.Header.Type), uint16(m.Header.Flags&^(netlink.Acknowledge|netlink.Echo)))
		w.buf = append(w.buf, m.Data...)
		for len(w.buf)%4 != 0 {
			w.buf = append(w.buf, 0)
		}
		w.shut()
	}
	return nil
}

// commit sends the transaction and waits for the kernel's word. An empty one
// is not sent.
func (w *wire) commit() error {
	if w.last == 0 {
		return nil
	}
	flags := w.buf[w.last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	want := w.sequence
	w.open(unix.NFNL_MSG_BATCH_END, 0)
	w.shut()
	if len(w.buf) > w.room-skbOverhead {
		// Where that is not allowed, the kernel finds the message too long.
		_ = w.conn.SetWriteBuffer(len(w.buf) + skbOverhead)
		if n, err := w.conn.WriteBuffer(); err == nil {
			w.room = n
		}
	}
	// Written without an address, it goes to the kernel (netlink(7)).
	var err error
	ioErr := w.raw.Write(func(fd uintptr) bool {
		for {
			_, err = unix.Write(int(fd), w.buf)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if err = errors.Join(ioErr, err); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return w.verdict(want)
}

// verdict reads what the kernel says of a transaction: one acknowledgement of
// its last message, the one with the sequence number want, or an error for each
// message that failed. All of it is there when the transaction was sent.
func (w *wire) verdict(want uint32) error {
	var first error
	acknowledged := false
	for !acknowledged {
		n, err := w.receive()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		for h, body := range messages(w.answer[:n]) {
			if !h.whole || h.typ != unix.NLMSG_ERROR || len(body) < 4 {
				continue
			}
			if err := status(body); err == nil {
				acknowledged = acknowledged || h.sequence == want
			} else if first == nil {
				first = err
			}
		}
	}
	if first == nil && !acknowledged {
		return errors.New("the kernel did not answer")
	}
	return first
}

// receive reads into answer; EAGAIN where there is nothing.
func (w *wire) receive() (n int, err error) {
	ioErr := w.raw.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Read(int(fd), w.answer) // the socket does not wait
			if !errors.Is(err, unix.EINTR) {
				return true
			}
		}
	})
	return n, errors.Join(ioErr, err)
}
