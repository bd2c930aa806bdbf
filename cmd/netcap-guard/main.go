// Command netcap-guard watches packets, decides by readable rules who
// attacks, and has the Linux kernel block them.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/netcap-guard/netcap-guard/internal/guard"
)

// version is set by the linker.
var version = "devel" //nolint:gochecknoglobals // the linker can set nothing else

func main() {
	os.Exit(run(os.Args[1:], guard.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// run is main with its surroundings as parameters; it returns the exit code.
func run(args []string, std guard.Streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal ends the program in order; from then on a second one
	// has its default effect and ends it at once.
	context.AfterFunc(ctx, stop)

	root := newRoot(std)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		report(std.Err, err)
	}
	return guard.ExitCode(err)
}

// report prints an error, each of the problems that are joined in it on a
// line of its own; indented lines belong to the one before.
func report(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "    ") {
			fmt.Fprintln(w, line)
			continue
		}
		fmt.Fprintln(w, "netcap-guard:", line)
	}
}
