//go:build !linux

package iptables

import (
	"errors"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
)

func TestNotLinux(t *testing.T) {
	if _, err := New(Config{Chain: "no good"}); !errors.Is(err, backend.ErrInvalid) {
		t.Errorf("a bad configuration: %v, want ErrInvalid", err)
	}
	_, err := New(Config{})
	if !errors.Is(err, backend.ErrUnavailable) || err.Error() != "iptables: open: not available: iptables is only on Linux" {
		t.Errorf("new: %v", err)
	}
	b := &Backend{}
	_, listErr := b.List(t.Context())
	_, dropErr := b.Dropped(t.Context())
	for op, err := range map[string]error{
		"init": b.Init(t.Context()), "apply": b.Apply(t.Context(), backend.Change{}), "flush": b.Flush(t.Context()), "list": listErr, "drops": dropErr,
	} {
		if !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", op, err)
		}
	}
	if err := errors.Join(b.Close(t.Context()), b.Detach()); err != nil || b.Skipped() != 0 {
		t.Errorf("close: %v", err)
	}
}
