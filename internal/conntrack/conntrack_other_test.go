//go:build !linux

package conntrack

import (
	"errors"
	"net/netip"
	"testing"
)

func TestUnsupported(t *testing.T) {
	if _, err := Kill(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("kill: %v", err)
	}
	if err := Probe(t.Context()); !errors.Is(err, ErrUnsupported) {
		t.Errorf("probe: %v", err)
	}
}
