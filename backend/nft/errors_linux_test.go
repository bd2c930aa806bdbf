package nft

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// TestExplain: what a caller can branch on, for each errno nftables answers.
func TestExplain(t *testing.T) {
	tests := []struct {
		errno  unix.Errno
		making bool
		want   error
		text   string
	}{
		{unix.EPERM, false, backend.ErrPermission, "CAP_NET_ADMIN"},
		{unix.EACCES, true, backend.ErrPermission, "root"},
		{unix.ENFILE, false, backend.ErrFull, "room for 7"},
		{unix.ENOENT, false, backend.ErrGone, "table inet mine"},
		{unix.ENOENT, true, backend.ErrUnavailable, "modprobe nf_tables"},
		{unix.EOPNOTSUPP, true, backend.ErrUnavailable, "iptables backend"},
		{unix.EOPNOTSUPP, false, backend.ErrUnavailable, "nft_reject_inet"},
		{unix.EPROTONOSUPPORT, true, backend.ErrUnavailable, "nf_tables"},
		{unix.EAFNOSUPPORT, true, backend.ErrUnavailable, "nf_tables"},
		{unix.EBUSY, false, nil, "busy"},
	}
	sentinels := []error{backend.ErrPermission, backend.ErrFull, backend.ErrGone, backend.ErrUnavailable}
	b := &Backend{config: Config{Table: "mine", SetSize: 7}}
	for _, test := range tests {
		err := b.explain("do it", fmt.Errorf("receive: %w", test.errno), test.making)
		for _, s := range sentinels {
			if errors.Is(err, s) != errors.Is(test.want, s) {
				t.Errorf("%v: errors.Is(%v) is %t", test.errno, s, errors.Is(err, s))
			}
		}
		if !errors.Is(err, test.errno) || !strings.HasPrefix(err.Error(), "nft: do it: ") || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%v: %v, want it to say %q", test.errno, err, test.text)
		}
		if again := b.explain("outer", err, test.making); again.Error() != err.Error() {
			t.Errorf("%v was explained twice: %v", test.errno, again)
		}
	}
	if b.explain("do it", nil, true) != nil {
		t.Error("no error was explained")
	}
}
