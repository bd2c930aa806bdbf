//go:build !linux

package nstest

import (
	"os"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

// enter cannot run the tests: there are no network namespaces on this system.
func enter(func() int) int {
	return cannot(os.Stderr, Required(), netlab.ErrUnsupported)
}
