package guard

import (
	"context"
	"errors"
	"net/netip"

	"github.com/netcap-guard/netcap-guard/internal/allowlist"
)

// Origins of whitelist entries beside the Manager's own.
const (
	originFiles = "whitelist.d"
	originNames = "DNS"
)

// whitelistFiles reads the whitelist files and collects the names of files,
// configuration and flags. Any mistake is an error: a whitelist that is only
// half in force locks somebody out.
func (c *Config) whitelistFiles() (prefixes []netip.Prefix, names []string, err error) {
	dir := c.WhitelistDir
	if dir == "" {
		dir = DefaultWhitelistDir
	}
	prefixes, names, problems := allowlist.Load(dir)
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, &ExitError{ExitConfig, err}
	}
	for _, w := range c.Whitelist {
		if _, name, err := allowlist.Parse(w); err == nil && name != "" {
			names = append(names, name)
		}
	}
	return prefixes, names, nil
}

// applyWhitelist puts the files' entries in force and hands their names to
// the resolver.
func (r *runner) applyWhitelist() error {
	prefixes, names, err := r.cfg.whitelistFiles()
	if err != nil {
		return err
	}
	if err := r.manager.SetWhitelist(originFiles, prefixes); err != nil {
		return err
	}
	r.names.SetNames(names)
	return nil
}

// followNames keeps the addresses of whitelisted names in force until ctx
// ends.
func (r *runner) followNames(ctx context.Context) {
	err := r.names.Run(ctx, func(p []netip.Prefix) {
		if err := r.manager.SetWhitelist(originNames, p); err != nil {
			r.log.Error("whitelisting the addresses of names", "error", err)
		}
	})
	if err != nil {
		r.log.Error("whitelisted names are not followed", "error", err)
	}
}
