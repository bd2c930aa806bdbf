package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netcap-guard/netcap-guard/internal/guard"
)

// app is what all commands share: the streams, the global flags and the
// configuration they lead to.
type app struct {
	std    guard.Streams
	config string
	netns  string
	flags  guard.Config // what the flags said
	cfg    guard.Config // the configuration file, overwritten by the flags
}

const longHelp = `netcap-guard watches packets, decides by readable rules who attacks, and has
the Linux kernel block them: at once, exactly as long as asked, never the
wrong host.

  netcap-guard -i eth0                 guard an interface
  netcap-guard -r attack.pcap          replay a capture, say what would be done
  netcap-guard demo                    a real attack and a real block, in a
                                       throwaway network namespace`

// nearEnough is how many letters a command may be off to be named as the one
// that may have been meant.
const nearEnough = 2

// newRoot builds the command line.
func newRoot(std guard.Streams) *cobra.Command {
	a := &app{std: std}
	root := &cobra.Command{
		SuggestionsMinimumDistance: nearEnough,
		Use:                        "netcap-guard [-i INTERFACE | -r FILE]",
		Short:                      "Watch packets and block attackers",
		Long:                       longHelp,
		Args:                       usage(cobra.NoArgs),
		SilenceErrors:              true,
		SilenceUsage:               true,
		PersistentPreRunE:          a.prepare,
		RunE:                       a.guard,
		CompletionOptions:          cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return guard.Exit(guard.ExitUsage, "%s (see %s --help)", flagProblem(err), cmd.CommandPath())
	})
	a.globalFlags(root)
	a.guardFlags(root)
	root.AddCommand(a.checkCmd(), a.testCmd(), a.blockCmd(), a.unblockCmd(), a.listCmd(), a.showCmd(), a.whitelistCmd(),
		a.flushCmd(), a.statsCmd(), a.reloadCmd(), a.cleanupCmd(), a.demoCmd(), versionCmd())
	return root
}

// usage makes the errors of an argument check exit with 2.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return guard.Exit(guard.ExitUsage, "%s%s (see %s --help)",
				strings.ReplaceAll(err.Error(), "\n", " "), meant(cmd, args), cmd.CommandPath())
		}
		return nil
	}
}

// meant asks for the commands below cmd that are nearly the one that is given.
func meant(cmd *cobra.Command, args []string) string {
	if !cmd.HasSubCommands() || len(args) == 0 {
		return ""
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return ""
}

// flagProblem says what is wrong with a flag, of a number in other words than
// those of the function that reads it.
func flagProblem(err error) string {
	number, ok := errors.AsType[*strconv.NumError](err)
	if !ok {
		return err.Error()
	}
	why := number.Err.Error()
	if number.Func == "ParseInt" && errors.Is(number, strconv.ErrSyntax) {
		why = "not a whole number"
	}
	return strings.Replace(err.Error(), number.Error(), why, 1)
}

func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&a.flags.Backend, "backend", "", "firewall `backend`: auto, nft, iptables (default auto: nft where the kernel has it)")
	f.StringVar(&a.netns, "netns", "", "work inside the network namespace `NAME`")
	f.StringVar(&a.flags.Chain, "chain", "", "`name` of the iptables chain and the nft table (default NETCAP)")
	f.StringVar(&a.flags.Control, "control", "", "control socket `PATH` (default /run/netcap-guard/control.sock; with --netns NAME /run/netcap-guard/NAME.sock)")
	f.StringVar(&a.config, "config", "", "configuration `file` (default "+guard.DefaultConfigFile+")")
	f.StringVarP(&a.flags.Output, "output", "o", "", "`format` of standard output: human, json (default human)")
	f.BoolVarP(&a.flags.Verbose, "verbose", "v", false, "more on standard error")
	f.BoolVarP(&a.flags.Quiet, "quiet", "q", false, "errors only on standard error")
}

