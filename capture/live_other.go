//go:build !linux

package capture

import (
	"errors"
	"fmt"
)

// OpenLive captures from an interface, on Linux only; here it returns an error
// that wraps errors.ErrUnsupported.
func OpenLive(LiveConfig) (LiveSource, error) {
	return nil, fmt.Errorf("live capture is only supported on Linux: %w", errors.ErrUnsupported)
}

// OpenWorkers is OpenLive for several workers, on Linux only.
func OpenWorkers(config LiveConfig) ([]LiveSource, error) {
	_, err := OpenLive(config)
	return nil, err
}
