package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// explain is the one place that says what an errno of nftables means here.
// making is true where objects are made rather than used: there ENOENT means
// that the kernel lacks a module, not that somebody took our table away.
func (b *Backend) explain(op string, err error, making bool) error {
	if err == nil {
		return nil
	}
	if op, ok := errors.AsType[*backend.OpError](err); ok {
		return op
	}
	is := func(errnos ...unix.Errno) bool {
		for _, e := range errnos {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(unix.EPERM, unix.EACCES):
		err = fmt.Errorf("%w: %w", backend.ErrPermission, err)
	case is(unix.ENFILE):
		err = fmt.Errorf("%w (new sets have room for %d): %w", backend.ErrFull, b.config.SetSize, err)
	case is(unix.ENOENT) && !making:
		err = fmt.Errorf("%w (table inet %s): %w", backend.ErrGone, b.config.Table, err)
	case is(unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENOSYS), is(unix.ENOENT):
		err = fmt.Errorf("%w: this kernel lacks a part of nf_tables (needed: nf_tables with family inet, nft_reject_inet, "+
			"nft_limit; try modprobe nf_tables, or use the iptables backend): %w", backend.ErrUnavailable, err)
	}
	return b.fail(op, err)
}
