package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerKey finds the client's credentials in a request's context.
type peerKey struct{}

// listenControl makes the socket with mode 0660: it never exists with a wider
// one, because the umask says so before it is bound.
func listenControl(path string) (net.Listener, error) {
	old := unix.Umask(0o117)
	defer unix.Umask(old)
	return net.Listen("unix", path)
}

// withPeer notes who is on the other end, as the kernel says.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if s, ok := c.(*slotConn); ok {
		c = s.Conn
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	cred, err := peerOf(u)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, cred)
}

// peerOf is who is on the other end of a connection: for a client, who listens
// there.
func peerOf(u *net.UnixConn) (*unix.Ucred, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(cerr, err)
}

// elsewhere reports whether the process on the other end is known to work in
// another network namespace.
func elsewhere(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	cred, err := peerOf(u)
	if err != nil {
		return false
	}
	theirs, terr := os.Stat(fmt.Sprintf("/proc/%d/ns/net", cred.Pid))
	ours, oerr := os.Stat("/proc/thread-self/ns/net")
	return terr == nil && oerr == nil && !os.SameFile(theirs, ours)
}

// mayControl lets root, the guard's own user and members of the guard's group
// in. The socket's mode says the same; this holds even where somebody widened
// it.
func mayControl(ctx context.Context) error {
	cred, ok := ctx.Value(peerKey{}).(*unix.Ucred)
	if !ok {
		return Exit(ExitFailed, "the kernel does not say who asks")
	}
	if cred.Uid == 0 || int(cred.Uid) == os.Geteuid() || int(cred.Gid) == os.Getegid() {
		return nil
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cred.Pid))
	if err == nil && slices.Contains(parseGroups(string(status)), strconv.Itoa(os.Getegid())) {
		return nil
	}
	return &ExitError{ExitFailed, fmt.Errorf("user %d may not control the guard: %w", cred.Uid, syscall.EACCES)}
}
