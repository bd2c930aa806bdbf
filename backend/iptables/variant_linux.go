package iptables

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/netcap-guard/netcap-guard/backend"
)

// The two variants of iptables: each has tables of its own in the kernel, and
// a packet passes both.
const (
	legacyVariant = "legacy"
	nftVariant    = "nft"
)

// kind says which variant the chain's program is.
func (c *chain) kind() string {
	if c.variant != "" {
		return c.variant
	}
	out, err := exec.Command(c.path, "--version").Output()
	if err == nil && bytes.Contains(out, []byte("(nf_tables)")) {
		return nftVariant
	}
	return legacyVariant // before 1.8 there was nothing else to tell
}

// other opens the program of the other variant, where it is installed and its
// tables are in use. Nil is no: a look at legacy tables that are not there
// would load their modules and make them.
func (c *chain) other(ctx context.Context, cfg Config) *chain {
	if ctx.Err() != nil {
		return nil
	}
	cfg.Variant = legacyVariant
	if c.kind() == legacyVariant {
		cfg.Variant = nftVariant
	}
	if !inUse(os.DirFS("/"), cfg.Variant, c.family) {
		return nil
	}
	o, err := openChain(c.family, cfg)
	if err != nil {
		return nil // only the program could have made a chain
	}
	return o
}

// inUse reports whether the kernel has tables of a variant for this namespace,
// or may have. Nothing is loaded by asking.
func inUse(root fs.FS, variant string, f family) bool {
	if variant == legacyVariant {
		names, err := fs.ReadFile(root, "proc/thread-self/net/"+f.legacyNames)
		return err == nil && slices.Contains(strings.Fields(string(names)), table)
	}
	exists := func(path string) bool {
		_, err := fs.Stat(root, path)
		return err == nil
	}
	if exists("sys/module/nf_tables") || !exists("proc/modules") {
		return true // loaded, or a kernel without modules
	}
	release, err := fs.ReadFile(root, "proc/sys/kernel/osrelease")
	if err != nil {
		return true
	}
	builtin, err := fs.ReadFile(root, "lib/modules/"+strings.TrimSpace(string(release))+"/modules.builtin")
	return err != nil || bytes.Contains(builtin, []byte("/nf_tables.ko"))
}

// warnOther says, once for both families, where our chain stands in the tables
// of the other variant as well: what it blocks there we neither list nor end.
func (b *Backend) warnOther(ctx context.Context) {
	for _, c := range b.chains {
		if c == nil {
			continue
		}
		o := c.other(ctx, b.cfg)
		if o == nil {
			continue
		}
		s, err := o.read(ctx)
		if err != nil && !errors.Is(err, backend.ErrUnavailable) {
			b.cfg.Logger.Warn("could not look for our chain in the other variant of iptables", "program", o.path, "error", err)
			return
		}
		if err == nil && s.chain {
			b.cfg.Logger.Warn("our chain also stands in the tables of the other iptables variant, from an earlier run: its blocks work but are not listed here (remove it: netcap-guard cleanup)",
				"chain", c.name, "variant", c.kind(), "program", c.path, "other_variant", o.variant, "other_program", o.path)
			return
		}
	}
}
