// Package netlab builds throwaway networks out of network namespaces: named
// namespaces, veth pairs between them, addresses, routes and the programs that
// run inside. The demo and the tests share it, so it knows nothing of package
// testing.
//
// Everything goes through the program ip of iproute2, as an administrator
// would type it; only entering a namespace with a thread of this process
// (NS.Do) uses the kernel directly. Linux only: elsewhere New says so.
package netlab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// Sentinels that callers branch on.
var (
	// ErrUnsupported: network namespaces exist on Linux only.
	ErrUnsupported = errors.New("network namespaces are only supported on Linux")
	// ErrPermission: making a namespace needs root.
	ErrPermission = errors.New("making network namespaces needs root")
	// ErrNoTool: a program is not installed.
	ErrNoTool = errors.New("program not found")
	// ErrClosed: the lab was closed.
	ErrClosed = errors.New("lab is closed")
)

// namePrefix begins the name of every namespace a Lab makes, followed by the
// process id: what a killed process left is told from what is in use by it.
const namePrefix = "ng-"

// pipeWait is how long a finished or killed program's output pipes may stay
// open in the hands of its children before Wait gives up on them.
const pipeWait = 2 * time.Second

// Lab owns a group of namespaces and removes them all in Close. It is safe for
// concurrent use.
type Lab struct {
	label string

	mu     sync.Mutex // guards what follows; held while namespaces are made and removed
	spaces []*NS
	closed bool
}

// NS is one namespace of a Lab.
type NS struct {
	// Name is the namespace's name for ip netns, unique on this machine:
	// ng-PID-RANDOM-SHORT.
	Name  string
	short string
}

// End is one end of a veth pair: the namespace it lies in, its interface name
// there and its addresses, of either family.
type End struct {
	NS    *NS
	Iface string
	Addrs []netip.Prefix
}

// New checks that namespaces can be made here (Linux, root, the program ip)
// and returns an empty lab. Close it even if nothing was made.
func New() (*Lab, error) {
	if err := usable(); err != nil {
		return nil, err
	}
	if err := Tool("ip", "iproute2"); err != nil {
		return nil, err
	}
	var b [3]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("name lab: %w", err)
	}
	return &Lab{label: fmt.Sprintf("%s%d-%s", namePrefix, os.Getpid(), hex.EncodeToString(b[:]))}, nil
}

// Tool returns nil where the program is on the path, else an error wrapping
// ErrNoTool that names the package (Debian's name) to install.
func Tool(program, pkg string) error {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("%w: %s (install the package %s)", ErrNoTool, program, pkg)
	}
	return nil
}

// Namespace makes a namespace with lo up, IPv6 on and duplicate address
// detection off, so that addresses work at once. short tells the lab's
// namespaces apart and must be free in this lab.
func (l *Lab) Namespace(ctx context.Context, short string) (*NS, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	ns := &NS{Name: l.label + "-" + short, short: short}
	if _, err := ip(ctx, "netns", "add", ns.Name); err != nil {
		return nil, err
	}
	l.spaces = append(l.spaces, ns)
	for _, s := range [][2]string{{"disable_ipv6", "0"}, {"accept_dad", "0"}, {"dad_transmits", "0"}} {
		for _, scope := range []string{"all", "default", "lo"} {
			if err := ns.Sysctl("net/ipv6/conf/"+scope+"/"+s[0], s[1]); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
	}
	return ns, ns.IP(ctx, "link", "set", "lo", "up")
}

// Link joins two namespaces with a veth pair, addresses both ends and brings
// them up. The pair is made straight inside the namespaces, so its names
// collide with nothing outside.
func (l *Lab) Link(ctx context.Context, a, b End) error {
	_, err := ip(ctx, "link", "add", a.Iface, "netns", a.NS.Name, "type", "veth",
		"peer", "name", b.Iface, "netns", b.NS.Name)
	if err != nil {
		return err
	}
	for _, e := range []End{a, b} {
		if err := e.up(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (e End) up(ctx context.Context) error {
	for _, p := range e.Addrs {
		args := []string{"addr", "add", p.String(), "dev", e.Iface}
		if p.Addr().Is6() {
			args = append(args, "nodad")
		}
		if err := e.NS.IP(ctx, args...); err != nil {
			return err
		}
	}
	return e.NS.IP(ctx, "link", "set", e.Iface, "up")
}

// Close kills what still runs inside the namespaces and removes them; their
// interfaces, addresses and firewall rules go with them. It is idempotent, may
// be called from any goroutine while others use the lab (their programs die),
// and waits for no context, so that it also works after a signal.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var errs []error
	l.spaces = slices.DeleteFunc(l.spaces, func(ns *NS) bool {
		err := remove(ctx, ns)
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(errs...)
}

// remove kills the namespace's processes and takes its name away; the kernel
// destroys it with the last process.
func remove(ctx context.Context, ns *NS) error {
	out, err := ip(ctx, "netns", "pids", ns.Name)
	if err != nil {
		return err
	}
	for pid := range strings.FieldsSeq(out) {
		kill(pid)
	}
	_, err = ip(ctx, "netns", "del", ns.Name)
	return err
}

// ip runs the program ip and returns what it printed on both outputs.
func ip(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.WaitDelay = pipeWait
	return finish(cmd)
}

// finish runs a prepared program. Its error carries the command line and the
// output, and wraps *exec.ExitError where the program ran and failed.
func finish(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err == nil {
		return string(out), nil
	}
	line := strings.Join(cmd.Args, " ")
	if text := strings.TrimSpace(string(out)); text != "" {
		return string(out), fmt.Errorf("%s: %w: %s", line, err, text)
	}
	return string(out), fmt.Errorf("%s: %w", line, err)
}
