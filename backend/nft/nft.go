// Package nft is the nftables backend: one table of family inet with one hash
// set for each kind of block (action, target, family, prefix length), whose
// elements are the blocks. The kernel expires them; each carries its rule,
// reason and creation as a comment, so the kernel is the database.
//
//	table inet NETCAP {
//		counter count_drop4 { packets 3 bytes 180 }
//		set drop_src4_32 { type ipv4_addr; size 1000000; flags timeout; counter
//			elements = { 192.0.2.1 counter packets 3 bytes 180 timeout 1h expires 59m comment "NETCAP: ..." } }
//		chain source {
//			ip saddr @log_src4_32_NETCAP_3a_20 ip saddr != @allow4 log prefix "NETCAP: " group 77 snaplen 128
//			ip saddr @drop_src4_32 ip saddr != @allow4 counter name "count_drop4" drop
//			ip saddr @allow4 return
//			ip saddr & 255.255.255.0 == @drop_src4_24 counter name "count_drop4" drop
//			ip saddr @limit_src4_32 ip saddr != @allow4 counter name "count_limit4" drop }
//		chain prerouting { type filter hook prerouting priority raw - 10; jump source; jump destination }
//		...
//
// Why it is built so:
//
//   - prerouting at raw-10 comes before connection tracking and NAT and sees
//     what is for this host and what is forwarded, published container ports
//     included; output sees what this host sends. A drop there beats every
//     later accept.
//   - Both hooks look at both sides. A destination block therefore stops what
//     anyone sends to the address, this host's own reject answers included:
//     an address blocked with REJECT as source and with anything as
//     destination gets no answer. A source block never stops what this host
//     sends to the address.
//   - A set that knows intervals refuses nested and overlapping prefixes, and
//     adding to a large one costs milliseconds (Linux 6.18). A hash set for
//     each prefix length with a masked lookup has neither fault. The sets and
//     their rules are made when first needed, because each costs every packet
//     a lookup.
//   - A packet that no block of a single address is about never looks into a
//     set of allowed addresses, which knows intervals and costs more than all
//     the rest: it is asked when a block was found. Only blocks of shorter
//     prefixes, which commonly have allowed addresses inside and are to count
//     exactly, stand behind a rule that lets those return; it comes with the
//     first of them. An address that is blocked itself and allowed passes, and
//     its block counts what passes.
//   - Where prefixes nest, the longest is looked up first; all actions here
//     stop the packet, so the order decides only how it is answered.
//   - A rate limit is a limit of its own in each element, with a counter behind
//     it of what was above the rate; the rule drops what the element lets go on.
//     Rate limits come last, so that what is stopped anyway uses up nobody's
//     bucket; logs come first, and log nothing of allowed addresses. Of logs there
//     is a set for each text in front, at most 64.
//   - ICMPv6 neighbour discovery (types 133 to 137 with hop limit 255, RFC
//     4861) passes before everything: without it innocent neighbours on the
//     link break.
//
// Every Change is one netlink transaction up to 20,000 elements, unless a block
// changes its action. A larger one is cut into several, and if one of them
// fails, those before it are undone (see Backend.Apply).
//
// A packet finds a block that is extended, shortened or rewritten at every
// moment on Linux 6.17 and later, which repeat a look-up that a transaction
// overtook; on older kernels one that is kept from going on in the middle of a
// look-up can miss it. Where somebody's additions force a damaged table to be
// replaced as a whole, a packet on its way can miss it, too.
package nft

import (
	"fmt"
	"log/slog"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Defaults of Config.
const (
	DefaultTable             = "NETCAP"
	DefaultRejectRate uint64 = 1000
	DefaultSetSize    uint32 = 1_000_000
	DefaultLogGroup   uint16 = 77
	maxTableName             = 28
)

// Config says how the backend is made. The zero value is usable.
type Config struct {
	// Table is the table's name; empty means DefaultTable. 1 to 28 of A-Z a-z
	// 0-9 _ -.
	Table string
	// IPv4 and IPv6 switch the families on; neither means both. Blocks of a
	// family that is off are refused with ErrUnsupported; those an earlier
	// process made stay in force.
	IPv4, IPv6 bool
	// Logger gets warnings about what somebody else did to the table. Nil
	// means no log.
	Logger *slog.Logger
	// Counters adds a packet counter to every block (see Lookup). Sets that are
	// there already stay as they are. What is stopped by action and family is
	// counted in any case (see Dropped).
	Counters bool
	// Protect makes the table this Backend's alone, where the kernel can
	// (Linux 6.9; elsewhere there is a warning): others get EPERM, also for
	// the elements, and "nft flush ruleset" leaves it out. It outlives the
	// process, and the next one with Protect takes it over; until then anybody
	// may change it.
	Protect bool
	// RejectRate bounds the answers to rejected packets, of all blocks
	// together, per second; above it packets are dropped without an answer,
	// so that a flood with forged sources makes no backscatter. 0 means
	// DefaultRejectRate.
	RejectRate uint64
	// LogGroup is the NFLOG group that a backend.Log copies packets to; 0 means
	// DefaultLogGroup. Who reads it says how many packets are sent at once.
	LogGroup uint16
	// SetSize is the number of blocks one set holds; 0 means DefaultSetSize.
	// A set that is there already keeps its size.
	SetSize uint32
	// NetNS is an open file descriptor of the network namespace to work in;
	// 0 means the calling thread's. It is needed during New only.
	NetNS int
}

// complete checks c and fills in the defaults.
func (c Config) complete() (Config, error) {
	if c.Table == "" {
		c.Table = DefaultTable
	}
	if err := validTable(c.Table); err != nil {
		return c, err
	}
	if !c.IPv4 && !c.IPv6 {
		c.IPv4, c.IPv6 = true, true
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.RejectRate == 0 {
		c.RejectRate = DefaultRejectRate
	}
	if c.LogGroup == 0 {
		c.LogGroup = DefaultLogGroup
	}
	if c.SetSize == 0 {
		c.SetSize = DefaultSetSize
	}
	return c, nil
}

// takes reports whether blocks of a family are taken.
func (c Config) takes(v6 bool) bool {
	if v6 {
		return c.IPv6
	}
	return c.IPv4
}

func validTable(name string) error {
	if len(name) > maxTableName {
		return fmt.Errorf("%w: table name %q is longer than %d bytes", backend.ErrInvalid, name, maxTableName)
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
		default:
			return fmt.Errorf("%w: table name %q (use A-Z a-z 0-9 _ -)", backend.ErrInvalid, name)
		}
	}
	return nil
}

const name = "nft"

func (*Backend) fail(op string, err error) error {
	return &backend.OpError{Backend: name, Op: op, Err: err}
}
