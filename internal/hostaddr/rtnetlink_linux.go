package hostaddr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// dumpTimeout bounds one dump; the kernel answers in the same breath.
	dumpTimeout = 10 * time.Second
	// dumpAttempts is how often a dump is taken that something changes under,
	// with pauses of 1, 4 and 16 ms between.
	dumpAttempts = 4
)

// errInterrupted: the list changed while the kernel printed it, so it may lack
// what has been there all the time.
var errInterrupted = errors.New("changed while it was read")

// dump asks rtnetlink for all objects of a type and calls each with the body of
// every message. The type of an answer is that of a new object, two below that
// of the request.
func dump(request netlink.HeaderType, body []byte, each func(body []byte)) error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	return errors.Join(dumpFrom(c, request, body, each), c.Close())
}

func dumpFrom(c *netlink.Conn, request netlink.HeaderType, body []byte, each func(body []byte)) error {
	if err := c.SetDeadline(time.Now().Add(dumpTimeout)); err != nil {
		return err
	}
	sent, err := c.Send(netlink.Message{
		Header: netlink.Header{Type: request, Flags: netlink.Request | netlink.Dump},
		Data:   body,
	})
	if err != nil {
		return err
	}
	interrupted := false
	for m, err := range c.ReceiveIter() {
		if err != nil {
			return err
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		if m.Header.Sequence == sent.Header.Sequence && m.Header.Type == request-2 {
			each(m.Data)
		}
	}
	if interrupted {
		return errInterrupted
	}
	return nil
}

// collect takes a dump until nothing changes meanwhile. Where changes do not
// end (a router that speaks BGP) it returns what any of the attempts found: an
// entry can slip through one of them, and what goes meanwhile tells of itself.
// With an error too it returns what it found: a message that cannot be read
// does not cost the others.
func collect[T any](request netlink.HeaderType, body []byte, parse func(body []byte) ([]T, error)) ([]T, error) {
	var all []T
	for attempt := range dumpAttempts {
		if attempt > 0 {
			time.Sleep(time.Millisecond << (2 * (attempt - 1)))
		}
		var out []T
		var malformed error
		err := dump(request, body, func(b []byte) {
			got, perr := parse(b)
			out = append(out, got...)
			if perr != nil {
				malformed = perr
			}
		})
		if !errors.Is(err, errInterrupted) {
			return out, errors.Join(err, malformed)
		}
		all = append(all, out...)
	}
	return all, nil
}

// own lists the addresses of all interfaces and the broadcast addresses of
// each IPv4 network.
func own() ([]Entry, error) {
	out, err := collect(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), parseAddress)
	if err != nil {
		err = fmt.Errorf("read interface addresses: %w", err)
	}
	return sorted(out), err
}

// gateways lists the next hops of the default routes of all tables.
func gateways() ([]Entry, error) {
	var out []Entry
	var errs []error
	named := map[uint32]bool{}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		body := make([]byte, unix.SizeofRtMsg)
		body[0] = family
		hops, err := collect(unix.RTM_GETROUTE, body, parseDefaultRoute)
		if err != nil {
			errs = append(errs, fmt.Errorf("read routes: %w", err))
		}
		for _, h := range hops {
			if h.via.IsValid() {
				out = append(out, host(h.via, "default gateway"))
			} else {
				named[h.object] = true
			}
		}
	}
	if len(named) > 0 {
		objects, err := nexthopObjects(named)
		errs = append(errs, err)
		out = append(out, objects...)
	}
	return sorted(out), errors.Join(errs...)
}

// nexthopObjects resolves next hops that routes name by number alone, which the
// kernel does where net.ipv4.nexthop_compat_mode is 0.
func nexthopObjects(named map[uint32]bool) ([]Entry, error) {
	objects, err := collect(unix.RTM_GETNEXTHOP, make([]byte, sizeofNhmsg), parseNexthop)
	if err != nil {
		err = fmt.Errorf("read next hops: %w", err)
	}
	for _, o := range objects {
		if named[o.id] {
			for _, member := range o.group {
				named[member] = true
			}
		}
	}
	var out []Entry
	for _, o := range objects {
		if named[o.id] && o.via.IsValid() {
			out = append(out, host(o.via, "default gateway"))
		}
	}
	return out, err
}

// join enters the multicast groups that tell of what Snapshot reads. Links are among them because the kernel drops IPv4 routes silently
// when a link goes down.
func (s *rtnetlink) join() error {
	for _, group := range []uint32{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	} {
		if err := s.conn.JoinGroup(group); err != nil {
			return err
		}
	}
	// Since Linux 5.3; before, there are no next hop objects to tell of.
	if err := s.conn.JoinGroup(unix.RTNLGRP_NEXTHOP); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// rtnetlink is the subscription to the kernel's notifications.
type rtnetlink struct{ conn *netlink.Conn }

func subscribe() (*rtnetlink, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	s := &rtnetlink{conn}
	if err := errors.Join(s.filter(), s.join()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

// filter has the kernel leave out notifications of routes that are no default
// route: a router that speaks BGP sees thousands a second.
func (s *rtnetlink) filter() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	// BPF reads in network byte order what the kernel wrote in its own.
	var native [2]byte
	swapped := func(t uint16) uint32 {
		binary.NativeEndian.PutUint16(native[:], t)
		return uint32(binary.BigEndian.Uint16(native[:]))
	}
	const typeAt, lengthAt = 4, unix.SizeofNlMsghdr + 1 // nlmsg_type, rtm_dst_len
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: typeAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: swapped(unix.RTM_NEWROUTE), Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: swapped(unix.RTM_DELROUTE), Jf: 2},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: lengthAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog)
	}); err != nil {
		return err
	}
	return set
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

var _ subscription = (*rtnetlink)(nil)
