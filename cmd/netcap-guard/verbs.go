package main

import (
	"github.com/spf13/cobra"

	"github.com/netcap-guard/netcap-guard/internal/demo"
	"github.com/netcap-guard/netcap-guard/internal/guard"
)

// verb is what every verb works with.
func (a *app) verb() guard.VerbConfig {
	return guard.VerbConfig{Config: a.cfg, Netns: a.netns, Log: a.logger(), Streams: a.std}
}

// admin calls work with the running guard, else with the kernel.
func (a *app) admin(cmd *cobra.Command, work func(*guard.Verb) error) error {
	return guard.WithAdmin(cmd.Context(), a.verb(), work)
}

func (a *app) blockCmd() *cobra.Command {
	var req guard.BlockRequest
	cmd := &cobra.Command{
		Use:   "block IP|CIDR|-",
		Short: "Block an address or a prefix",
		Long: `block has the kernel block an address or a prefix; addresses in it that are
whitelisted are let through.

With - it reads a list from standard input: one address or prefix a line; CSV
(the first line may name the columns: ip or prefix, for, reason, target, action,
rate, burst); or JSON objects with these keys, as list -o json prints them. What
a line says wins over the flags. The good lines are blocked, the bad ones named
with their number, and the exit code is 1.

Exit code 1 where the address is whitelisted or protected, 2 for bad input.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.HasFor = cmd.Flags().Changed("for")
			if cmd.Flags().Changed("burst") && req.Burst < 1 {
				return guard.Exit(guard.ExitUsage, "--burst %d: at least 1", req.Burst)
			}
			if err := req.Validate(args[0]); err != nil {
				return err
			}
			return a.admin(cmd, func(k *guard.Verb) error { return k.Block(cmd.Context(), args[0], req) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.For, "for", "", "how long, e.g. 30m, 2h, 7d, 2w; 0 = permanent (default: the configuration's, 30m)")
	f.StringVar(&req.Reason, "reason", "", "why, for listings")
	f.StringVar(&req.Target, "target", "source", "source or destination")
	f.StringVar(&req.Action, "action", "drop", "drop, reject, reject-reset or rate-limit")
	f.StringVar(&req.Rate, "rate", "", "of a rate limit: how many packets pass, `N/second` (minute, hour, day; default 10/minute)")
	f.Int64Var(&req.Burst, "burst", 0, "of a rate limit: how many packets pass at once (default 5)")
	f.BoolVar(&req.Force, "force", false, "block a protected address all the same")
	return cmd
}

func (a *app) unblockCmd() *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "unblock IP|CIDR|- | --all",
		Short: "Lift the block of an address or a prefix",
		Long: `unblock lifts the block of exactly this address or prefix, in both directions.
With - it reads a list from standard input, as block does. Exit code 3 where it
is not blocked; for a host inside a blocked CIDR the message names the CIDR.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if all {
				return usage(cobra.NoArgs)(cmd, args)
			}
			return usage(cobra.ExactArgs(1))(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if all {
				return a.admin(cmd, func(k *guard.Verb) error { return k.Flush(cmd.Context()) })
			}
			if err := guard.ValidateAddress(args[0]); err != nil {
				return err
			}
			return a.admin(cmd, func(k *guard.Verb) error { return k.Unblock(cmd.Context(), args[0]) })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "lift every block")
	return cmd
}

func (a *app) listCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the blocks that the kernel enforces",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return guard.List(cmd.Context(), a.verb())
		},
	}
}

func (a *app) flushCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "flush",
		Short: "Lift every block; the chain or table stays",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.admin(cmd, func(k *guard.Verb) error { return k.Flush(cmd.Context()) })
		},
	}
}

func (a *app) cleanupCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Take everything of ours out of the kernel; a running guard is ended",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return guard.Cleanup(cmd.Context(), a.verb())
		},
	}
}

func (a *app) demoCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show a real attack and a real block in a throwaway network namespace",
		Long: `demo makes network namespaces of its own (attacker, bystander, victim), starts
a guard in the victim's, runs a real port scan and a burst of connections to
the SSH port, and shows the alert, the kernel's listing of the block, who is
served and who is not, and the block expiring. It removes everything
afterwards, also on Ctrl-C, and touches nothing else on the machine. It needs
root, iproute2 and nmap.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), demo.Config{Backend: a.cfg.Backend, Out: a.std.Out})
		},
	}
}
