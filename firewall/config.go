// Package firewall is the policy between detection and the kernel: a Manager
// decides what is blocked, never the wrong host and exactly as long as asked,
// keeps the index of what the kernel enforces, and counts. It knows no rule
// expression and no packet; the kernel is behind backend.Backend.
package firewall

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// Sentinels of this package.
var (
	// ErrClosed: the Manager was closed.
	ErrClosed = errors.New("firewall manager is closed")
	// ErrNotLinux is what NewManager returns on other systems, unless DryRun.
	ErrNotLinux = errors.New("firewall management is only supported on Linux")
	// ErrNotWhitelisted: RemoveFromWhitelist of what is no entry.
	ErrNotWhitelisted = errors.New("not a whitelist entry")
	// ErrRefused: a cap or the breaker refused a new block.
	ErrRefused = errors.New("refused")
	// ErrInUse: another process manages the same chain.
	ErrInUse = errors.New("in use")
)

// Names of the backends, as --backend and ManagerConfig.Backend take them.
const (
	BackendAuto     = "auto"
	BackendNFT      = "nft"
	BackendIPTables = "iptables"
)

// Defaults of ManagerConfig.
const (
	DefaultChainName       = "NETCAP"
	DefaultCleanupInterval = time.Minute
	DefaultDuration        = 30 * time.Minute
	DefaultCheckInterval   = 10 * time.Second
	// DefaultMaxNewPerMinute is the breaker on new blocks that rules make.
	DefaultMaxNewPerMinute = 10_000
	// DefaultLogGroup is the NFLOG group of kernel log rules.
	DefaultLogGroup = 77
	// DefaultEscalationMemory is how long a block counts for the next one.
	DefaultEscalationMemory = 30 * 24 * time.Hour
	// DefaultMaxEscalations is how many addresses the escalation remembers.
	DefaultMaxEscalations = 100_000
	// DefaultStateDir is where a guard keeps what it remembers.
	DefaultStateDir   = "/var/lib/netcap-guard"
	maxBlocksNFT      = 1_000_000
	maxBlocksIPTables = 10_000
	maxChainName      = 28 // iptables' limit for a user-defined chain
)

// ManagerConfig configures a Manager. The zero value of each field has the
// meaning its comment gives; DefaultManagerConfig fills in the page's
// defaults.
type ManagerConfig struct {
	// ChainName is the iptables chain and the nft table, 1 to 28 of
	// A-Z a-z 0-9 _ -, never a built-in chain's name. Empty = NETCAP.
	ChainName string
	// EnableIPv4 and EnableIPv6 choose the families; both false = both.
	EnableIPv4, EnableIPv6 bool
	// CleanupInterval is how often the Manager looks for blocks that ended
	// and refreshes the protected addresses, beside the timer of the next
	// block that ends. Zero = 1 minute.
	CleanupInterval time.Duration
	// DefaultDuration is the life of a block whose BlockConfig is nil.
	// Zero = 30 minutes.
	DefaultDuration time.Duration
	// Whitelist holds addresses and prefixes that are never blocked.
	Whitelist []string
	// DryRun does everything but the kernel: no privileges, any system.
	DryRun bool
	// Verbose without a Logger writes to standard error.
	Verbose bool

	// Logger takes what the Manager has to say; nil without Verbose = silent.
	Logger *slog.Logger
	// Backend is auto, nft or iptables; empty = auto: nft where the kernel
	// has it, else iptables.
	Backend string
	// IPTablesVariant is legacy or nft; empty = the system's iptables.
	IPTablesVariant string
	// MaxActiveBlocks caps the blocks. Zero = 1,000,000 on nft and in a dry
	// run, 10,000 on iptables. Kernel log rules are not counted: there may be a
	// quarter as many of them beside the blocks.
	MaxActiveBlocks int
	// MaxNewPerMinute is the breaker on new blocks that rules ask for, and for
	// itself on new kernel log rules. Zero = 10,000.
	MaxNewPerMinute int
	// RejectRate bounds the answers to rejected packets, in packets a second;
	// above it packets are dropped. Zero = 1,000.
	RejectRate uint64
	// NoBlockCounters leaves the packet counters of single blocks out.
	NoBlockCounters bool
	// LogGroup is the NFLOG group that kernel log rules send to. Zero = 77.
	LogGroup uint16
	// IPv6Prefix widens blocks of single IPv6 addresses to their prefix of this
	// length (see Request.IPv6Prefix). Zero = 128, the address itself.
	IPv6Prefix int
	// EscalationMemory is how long a block counts for the escalation of the
	// next one of the same address, where the request does not say. What is
	// older than this, and than every request asked for, is forgotten.
	// Zero = 30 days.
	EscalationMemory time.Duration
	// MaxEscalations bounds how many addresses the escalation remembers; above
	// it the one whose last block is the oldest is forgotten. Zero = 100,000.
	MaxEscalations int
	// StateDir is the directory in which the escalation is remembered from one
	// run to the next; it is made if it is missing. Empty = nothing is kept. A
	// dry run, a replay and an attached Manager keep nothing either.
	StateDir string
	// Killer ends the connections of what was newly blocked; nil = nobody.
	Killer Killer
	// KeepOnClose leaves the blocks in the kernel for the next start.
	KeepOnClose bool
	// PacketTime runs the Manager on the newest Request.At (replay) instead
	// of the wall clock.
	PacketTime bool
	// Attach opens the kernel beside a running guard, for one command: the
	// chain is not locked, and what is there is not repaired or rearranged.
	Attach bool
	// Protect switches groups of always-protected addresses off.
	Protect hostaddr.Config
	// ProtectTable has the kernel refuse everybody else's changes to our
	// table (nft only; flags owner and persist, Linux 6.9).
	ProtectTable bool
	// CheckInterval is how often a kernel that does not tell of changes
	// (iptables) is looked at. Zero = 10 s.
	CheckInterval time.Duration
	// Now is the clock; nil = the machine's. A test steps its own.
	Now func() time.Time
	// OnEvent is told of blocks that end or are lifted, and of damage that
	// was put right. It is called without a lock held, from the goroutine
	// that caused the event; nil = nobody.
	OnEvent func(Event)
}

