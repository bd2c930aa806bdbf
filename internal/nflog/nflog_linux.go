package nflog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_log.h.
const (
	messagePacket = unix.NFNL_SUBSYS_ULOG << 8
	messageConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	configCommand   = 1 // struct nfulnl_msg_config_cmd
	configMode      = 2 // struct nfulnl_msg_config_mode
	configBuffer    = 3 // bytes of one message
	configThreshold = 5 // packets in one message
	configFlags     = 6

	commandBind   = 1
	copyPacket    = 2
	flagSequences = 1

	// messageBuffer is what the kernel allocates for a message at least. Its
	// default, a page, would fill the socket's buffer with nothing.
	messageBuffer = 512
)

// Reader reads one group of the network namespace it was opened in.
type Reader struct {
	conn *netlink.Conn
	next uint32 // the sequence number that is expected; Run's own
	// closed tells Run that an error is the end it was asked for.
	closed atomic.Bool
	// The counters have one writer, Run's goroutine.
	received, lost, overruns, malformed atomic.Uint64
}

// Open begins to read a group in the calling thread's network namespace:
// packets that are logged from now on are received or counted as lost. Close
// it when done. The error wraps ErrInUse, ErrPermission or ErrUnsupported
// where one fits.
func Open(c Config) (*Reader, error) {
	c = c.withDefaults()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("NFLOG group %d: %w", c.Group, explain(err, c.Group))
	}
	if err := configure(conn, c); err != nil {
		return nil, errors.Join(fmt.Errorf("NFLOG group %d: %w", c.Group, explain(err, c.Group)), conn.Close())
	}
	return &Reader{conn: conn}, nil
}

func configure(conn *netlink.Conn, c Config) error {
	if err := conn.SetReadBuffer(c.Buffer); err != nil {
		return err
	}
	mode := append(binary.BigEndian.AppendUint32(nil, c.CopyLength), copyPacket, 0)
	// The group is bound first: its settings belong to who has bound it. No
	// family is bound (NFULNL_CFG_CMD_PF_BIND): that is for the kernel's own
	// logging, and log rules name their group.
	for _, attrs := range [][]netlink.Attribute{
		{{Type: configCommand, Data: []byte{commandBind}}},
		{
			{Type: configMode, Data: mode},
			{Type: configBuffer, Data: binary.BigEndian.AppendUint32(nil, messageBuffer)},
			{Type: configThreshold, Data: binary.BigEndian.AppendUint32(nil, 1)},
			{Type: configFlags, Data: binary.BigEndian.AppendUint16(nil, flagSequences)},
		},
	} {
		body, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			return err
		}
		_, err = conn.Execute(netlink.Message{
			Header: netlink.Header{Type: messageConfig, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, c.Group), body...),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// explain adds to what the kernel says the sentinel that fits. EPERM means
// that somebody else has the group, or that a capability is missing: the
// kernel's list of groups tells which.
func explain(err error, group uint16) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return ErrInUse
	case errors.Is(err, unix.EPERM):
		if who, taken := owner(group); taken {
			return fmt.Errorf("%w (netlink port %d)", ErrInUse, who)
		}
		return ErrPermission
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}

// owner looks a group up in the kernel's list: one line each, with the group
// and the netlink port of its reader, usually the process's number.
func owner(group uint16) (port uint32, taken bool) {
	data, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_log")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != strconv.Itoa(int(group)) {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 32)
		return uint32(n), err == nil
	}
	return 0, false
}

// Run hands each packet to f until the Reader is closed, and then returns nil.
// The packet is f's for the time of the call. It is called at most once.
func (r *Reader) Run(f func(*Packet)) error {
	var p Packet
	for {
		messages, err := r.conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			r.overruns.Add(1)
			continue
		case err != nil && r.closed.Load():
			return nil
		case err != nil:
			return fmt.Errorf("read NFLOG: %w", err)
		}
		for _, m := range messages {
			if m.Header.Type != messagePacket {
				continue
			}
			if p.parse(m.Data) != nil {
				r.malformed.Add(1)
				continue
			}
			r.follow(&p)
			r.received.Add(1)
			f(&p)
		}
	}
}

// follow counts what is missing between two sequence numbers.
func (r *Reader) follow(p *Packet) {
	if !p.hasSequence {
		return
	}
	if gap := p.sequence - r.next; gap < 1<<31 {
		r.lost.Add(uint64(gap))
	}
	r.next = p.sequence + 1
}

// Stats may be called at any time, from any goroutine.
func (r *Reader) Stats() Stats {
	return Stats{Received: r.received.Load(), Lost: r.lost.Load(), Overruns: r.overruns.Load(), Malformed: r.malformed.Load()}
}

// Close gives the group up and ends Run. It is idempotent.
func (r *Reader) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	return r.conn.Close()
}
