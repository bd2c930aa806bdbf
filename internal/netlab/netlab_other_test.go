//go:build !linux

package netlab_test

import (
	"errors"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

func TestNewIsUnsupported(t *testing.T) {
	if _, err := netlab.New(); !errors.Is(err, netlab.ErrUnsupported) {
		t.Errorf("New: %v, want ErrUnsupported", err)
	}
}