// DefaultManagerConfig returns the page's defaults. The caller owns the
// result.
func DefaultManagerConfig() *ManagerConfig {
	return &ManagerConfig{
		ChainName:       DefaultChainName,
		EnableIPv4:      true,
		EnableIPv6:      true,
		CleanupInterval: DefaultCleanupInterval,
		DefaultDuration: DefaultDuration,
		Whitelist:       []string{"127.0.0.0/8", "::1/128"},
		Backend:         BackendAuto,
	}
}

// builtinChains are the chains of iptables' tables and the targets that look
// like chains; neither can be ours.
func builtinChains() []string {
	return []string{
		"INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING",
		"ACCEPT", "DROP", "RETURN", "QUEUE", "REJECT", "LOG",
	}
}

// ValidateChainName reports what is wrong with a chain name.
func ValidateChainName(name string) error {
	ok := regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]*$`).MatchString(name)
	switch {
	case !ok || len(name) > maxChainName:
		return fmt.Errorf("%w: chain name %q (1 to %d of A-Z a-z 0-9 _ -, not beginning with -)",
			backend.ErrInvalid, name, maxChainName)
	case slices.Contains(builtinChains(), name):
		return fmt.Errorf("%w: chain name %q is built in", backend.ErrInvalid, name)
	}
	return nil
}

// withDefaults returns a copy of the configuration with every zero field set,
// or what is wrong with it.
func (c *ManagerConfig) withDefaults() (ManagerConfig, error) {
	if c == nil {
		c = DefaultManagerConfig()
	}
	cfg := *c
	cfg.Whitelist = slices.Clone(c.Whitelist)
	setDefault(&cfg.ChainName, DefaultChainName)
	setDefault(&cfg.CleanupInterval, DefaultCleanupInterval)
	setDefault(&cfg.DefaultDuration, DefaultDuration)
	setDefault(&cfg.CheckInterval, DefaultCheckInterval)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	setDefault(&cfg.MaxNewPerMinute, DefaultMaxNewPerMinute)
	setDefault(&cfg.LogGroup, DefaultLogGroup)
	setDefault(&cfg.IPv6Prefix, 128)
	setDefault(&cfg.EscalationMemory, DefaultEscalationMemory)
	setDefault(&cfg.MaxEscalations, DefaultMaxEscalations)
	setDefault(&cfg.Backend, BackendAuto)
	if !cfg.EnableIPv4 && !cfg.EnableIPv6 {
		cfg.EnableIPv4, cfg.EnableIPv6 = true, true
	}
	switch {
	case cfg.Logger != nil:
	case cfg.Verbose:
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	default:
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, cfg.validate()
}

func (c *ManagerConfig) validate() error {
	if err := ValidateChainName(c.ChainName); err != nil {
		return err
	}
	switch {
	case c.CleanupInterval < 0 || c.CheckInterval < 0:
		return fmt.Errorf("%w: an interval is negative", backend.ErrInvalid)
	case c.DefaultDuration < 0:
		return fmt.Errorf("%w: default duration %v is negative", backend.ErrInvalid, c.DefaultDuration)
	case c.MaxActiveBlocks < 0 || c.MaxNewPerMinute < 0:
		return fmt.Errorf("%w: a cap on blocks is negative", backend.ErrInvalid)
	case c.IPv6Prefix < 0 || c.IPv6Prefix > 128:
		return fmt.Errorf("%w: IPv6 prefix length %d (use 1 to 128)", backend.ErrInvalid, c.IPv6Prefix)
	case c.EscalationMemory < 0 || c.MaxEscalations < 0:
		return fmt.Errorf("%w: the memory of the escalation is negative", backend.ErrInvalid)
	case !slices.Contains([]string{BackendAuto, BackendNFT, BackendIPTables}, c.Backend):
		return fmt.Errorf("%w: backend %q (use auto, nft or iptables)", backend.ErrInvalid, c.Backend)
	case !slices.Contains([]string{"", "legacy", "nft"}, c.IPTablesVariant):
		return fmt.Errorf("%w: iptables variant %q (use legacy or nft)", backend.ErrInvalid, c.IPTablesVariant)
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
