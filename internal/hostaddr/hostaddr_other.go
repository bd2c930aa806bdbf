//go:build !linux

package hostaddr

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// own lists the addresses of all interfaces and the directed broadcast of
// each IPv4 network.
func own() ([]Entry, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read interface addresses: %w", err)
	}
	var out []Entry
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue // a point-to-point peer without a prefix length
		}
		out = append(out, host(p.Addr(), ownAddress))
		if b, ok := broadcast(p); ok {
			out = append(out, host(b, "broadcast"))
		}
	}
	return sorted(out), nil
}

// gateways finds none: nothing is enforced on this system, so nothing can
// lock anybody out.
func gateways() ([]Entry, error) { return nil, nil }

// sshPeers reads this process's own environment only.
func sshPeers() ([]Entry, error) {
	return parseSSHConnection(os.Getenv("SSH_CONNECTION")), nil
}

// pollInterval is how often addresses are read where no kernel tells of
// changes.
const pollInterval = 10 * time.Second

// poll is the subscription of a system that has none: it hints by the clock.
type poll struct{ stop chan struct{} }

func subscribe() (*poll, error) { return &poll{make(chan struct{})}, nil }

func (p *poll) run(hints chan<- struct{}) error {
	t := time.NewTicker(pollInterval)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return nil
		case <-t.C:
			hint(hints)
		}
	}
}

func (p *poll) close() error {
	close(p.stop)
	return nil
}
