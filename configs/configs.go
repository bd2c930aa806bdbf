// Package configs holds the files that ship with netcap-guard, embedded in
// the binary.
package configs

import _ "embed" // for the directives below

//go:embed firewall-rules.yml
var firewallRules string

// FirewallRules is the text of firewall-rules.yml, the rules that are used
// where none are configured. The slice is the caller's.
func FirewallRules() []byte { return []byte(firewallRules) }