func (a *app) guardFlags(root *cobra.Command) {
	f := root.Flags()
	f.StringArrayVarP(&a.flags.Interfaces, "iface", "i", nil, "capture live from `INTERFACE` (repeatable; any = all)")
	f.StringArrayVarP(&a.flags.Read, "read", "r", nil, "replay a capture `FILE`: pcap or pcapng, gzip too, - = standard input (repeatable); implies --dry-run unless --enforce")
	f.StringArrayVar(&a.flags.Rules, "rules", nil, "rule file or folder `PATH` (repeatable; default "+guard.DefaultRulesDir+", else the built-in rules)")
	f.IntVar(&a.flags.Workers, "workers", 0, "capture each interface with `N` threads (default 1)")
	f.BoolVar(&a.flags.DryRun, "dry-run", false, "everything but the kernel; needs no privileges for it")
	f.BoolVar(&a.flags.Decap, "decap", false, "look into tunnels live, too: GRE, IP in IP, VXLAN, Geneve (a replay always does); only where nobody can forge them: one UDP packet could have any address blocked")
	f.BoolVar(&a.flags.Enforce, "enforce", false, "with -r: block for real")
	f.StringSliceVar(&a.flags.Whitelist, "whitelist", nil, "address or `CIDR` that is never blocked (repeatable, comma list)")
	f.StringVar(&a.flags.Evidence.Directory, "evidence", "", "write the packets that led to a block to a pcapng file in `DIR`")
	f.StringVar(&a.flags.Events, "events", "", "write the JSON events also to `FILE` (reopened on SIGHUP)")
}

// prepare runs before every command that works with a configuration: it
// enters the network namespace, reads the file and lets the flags win.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	if err := guard.EnterNetns(a.netns); err != nil {
		return err
	}
	if cmd.Flags().Changed("iface") && cmd.Flags().Changed("read") {
		return guard.Exit(guard.ExitUsage, "-i and -r exclude each other: guard an interface, or replay captures")
	}
	if cmd.Flags().Changed("workers") && a.flags.Workers == 0 {
		return guard.Exit(guard.ExitUsage, "workers is 0: 1 to %d", guard.MaxWorkers)
	}
	cfg, err := guard.LoadConfig(a.config)
	if err != nil {
		return err
	}
	set := cmd.Flags().Changed
	override(set("backend"), &cfg.Backend, a.flags.Backend)
	override(set("chain"), &cfg.Chain, a.flags.Chain)
	override(set("control"), &cfg.Control, a.flags.Control)
	override(set("output"), &cfg.Output, a.flags.Output)
	override(set("events"), &cfg.Events, a.flags.Events)
	override(set("evidence"), &cfg.Evidence.Directory, a.flags.Evidence.Directory)
	override(set("iface"), &cfg.Interfaces, a.flags.Interfaces)
	override(set("rules") && len(a.flags.Rules) > 0, &cfg.Rules, a.flags.Rules)
	override(set("workers"), &cfg.Workers, a.flags.Workers)
	override(set("decap"), &cfg.Decap, a.flags.Decap)
	override(set("dry-run"), &cfg.DryRun, a.flags.DryRun)
	cfg.Whitelist = append(cfg.Whitelist, a.flags.Whitelist...)
	cfg.Read, cfg.Enforce = a.flags.Read, a.flags.Enforce
	cfg.Quiet, cfg.Verbose = a.flags.Quiet, a.flags.Verbose
	if err := cfg.Validate(); err != nil {
		return &guard.ExitError{Code: guard.ExitUsage, Err: err}
	}
	a.cfg = cfg
	return nil
}

func override[T any](given bool, field *T, value T) {
	if given {
		*field = value
	}
}

// logger writes to standard error what the verbosity asks for.
func (a *app) logger() *slog.Logger { return guard.Logger(a.std.Err, a.cfg.Verbose, a.cfg.Quiet) }

func (a *app) guard(cmd *cobra.Command, _ []string) error {
	return guard.Run(cmd.Context(), a.cfg, guard.Environment{
		Streams: a.std, Log: a.logger(), Version: buildVersion(), Netns: a.netns,
	})
}

func (a *app) checkCmd() *cobra.Command {
	var rules []string
	cmd := &cobra.Command{
		Use:   "check [PATH...]",
		Short: "Check rules and configuration, touching nothing",
		Long: `check reads the configuration and the rules (the PATHs, else those of the
configuration) and names every mistake with file, line and column. Warnings
alone do not fail. Exit code 78 for a mistake.`,
		Args: usage(cobra.ArbitraryArgs),
		RunE: func(_ *cobra.Command, args []string) error {
			if paths := slices.Concat(rules, args); len(paths) > 0 {
				a.cfg.Rules = paths
			}
			return guard.Check(a.cfg, a.std)
		},
	}
	cmd.Flags().StringArrayVar(&rules, "rules", nil, "rule file or folder `PATH`, the same as an argument (repeatable)")
	return cmd
}

func versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Args:              usage(cobra.NoArgs),
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "netcap-guard", buildVersion())
			return err
		},
	}
}
