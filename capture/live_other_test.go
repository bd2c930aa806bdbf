//go:build !linux

package capture_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture"
)

func TestLiveIsLinuxOnly(t *testing.T) {
	_, err := capture.OpenWorkers(capture.LiveConfig{Interface: "lo"})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "only supported on Linux") {
		t.Error(err)
	}
}
