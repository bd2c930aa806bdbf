//go:build !linux

package nflog

import (
	"errors"
	"testing"
)

func TestUnsupported(t *testing.T) {
	if _, err := Open(Config{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("open: %v", err)
	}
	if err := new(Reader).Run(nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("run: %v", err)
	}
}
