package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netns"
)

// netnsMarker is set in the environment of a process that entered a namespace
// by executing itself, so that a failure to arrive there cannot loop.
const netnsMarker = "NETCAP_GUARD_NETNS"

// EnterNetns moves the whole process into a network namespace: a name as
// `ip netns` lists it, or a path. Go cannot move the threads it has already
// started, so one thread enters and executes the program again from there:
// every thread and every child (iptables) of the new image is inside. It
// returns only when the process is inside already, or with an error.
func EnterNetns(name string) error {
	if name == "" {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	open := netns.GetFromName
	if strings.Contains(name, "/") {
		open = netns.GetFromPath
	}
	target, err := open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network namespace %q does not exist (see ip netns list)", name)
	}
	if err != nil {
		return fmt.Errorf("open network namespace %q: %w", name, err)
	}
	defer target.Close()
	here, err := netns.Get()
	if err != nil {
		return fmt.Errorf("read own network namespace: %w", err)
	}
	defer here.Close()
	if here.Equal(target) {
		return nil
	}
	if os.Getenv(netnsMarker) == name {
		return fmt.Errorf("network namespace %q was entered, yet the process is elsewhere", name)
	}
	if err := netns.Set(target); err != nil {
		return fmt.Errorf("enter network namespace %q (needs root or CAP_SYS_ADMIN): %w", name, err)
	}
	err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), netnsMarker+"="+name))
	return fmt.Errorf("execute again inside network namespace %q: %w", name, err)
}
