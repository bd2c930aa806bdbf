package capture

import (
	"log/slog"

	"golang.org/x/net/bpf"
)

// AnyInterface captures on all interfaces at once.
const AnyInterface = "any"

// LiveConfig says what OpenLive captures.
type LiveConfig struct {
	// Interface is its name, or AnyInterface.
	Interface string
	// Promiscuous asks for frames addressed to other hosts, too. It does not
	// go with AnyInterface and is then ignored.
	Promiscuous bool
	// SnapLen is how many bytes of a packet are kept; 0 means 262144. No more
	// than a block of the ring is kept of any packet.
	SnapLen int
	// RingBytes is the size of the ring buffer in front of Next, each worker's;
	// 0 means 64 MiB for one worker, 32 MiB for each of several. Where the
	// kernel has no memory for it, it is halved until it has.
	RingBytes int
	// Workers is how many sources OpenWorkers makes; 0 means 1.
	Workers int
	// Filter is the program that says which packets are captured, as
	// LiveSource.SetFilter takes it; nil captures all.
	Filter []bpf.RawInstruction
	// Log gets a line each time the interface goes down, vanishes, comes back
	// or changes its type. Nil discards them.
	Log *slog.Logger
}

// Finisher is a Source without an end of its own, as a live one is.
type Finisher interface {
	Source
	// Finish sets the end to now: Next gives what was captured until then and
	// then io.EOF. It does not wait, and may be called from anywhere; Close
	// is still to follow.
	Finish() error
}

// LiveSource is what OpenLive gives.
type LiveSource interface {
	Finisher
	// SetFilter puts another program in the place of the one in force, in one
	// step; nil captures everything. The program sees a packet as it was
	// received: from the Ethernet header on, without a VLAN tag that the
	// kernel took off; on interfaces without link header, from the IP header
	// on (SKF_AD_HATYPE tells which). It returns how many bytes to keep, 0 for
	// none. Packets in the ring stay. It may be called from anywhere.
	SetFilter(program []bpf.RawInstruction) error
	// OnWait has f called by Next, in its goroutine, each time that there is
	// nothing to give and it is about to wait. It must be set before the first
	// Next.
	OnWait(f func())
}

const (
	defaultSnapLen = 262144
	defaultRing    = 64 << 20
	// maxWorkers is the kernel's limit of a fanout group before 5.10.
	maxWorkers = 256
)

// filled returns the configuration with its defaults.
func (c LiveConfig) filled() LiveConfig {
	if c.SnapLen <= 0 || c.SnapLen > defaultSnapLen {
		c.SnapLen = defaultSnapLen
	}
	c.Workers = min(max(c.Workers, 1), maxWorkers)
	if c.RingBytes <= 0 {
		c.RingBytes = defaultRing / min(c.Workers, 2)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
