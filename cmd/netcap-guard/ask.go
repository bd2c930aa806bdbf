package main

import (
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/netcap-guard/netcap-guard/internal/guard"
)

func (a *app) showCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show IP",
		Short: "Say why an address is blocked: rule, alerts, remaining time, packets stopped",
		Long: `show says everything about one address: the blocks that contain it, whether it
is whitelisted or protected, and its last alerts if a guard is running. An
address that is only rate-limited or logged is not blocked (blocked: false), but
shown. Exit code 3 where there is nothing to show: no block, no rate limit and
no log rule.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ip, err := netip.ParseAddr(args[0])
			if err != nil || ip.Zone() != "" {
				return guard.Exit(guard.ExitUsage, "%q is not an IP address", args[0])
			}
			return a.admin(cmd, func(v *guard.Verb) error { return v.Show(cmd.Context(), ip) })
		},
	}
}

func (a *app) whitelistCmd() *cobra.Command {
	cmd := &cobra.Command{
		SuggestionsMinimumDistance: nearEnough,

		Use:   "whitelist",
		Short: "Show and change the running guard's whitelist",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return guard.Exit(guard.ExitUsage, "whitelist add, remove or list (see %s --help)", cmd.CommandPath())
		},
	}
	edit := func(use, short string, remove bool) *cobra.Command {
		return &cobra.Command{
			Use: use + " IP|CIDR", Short: short, Args: usage(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := guard.ValidateAddress(args[0]); err != nil {
					return err
				}
				return guard.WithGuard(a.verb(), func(v *guard.Verb, _ guard.Daemon) error {
					return v.EditWhitelist(cmd.Context(), args[0], remove)
				})
			},
		}
	}
	list := &cobra.Command{
		Use: "list", Short: "List the entries in force and where they come from", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.admin(cmd, func(v *guard.Verb) error { return v.Whitelist(cmd.Context()) })
		},
	}
	cmd.AddCommand(
		edit("add", "Whitelist an address until the guard ends; its block is lifted at once", false),
		edit("remove", "Take an entry off the whitelist until the guard ends (exit code 3: no such entry)", true),
		list)
	return cmd
}

func (a *app) statsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Print the running guard's counters",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return guard.WithGuard(a.verb(), func(v *guard.Verb, d guard.Daemon) error { return v.Stats(cmd.Context(), d) })
		},
	}
}

func (a *app) reloadCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the running guard read its rules anew (exit code 78: a mistake, the running ones stay)",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return guard.WithGuard(a.verb(), func(v *guard.Verb, d guard.Daemon) error { return v.Reload(cmd.Context(), d) })
		},
	}
}
