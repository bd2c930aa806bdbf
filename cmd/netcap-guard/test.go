package main

import (
	"github.com/spf13/cobra"

	"github.com/netcap-guard/netcap-guard/internal/guard"
)

const testHelp = `test replays a capture with the rules and compares the alerts with a file of
expectations in YAML:

  alerts:                                # must be raised
    - {rule: Block SSH Brute Force, source: 192.0.2.1, packet: 10}
    - {rule: Block Port Scanner, destination: 198.51.100.7, times: 2}
  no_alerts:                             # must not
    - {rule: Block SYN Flood Source}
  strict: true                           # and there are no others

source, destination and packet (its number in the file, from 1) may be left
out; without times at least one alert must be there. A rule without a
threshold raises equal alerts once in 5 minutes. Differences are printed
(- expected, + found), with exit code 1. Nothing is blocked.`

func (a *app) testCmd() *cobra.Command {
	var expect string
	var rules []string
	cmd := &cobra.Command{
		Use:   "test PCAP --rules PATH --expect FILE",
		Short: "Replay a capture and compare the alerts with what is expected",
		Long:  testHelp,
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if expect == "" {
				return guard.Exit(guard.ExitUsage, "test needs --expect FILE (see %s --help)", cmd.CommandPath())
			}
			if len(rules) > 0 {
				a.cfg.Rules = rules
			}
			return guard.TestRules(cmd.Context(), a.cfg, args[0], expect, guard.Environment{
				Streams: a.std, Log: a.logger(), Version: buildVersion(), Netns: a.netns,
			})
		},
	}
	cmd.Flags().StringArrayVar(&rules, "rules", nil, "rule file or folder `PATH` (repeatable; default as for guarding)")
	cmd.Flags().StringVar(&expect, "expect", "", "`FILE` of expectations")
	return cmd
}
