package conntrack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_conntrack.h.
const (
	messageGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	messageDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	messageStats  = unix.NFNL_SUBSYS_CTNETLINK<<8 | 4 // of each processor

	nestedFlag = 1 << 15
	// readBuffer takes a dump's messages while earlier ones are read.
	readBuffer = 1 << 20
)

// dial opens a connection whose calls end with ctx, and returns how to close it.
func dial(ctx context.Context) (*netlink.Conn, func() error, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, nil, explain(err)
	}
	deadline, _ := ctx.Deadline() // Kill and Probe set one
	if err := errors.Join(conn.SetReadBuffer(readBuffer), conn.SetDeadline(deadline)); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Unix(1, 0)) // closed meanwhile, or its calls end now
	})
	return conn, func() error {
		stop()
		return conn.Close()
	}, nil
}

// kill is Kill with at most so many entries in memory.
func kill(ctx context.Context, m *matcher, most int) (n int, err error) {
	conn, end, err := dial(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, end()) }()
	for f, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if m.lengths[f] == nil {
			continue
		}
		for more := true; more; {
			var found []entry
			if found, more, err = dump(conn, family, m, most); err != nil {
				return n, explain(err)
			}
			for i := range found {
				gone, err := remove(conn, &found[i])
				n += gone
				if err != nil {
					return n, explain(err)
				}
			}
		}
	}
	return n, nil
}

// dump returns the entries of a family that belong to the matcher's prefixes,
// and whether there are more than it may return.
func dump(conn *netlink.Conn, family byte, m *matcher, most int) (found []entry, more bool, err error) {
	_, err = conn.Send(netlink.Message{
		Header: netlink.Header{Type: messageGet, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{family, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return nil, false, err
	}
	var broken error
	for msg, err := range conn.ReceiveIter() {
		if err != nil {
			return nil, false, err
		}
		var e entry
		if err := e.parse(msg.Data); err != nil {
			broken = err
			continue
		}
		if !m.any(&e) {
			continue
		}
		if more = len(found) == most; !more {
			e.orig, e.id, e.zone = bytes.Clone(e.orig), bytes.Clone(e.id), bytes.Clone(e.zone)
			found = append(found, e)
		}
	}
	return found, more, broken
}

// remove deletes one entry; one that ended by itself is none.
func remove(conn *netlink.Conn, e *entry) (int, error) {
	attrs := []netlink.Attribute{{Type: attrOrig | nestedFlag, Data: e.orig}}
	if len(e.id) > 0 {
		attrs = append(attrs, netlink.Attribute{Type: attrID, Data: e.id})
	}
	if len(e.zone) > 0 {
		attrs = append(attrs, netlink.Attribute{Type: attrZone, Data: e.zone})
	}
	body, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return 0, err
	}
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: messageDelete, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{e.family, unix.NFNETLINK_V0, 0, 0}, body...),
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return 1, nil
}

// probe asks for the counters of each processor: the one answer that costs
// nothing however long the table is.
func probe(ctx context.Context) (err error) {
	conn, end, err := dial(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: messageStats, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	return explain(err)
}

// explain adds the sentinel that fits to what the kernel says. A subsystem of
// nfnetlink that is not there is EINVAL.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return ErrPermission
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}
