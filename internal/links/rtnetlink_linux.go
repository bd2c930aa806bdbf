package links

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// dumpTimeout bounds one dump; the kernel answers in the same breath.
	dumpTimeout = 10 * time.Second
	// dumpAttempts is how often a dump is taken that something changes under.
	// The last one stands: whatever changed tells of itself.
	dumpAttempts = 4
	// skipStatistics is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: counters
	// are most of a message.
	skipStatistics = 1 << 3
)

// read lists the links of the namespace.
func read() ([]Link, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	all, err := dump(c)
	return all, errors.Join(err, c.Close())
}

func dump(c *netlink.Conn) ([]Link, error) {
	if err := c.SetDeadline(time.Now().Add(dumpTimeout)); err != nil {
		return nil, err
	}
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.IFLA_EXT_MASK, Data: binary.NativeEndian.AppendUint32(nil, skipStatistics)},
	})
	if err != nil {
		return nil, err
	}
	request := netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   append(make([]byte, unix.SizeofIfInfomsg), attrs...),
	}
	var all []Link
	for range dumpAttempts {
		answers, err := c.Execute(request)
		if err != nil {
			return nil, err
		}
		all = all[:0]
		interrupted := false
		for _, m := range answers {
			interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
			if m.Header.Type != unix.RTM_NEWLINK {
				continue
			}
			l, err := parse(m.Data)
			if err != nil {
				return nil, err
			}
			all = append(all, l)
		}
		if !interrupted {
			break
		}
	}
	return all, nil
}

// rtnetlink is the subscription to the kernel's notifications.
type rtnetlink struct{ conn *netlink.Conn }

func subscribe() (*rtnetlink, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	if err := conn.JoinGroup(unix.RTNLGRP_LINK); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &rtnetlink{conn}, nil
}

// run reads notifications for nothing but that they came: what they mean is
// found out by reading everything. ENOBUFS says that some were lost, which
// means just the same.
func (s *rtnetlink) run(hints chan<- struct{}) error {
	for {
		if _, err := s.conn.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		hint(hints)
	}
}

func (s *rtnetlink) close() error { return s.conn.Close() }
