package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/allowlist"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// Default paths.
const (
	DefaultConfigFile = "/etc/netcap-guard/config.yaml"
	DefaultRulesDir   = "/etc/netcap-guard/rules.d"
	// DefaultWhitelistDir may be missing.
	DefaultWhitelistDir = "/etc/netcap-guard/whitelist.d"
)

// Bounds of what a configuration may ask of live capture; MaxWorkers threads
// capture one interface.
const (
	MaxWorkers  = 64
	maxRingSize = 1024 // MiB, a size that the kernel can map in one piece
)

// maxConfigFile bounds what is read of a configuration file.
const maxConfigFile = 1 << 20

// Config is what a run is configured with: the configuration file's keys,
// overwritten by the flags that were given.
type Config struct {
	Interfaces []string `yaml:"interfaces"`
	Rules      []string `yaml:"rules"`
	Backend    string   `yaml:"backend"`
	Chain      string   `yaml:"chain"`
	Whitelist  []string `yaml:"whitelist"`
	Output     string   `yaml:"output"`
	Events     string   `yaml:"events"`
	DryRun     bool     `yaml:"dry_run"`
	// Decap takes tunnels off live, too: GRE, IP in IP, VXLAN, Geneve ...
	Decap bool `yaml:"decap"`

	// Families; both absent or both false = both.
	IPv4 bool `yaml:"ipv4"`
	IPv6 bool `yaml:"ipv6"`
	// IPTablesVariant is legacy or nft; empty = the system's iptables.
	IPTablesVariant string   `yaml:"iptables_variant"`
	DefaultDuration Duration `yaml:"default_duration"`
	MaxActiveBlocks int      `yaml:"max_active_blocks"`
	MaxNewPerMinute int      `yaml:"max_new_blocks_per_minute"`
	RejectRate      uint64   `yaml:"reject_rate"`
	BlockCounters   *bool    `yaml:"block_counters"`
	// NFLogGroup is the NFLOG group of kernel log rules; 0 = 77.
	NFLogGroup int `yaml:"nflog_group"`
	// KillConnections deletes what connection tracking knows of an address
	// when it is blocked.
	KillConnections bool `yaml:"kill_connections"`
	// IPv6Prefix counts and blocks IPv6 prefixes of this length instead of
	// addresses, where an action does not name another; 0 = addresses.
	IPv6Prefix int `yaml:"ipv6_prefix"`
	// EscalationMemory is how long a block counts for the length of the next
	// one, where an action does not say; 0 = 30 days.
	EscalationMemory Duration `yaml:"escalation_memory"`
	// StateDir holds what outlives the guard: the memory of the escalation.
	// Empty = firewall.DefaultStateDir.
	StateDir string `yaml:"state_dir"`

	KeepOnClose  bool `yaml:"keep_on_close"`
	ProtectTable bool `yaml:"protect_table"`
	// Control is the control socket; empty = one for each namespace and chain.
	Control string `yaml:"control"`
	// WhitelistDir holds files of whitelist entries; empty = DefaultWhitelistDir.
	WhitelistDir string  `yaml:"whitelist_dir"`
	Protect      Protect `yaml:"protect"`
	// TrustedProxies are prefixes that HTTP rules never block.
	TrustedProxies []string `yaml:"trusted_proxies"`
	Streams        Streamed `yaml:"streams"`

	// Workers is how many threads capture each interface; 0 = 1. RingSize is
	// how many MiB of packets the kernel holds for each; 0 = 64, or 32 with
	// several workers.
	// Promiscuous captures frames that are addressed to others, too.
	Workers     int  `yaml:"workers"`
	RingSize    int  `yaml:"ring_size"`
	Promiscuous bool `yaml:"promiscuous"`

	Evidence Evidence `yaml:"evidence"`

	// Flags only.
	Read    []string `yaml:"-"`
	Enforce bool     `yaml:"-"`
	Quiet   bool     `yaml:"-"`
	Verbose bool     `yaml:"-"`
}

// Protect switches groups of always-protected addresses off; an absent key
// leaves the group on.
type Protect struct {
	Special   *bool `yaml:"special"`
	Own       *bool `yaml:"own"`
	Gateways  *bool `yaml:"gateways"`
	Resolvers *bool `yaml:"resolvers"`
	SSHPeer   *bool `yaml:"ssh_peer"`
}

func off(b *bool) bool { return b != nil && !*b }

func (p Protect) hostaddr() hostaddr.Config {
	return hostaddr.Config{
		NoSpecial: off(p.Special), NoOwn: off(p.Own), NoGateways: off(p.Gateways),
		NoResolvers: off(p.Resolvers), NoSSHPeer: off(p.SSHPeer),
	}
}

// LoadConfig reads a configuration file strictly: an unknown key or a value of
// the wrong type is an error with file and line, exit code 78. The default
// file may be missing; a file that was asked for may not.
func LoadConfig(path string) (Config, error) {
	asked := path != ""
	if !asked {
		path = DefaultConfigFile
	}
	var cfg Config
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return cfg, nil
	}
	if err != nil {
		return cfg, Exit(ExitConfig, "configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return cfg, Exit(ExitConfig, "configuration: %w", err)
	}
	if len(data) > maxConfigFile {
		return cfg, Exit(ExitConfig, "%s: larger than %d bytes: not a configuration file", path, maxConfigFile)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		return cfg, &ExitError{ExitConfig, yamlError(path, err)}
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return cfg, Exit(ExitConfig, "%s: more than one YAML document: only the first would count", path)
	}
	if err := cfg.Validate(); err != nil {
		return cfg, Exit(ExitConfig, "%s: %w", path, err)
	}
	return cfg, nil
}

