package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/vishvananda/netns"
)

// usable says whether namespaces can be made by this process at all.
func usable() error {
	if os.Geteuid() != 0 {
		return ErrPermission
	}
	return nil
}

// Do runs f on a thread of this process that is inside the namespace, and
// waits for it. Sockets that f opens stay in the namespace when f is over;
// goroutines and programs that f starts need not be inside it (use Command for
// programs).
func (ns *NS) Do(f func() error) error {
	target, err := netns.GetFromName(ns.Name)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", ns.Name, err)
	}
	done := make(chan error, 1)
	go func() { done <- inside(target, f) }()
	return errors.Join(<-done, target.Close())
}

// inside moves the goroutine's thread into target, runs f and moves it back. A
// thread that cannot go back stays locked, so the runtime destroys it with the
// goroutine instead of reusing it in the wrong namespace.
func inside(target netns.NsHandle, f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own namespace: %w", err)
	}
	if err := netns.Set(target); err != nil {
		runtime.UnlockOSThread()
		return errors.Join(fmt.Errorf("enter namespace: %w", err), home.Close())
	}
	err = f()
	if back := netns.Set(home); back != nil {
		return errors.Join(err, fmt.Errorf("leave namespace: %w", back), home.Close())
	}
	runtime.UnlockOSThread()
	return errors.Join(err, home.Close())
}

// kill ends a process of a namespace that is about to go. One that is gone
// already is what we wanted.
func kill(pid string) {
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 1 || n == os.Getpid() {
		return
	}
	_ = syscall.Kill(n, syscall.SIGKILL) // ESRCH: it ended by itself
}
