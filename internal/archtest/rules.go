package archtest

// wall says what one package may import of this module. A dir that ends in
// /... stands for everything below it.
type wall struct {
	dir    string
	may    []string
	reason string
}

// walls has an entry for every package of the house; the first that fits
// counts. A package without one is a new room and needs a decision.
func walls() []wall {
	return []wall{
		{"backend", nil, "the vocabulary of blocking is shared by policy and kernel doors and depends on neither"},
		{"backend/...", []string{"backend"}, "a backend knows blocks, never policy and never another backend"},
		{"record", nil, "the vocabulary of detection is a leaf: decoders and the engine meet in it"},
		{"capture", nil, "capture delivers bytes and knows no record"},
		{"capture/yardstick", []string{"capture"}, "the yardstick writes capture files and judges nothing"},
		{"capture/fragment", nil, "datagrams are put together of bytes and addresses, whatever is in them"},
		{"capture/decode", []string{"record", "capture/fragment"}, "decoders turn bytes into records, whoever delivered the bytes"},
		{"capture/stream", []string{"record", "capture/stream/message"},
			"connections know messages; what a message says is told from its bytes alone"},
		{"capture/...", []string{"record"}, "decoders turn bytes into records, whoever delivered the bytes"},
		{"engine", []string{"record", "firewall", "backend"}, "the engine knows no kernel and no packet"},
		{"firewall", []string{"backend", "internal/hostaddr", "backend/nft", "backend/iptables"},
			"policy speaks to the kernel through backends alone and knows no rule expression"},
		{"configs", nil, "configs holds files"},
		{"internal/hostaddr", nil, "a leaf: it reads the kernel's addresses"},
		{"internal/links", nil, "a leaf: it reads how the kernel's interfaces are stacked"},
		{"internal/allowlist", nil, "a leaf: whitelist files and names are read and resolved here, and what comes out is prefixes"},
		{"internal/nflog", nil, "a leaf: it reads an NFLOG group"},
		{"internal/conntrack", nil, "a leaf: it deletes conntrack entries"},
		{"internal/evidence", []string{"capture"}, "packets that led to a block are kept as bytes; who was blocked is an argument"},
		{"internal/netlab", nil, "a leaf: it builds networks for the demo and for tests"},
		{"internal/nstest", []string{"internal/netlab"}, "tests of every package use it, so it may depend on none of them"},
		{"internal/archtest", nil, "it judges the others and needs none of them"},
		{"internal/demo", []string{"internal/netlab"}, "the demo drives the real binary from outside, as a user would"},
		{"internal/guard", []string{"backend", "backend/nft", "backend/iptables", "capture/...", "capture", "configs", "engine",
			"firewall", "record", "internal/allowlist", "internal/hostaddr", "internal/links", "internal/nflog", "internal/conntrack", "internal/evidence"},
			"the wiring joins every room, but neither the command line nor test tools"},
		{"cmd/netcap-guard", []string{"internal/guard", "internal/demo", "configs"}, "main parses flags and calls; everything else is testable without it"},
		{"integration/...", []string{"internal/netlab"}, "integration tests see what a user sees: the binary and the kernel"},
	}
}

// crowns are the packages that nothing below them may import, not even in a
// test: a package that needs the whole program to be tested is too big.
func crowns() []string { return []string{"cmd/...", "internal/guard", "internal/demo"} }

// testTools are packages for tests alone.
func testTools() []string {
	return []string{"internal/nstest", "internal/archtest", "backend/backendtest"}
}

// doorUsers are the packages whose imports of a kernel door are further
// restricted: to files that carry the system in their name.
type doorRule struct {
	dir    string
	imp    []string
	reason string
}

func doorRules() []doorRule {
	return []doorRule{
		{"firewall", []string{"backend/nft", "backend/iptables"},
			"policy carries no build tag: only its door file for each system chooses a backend"},
	}
}

// dependency says which packages may use a module from outside.
type dependency struct {
	module string
	users  []string // "*": everyone; "test": test files of everyone
	reason string
}

func dependencies() []dependency {
	doors := "one door to each kernel interface"
	return []dependency{
		{"github.com/coreos/go-iptables", []string{"backend/iptables", "test"}, doors},
		{"github.com/google/nftables", []string{"backend/nft"}, doors},
		{"github.com/mdlayher/netlink", []string{"backend/nft", "internal/hostaddr", "internal/links", "internal/nflog", "internal/conntrack"}, doors},
		{"github.com/mdlayher/socket", []string{"backend/nft", "internal/hostaddr", "internal/links", "internal/nflog", "internal/conntrack"}, doors},
		{"github.com/vishvananda/netns", []string{"internal/netlab", "internal/guard", "internal/hostaddr", "capture", "backend/nft", "backend/iptables"},
			"namespaces are entered where a socket is opened, nowhere else"},
		{"github.com/expr-lang/expr", []string{"engine"}, "expressions are the engine's business"},
		{"github.com/coreos/go-systemd/v22", []string{"internal/guard"}, "the service manager is told by the wiring alone"},
		{"github.com/spf13/cobra", []string{"cmd/netcap-guard"}, "the command line is main's business"},
		{"github.com/spf13/pflag", []string{"cmd/netcap-guard"}, "the command line is main's business"},
		{"github.com/schollz/progressbar/v3", []string{"cmd/netcap-guard", "internal/guard"}, "only what faces a person draws"},
		{"github.com/coreos/go-systemd/v22", []string{"internal/guard"}, "only the wiring talks to the service manager"},
		{"github.com/santhosh-tekuri/jsonschema/v6", []string{"test"}, "events are checked against their schema in tests"},
		{"golang.org/x/term", []string{"cmd/netcap-guard", "internal/guard", "internal/demo"}, "only what faces a person asks for a terminal"},
		{"go.yaml.in/yaml/v3", []string{"engine", "internal/guard", "configs"}, "only rule and configuration files are YAML"},
		{"github.com/google/gopacket", []string{"test"}, "the packet path decodes into reused records; gopacket cross-checks it in tests"},
		{"github.com/google/go-cmp", []string{"test"}, "comparing values with reflection belongs in tests"},
		{"golang.org/x/sys", []string{"*"}, "system calls"},
		{"golang.org/x/net", []string{"capture/...", "capture"}, "BPF programs for capture sockets"},
		{"golang.org/x/sync", []string{"*"}, "goroutine groups"},
	}
}

// leaves import the standard library alone, their tests apart.
func leaves() []string { return []string{"backend", "record"} }

// linuxOnly are imports that exist or work on Linux alone: they belong in
// files that carry the system in their name, so that policy stays testable
// everywhere.
func linuxOnly() []string {
	return []string{"golang.org/x/sys/unix", "github.com/google/nftables", "github.com/coreos/go-iptables",
		"github.com/mdlayher/netlink", "github.com/vishvananda/netns"}
}

// Limits of length, in lines.
const (
	maxFile     = 400
	maxTestFile = 700
	maxFunc     = 59
)

// emptyNames say nothing about what a package holds.
func emptyNames() []string {
	return []string{"util", "utils", "common", "helper", "helpers", "type", "types", "model", "models", "misc", "shared", "base", "lib"}
}
