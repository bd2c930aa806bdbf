package capture

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// linkState is what matters of an interface. The zero linkState stands for all
// interfaces.
type linkState struct {
	index    int
	up       bool
	hardware uint16
}

// follower knows how the captured interface was, when last looked at.
type follower struct {
	link    linkState
	gone    bool // it was removed, and none has taken its name
	failing bool // one has, but cannot be captured on
	waiting bool // one may have; first, what the old one's ring holds is read
}

// timeout is how long may be waited without looking, in ms; -1 = as long as
// nothing happens.
func (f *follower) timeout() int {
	switch {
	case f.waiting:
		return 5
	case f.gone:
		return 1000 // one that came back may have failed to open
	}
	return -1
}

// find looks the interface up by its name. Without the privilege to capture,
// too, an unknown one is named as such.
func (f *follower) find(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	f.link, err = lookUp(fd, name)
	return err
}

// lookUp asks, through a socket and so in its network namespace, for the
// interface with the name.
func lookUp(fd int, name string) (linkState, error) {
	var s linkState
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
	}
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EINVAL): // EINVAL: no name could be that long
		return s, fmt.Errorf("%w; %s", ErrInterface, present())
	case err != nil:
		return s, fmt.Errorf("look interface up: %w", err)
	}
	s.index = int(req.Uint32())
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return s, fmt.Errorf("read interface flags: %w", gone(err))
	}
	s.up = req.Uint16()&unix.IFF_UP != 0
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, req); err != nil {
		return s, fmt.Errorf("read hardware type: %w", gone(err))
	}
	s.hardware = req.Uint16()
	return s, nil
}

// gone translates the error for an interface that was there just now.
func gone(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return ErrInterface
	}
	return err
}

// nameOf is the name that the interface has now.
func nameOf(fd, index int) (string, error) {
	req, err := unix.NewIfreq("lo") // any name
	if err != nil {
		return "", err
	}
	req.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, req); err != nil {
		return "", gone(err)
	}
	return req.Name(), nil
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

// openHints subscribes to changes of interfaces. What the messages say is not
// read: each is a reason to look.
func openHints() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		_ = unix.Close(fd) // nothing was written
		return -1, fmt.Errorf("follow interfaces: %w", err)
	}
	return fd, nil
}

// drainHints forgets the messages so far. One that was lost for lack of room
// (ENOBUFS) has its successors.
func drainHints(fd int) {
	var buf [1]byte // a message is cut to it
	for {
		_, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// changed looks at what has become of the interface and tells of it.
func (l *live) changed() error {
	pending, err := unix.GetsockoptInt(l.ring.fd, unix.SOL_SOCKET, unix.SO_ERROR) // which clears it
	if err == nil && pending != 0 && unix.Errno(pending) != unix.ENETDOWN {
		return fmt.Errorf("packet socket: %w", unix.Errno(pending))
	}
	if l.hintFD < 0 {
		return nil // one of all interfaces
	}
	drainHints(l.hintFD)
	f := &l.follow
	if !f.gone {
		name, err := nameOf(l.hintFD, f.link.index)
		if err == nil {
			var now linkState
			if now, err = lookUp(l.hintFD, name); err == nil && now.index == f.link.index {
				l.compare(now)
				return nil
			}
		}
		if err != nil && !errors.Is(err, ErrInterface) {
			return fmt.Errorf("look at the interface: %w", err)
		}
		f.gone = true
		l.tell("is gone: nothing is captured on it until one of this name is there")
	}
	return l.comeBack()
}

// compare tells of what has changed of an interface that is still there.
func (l *live) compare(now linkState) {
	was := l.follow.link
	l.follow.link = now
	if was.hardware != now.hardware {
		l.tell(fmt.Sprintf("has another hardware type: %d, it was %d", now.hardware, was.hardware))
	}
	switch {
	case was.up && !now.up:
		l.tell("is down: nothing is captured on it until it is up")
	case !was.up && now.up:
		l.tell("is up again")
	}
}

// comeBack captures on the interface that has the name of the one that is
// gone, if there is one. The blocks of the old ring were read.
func (l *live) comeBack() error {
	f := &l.follow
	if f.waiting = l.ring.filling(); f.waiting {
		return nil
	}
	now, err := lookUp(l.hintFD, l.config.Interface)
	if errors.Is(err, ErrInterface) {
		return nil
	}
	if err == nil {
		err = l.replace(now)
	}
	if err != nil {
		if !f.failing {
			l.tell("is back, but cannot be captured on yet: " + err.Error())
		}
		f.failing = true
		return nil
	}
	f.link, f.gone, f.failing = now, false, false
	what := "is back"
	if !now.up {
		what = "is back, but down: nothing is captured on it until it is up"
	}
	l.tell(what)
	return nil
}

// replace puts a new ring in the place of the old one.
func (l *live) replace(now linkState) error {
	l.control.Lock()
	defer l.control.Unlock()
	fresh, err := l.openRing(now)
	if err != nil {
		return err
	}
	l.count()
	l.ring.close()
	l.ring = fresh
	return nil
}

// tell writes one line, of all workers' sources once.
func (l *live) tell(what string) {
	if l.first {
		l.config.Log.Warn("interface " + l.config.Interface + " " + what)
	}
}
