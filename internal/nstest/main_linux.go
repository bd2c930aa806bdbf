package nstest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const ownNS = "/proc/self/ns/net"

// errRoot is the one reason for which tests are passed over.
var errRoot = errors.New("these tests need root: they run in a network namespace of their own")

// enter makes the namespace, or runs the tests where it is made. It returns
// the process's exit code.
func enter(run func() int) int {
	from, again := os.LookupEnv(fromEnv)
	if again {
		if err := verify(from); err != nil {
			_, _ = fmt.Fprintf(os.Stderr, "nstest: refusing to run the tests: %v\n", err)
			return 1
		}
		return run()
	}
	if os.Geteuid() != 0 {
		return cannot(os.Stderr, Required(), errRoot)
	}
	err := reexec()
	_, _ = fmt.Fprintf(os.Stderr, "nstest: %v\n", err)
	return 1
}

// reexec returns only an error. The exec takes place on the thread that left
// the old namespace: the kernel ends all other threads and the process goes on
// as that one, so afterwards no thread is left outside.
func reexec() error {
	old, err := os.Readlink(ownNS)
	if err != nil {
		return fmt.Errorf("read own namespace: %w", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the test binary: %w", err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if err := loUp(); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return fmt.Errorf("execute %s: %w", exe, syscall.Exec(exe, os.Args, append(os.Environ(), fromEnv+"="+old)))
}

// loUp sets the flag IFF_UP of lo in the calling thread's namespace.
func loUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return errors.Join(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req), unix.Close(fd))
}

// verify checks that every thread of this process is in one namespace, and
// that it is neither the one named by from, in which the first run started,
// nor that of process 1 where that can be read.
func verify(from string) error {
	if !strings.HasPrefix(from, "net:[") {
		return fmt.Errorf("%s=%q names no network namespace", fromEnv, from)
	}
	own, err := os.Readlink(ownNS)
	if err != nil {
		return fmt.Errorf("read own namespace: %w", err)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(tasks) == 0 {
		return fmt.Errorf("list own threads: %w", errors.Join(err, os.ErrNotExist))
	}
	for _, task := range tasks {
		ns, err := os.Readlink(task)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread ended
		}
		if err != nil || ns != own {
			return fmt.Errorf("thread in %q, process in %q: %w", ns, own, errors.Join(err, errors.ErrUnsupported))
		}
	}
	// A container may hide the namespaces of process 1 even from root; the
	// identity from before the exec is what the check rests on.
	first, err := os.Readlink("/proc/1/ns/net")
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("read the namespace of process 1: %w", err)
	}
	if own == from || own == first {
		return fmt.Errorf("still in the network namespace %s of the machine", own)
	}
	return nil
}