// yamlError says each problem of a YAML document as file:line: what.
func yamlError(path string, err error) error {
	problems := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	if te, ok := errors.AsType[*yaml.TypeError](err); ok {
		problems = te.Errors
	}
	var out []error
	for _, p := range problems {
		p = strings.TrimPrefix(p, "line ")
		p = wrongType().ReplaceAllString(p, "$1 is not what belongs here ($2)")
		p = strings.ReplaceAll(p, "not found in type guard.Config", "is unknown")
		p = strings.ReplaceAll(p, "not found in type guard.Evidence", "is unknown under evidence")
		p = strings.ReplaceAll(p, "not found in type guard.Streamed", "is unknown under streams")
		p = strings.ReplaceAll(p, "not found in type guard.Protect", "is unknown under protect")
		out = append(out, fmt.Errorf("%s:%s", path, p))
	}
	return errors.Join(out...)
}

// wrongType is how the YAML library says that a value has the wrong type.
func wrongType() *regexp.Regexp {
	return regexp.MustCompile(`cannot unmarshal !!\w+ (.*) into (?:guard\.)?(.*)`)
}

// Duration is a time span as rules and flags have it: Go's syntax, d and w,
// or a number of minutes.
type Duration time.Duration

// UnmarshalYAML is yaml.Unmarshaler's.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := engine.ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	*d = Duration(v)
	return nil
}

// Validate checks what can be checked without the kernel.
func (c *Config) Validate() error {
	var errs []error
	oneOf := func(key, value string, values ...string) {
		if value != "" && !slices.Contains(values, value) {
			errs = append(errs, fmt.Errorf("%s %q is unknown (use %s)", key, value, strings.Join(values, ", ")))
		}
	}
	oneOf("backend", c.Backend, firewall.BackendAuto, firewall.BackendNFT, firewall.BackendIPTables)
	oneOf("output", c.Output, OutputHuman, OutputJSON)
	oneOf("iptables_variant", c.IPTablesVariant, "legacy", "nft")
	if c.Chain != "" {
		errs = append(errs, firewall.ValidateChainName(c.Chain))
	}
	errs = append(errs, c.validateStreams()...)
	errs = append(errs, c.Evidence.validate()...)
	for _, w := range c.Whitelist {
		if _, _, err := allowlist.Parse(w); err != nil {
			errs = append(errs, fmt.Errorf("whitelist: %w", err))
		}
	}
	if c.Workers < 0 || c.Workers > MaxWorkers {
		errs = append(errs, fmt.Errorf("workers is %d: 1 to %d", c.Workers, MaxWorkers))
	}
	if c.RingSize < 0 || c.RingSize > maxRingSize {
		errs = append(errs, fmt.Errorf("ring_size is %d MiB: 1 to %d", c.RingSize, maxRingSize))
	}
	if c.DefaultDuration < 0 || c.EscalationMemory < 0 || c.MaxActiveBlocks < 0 || c.MaxNewPerMinute < 0 {
		errs = append(errs, errors.New("a duration or a cap is negative"))
	}
	if c.NFLogGroup < 0 || c.NFLogGroup > math.MaxUint16 {
		errs = append(errs, fmt.Errorf("nflog_group is %d: 0 to %d", c.NFLogGroup, math.MaxUint16))
	}
	if c.IPv6Prefix < 0 || c.IPv6Prefix > 128 {
		errs = append(errs, fmt.Errorf("ipv6_prefix is %d: 1 to 128", c.IPv6Prefix))
	}
	return errors.Join(errs...)
}

// Manager is the configuration of the firewall Manager for this run.
func (c *Config) Manager(log *slog.Logger) *firewall.ManagerConfig {
	m := firewall.DefaultManagerConfig()
	if c.Chain != "" {
		m.ChainName = c.Chain
	}
	if c.Backend != "" {
		m.Backend = c.Backend
	}
	if c.DefaultDuration != 0 {
		m.DefaultDuration = time.Duration(c.DefaultDuration)
	}
	m.EnableIPv4, m.EnableIPv6 = c.IPv4, c.IPv6 // both false = both
	for _, w := range c.Whitelist {
		if p, name, err := allowlist.Parse(w); err == nil && name == "" {
			m.Whitelist = append(m.Whitelist, p.String())
		}
	}
	m.DryRun = c.DryRun
	m.Logger = log
	m.IPTablesVariant = c.IPTablesVariant
	m.MaxActiveBlocks = c.MaxActiveBlocks
	m.MaxNewPerMinute = c.MaxNewPerMinute
	m.RejectRate = c.RejectRate
	m.NoBlockCounters = off(c.BlockCounters)
	m.LogGroup = uint16(c.NFLogGroup)
	m.IPv6Prefix = c.IPv6Prefix
	m.EscalationMemory = time.Duration(c.EscalationMemory)
	m.KeepOnClose = c.KeepOnClose
	m.ProtectTable = c.ProtectTable
	m.Protect = c.Protect.hostaddr()
	return m
}

// statePath is where a guard keeps what outlives it; one that works in a named
// network namespace has a folder of its own.
func (c *Config) statePath(netnsName string) string {
	dir := c.StateDir
	if dir == "" {
		dir = firewall.DefaultStateDir
	}
	if netnsName == "" {
		return dir
	}
	return filepath.Join(dir, filepath.Base(netnsName))
}

// logGroup is the NFLOG group of kernel log rules.
func (c *Config) logGroup() uint16 {
	if c.NFLogGroup == 0 {
		return firewall.DefaultLogGroup
	}
	return uint16(c.NFLogGroup)
}
