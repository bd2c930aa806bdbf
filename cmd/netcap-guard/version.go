package main

import "runtime/debug"

// buildVersion is what the linker was told, else the module's version, for a
// program that was built with plain go install.
func buildVersion() string {
	if version != "devel" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return version
}
