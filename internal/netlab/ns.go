package netlab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
)

// Command prepares a program that will run inside the namespace. ip netns exec
// replaces itself with the program, so the process id is the program's own and
// a signal sent to it reaches the program. When ctx ends the program is
// killed; its output pipes are given up 2 s later at the latest.
func (ns *NS) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns.Name, name}, args...)...)
	cmd.WaitDelay = pipeWait
	return cmd
}

// Exec runs a program inside the namespace to its end and returns what it
// printed on both outputs. A program that ends with a status other than 0 is
// an error that wraps *exec.ExitError and carries the output.
func (ns *NS) Exec(ctx context.Context, name string, args ...string) (string, error) {
	return finish(ns.Command(ctx, name, args...))
}

// IP runs ip with the arguments inside the namespace.
func (ns *NS) IP(ctx context.Context, args ...string) error {
	_, err := ip(ctx, append([]string{"-n", ns.Name}, args...)...)
	return err
}

// Default sets the default route of the gateway's family.
func (ns *NS) Default(ctx context.Context, gateway netip.Addr) error {
	prefix := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if gateway.Is6() {
		prefix = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return ns.Route(ctx, prefix, gateway)
}

// Route adds a route to the prefix through a neighbour.
func (ns *NS) Route(ctx context.Context, prefix netip.Prefix, via netip.Addr) error {
	return ns.IP(ctx, "route", "add", prefix.String(), "via", via.String())
}

// Forward makes the namespace a router for both families.
func (ns *NS) Forward() error {
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := ns.Sysctl(key, "1"); err != nil {
			return err
		}
	}
	return nil
}

// Sysctl sets a network parameter of the namespace; key is its path below
// /proc/sys, e.g. net/ipv4/ip_forward. /proc/sys/net shows the namespace of
// the thread that opens it, so no remounting is needed.
func (ns *NS) Sysctl(key, value string) error {
	return ns.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0); err != nil {
			return fmt.Errorf("set %s=%s in %s: %w", key, value, ns.Name, err)
		}
		return nil
	})
}
