package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// protection are the flags of a table that only its owner, a netlink port,
// may change, and that stays without an owner when that port closes, for the
// next process to take. Linux 6.9; owner alone (5.12) is not used, because such
// a table goes with the process and its blocks with it.
const protection = nftables.TableFlagOwner | nftables.TableFlagPersist

// protects reports whether the table is to be ours alone.
func (b *Backend) protects() bool { return b.protect != 0 }

// flags are the table's flags when it is made or changed. The kernel lets
// nobody change persist afterwards.
func (b *Backend) flags(l live) nftables.TableFlags {
	return l.flags&nftables.TableFlagPersist | b.protect
}

// owned reports whether this Backend owns the table.
func (l live) owned(port uint32) bool {
	return l.flags&nftables.TableFlagOwner != 0 && l.owner == port
}

// mine fails where another program owns the table.
func (b *Backend) mine(l live) error {
	if l.flags&nftables.TableFlagOwner == 0 || l.owner == b.port {
		return nil
	}
	return fmt.Errorf("%w: table inet %s is owned by another program (netlink port %d)", backend.ErrPermission, b.config.Table, l.owner)
}

// make is mend for Init: a kernel that cannot protect a table is warned of and
// gets one that is not protected.
func (b *Backend) make(l live) error {
	err := b.mend(l)
	refused := errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || tooLong(err)
	if !b.protects() || !refused {
		return err
	}
	why := "the kernel lacks the table flags owner and persist (Linux 6.9 has them)"
	if tooLong(err) {
		why = "it holds too many blocks to be replaced in one step by one that is"
	}
	b.protect = 0
	if l, err = b.inspect(); err != nil {
		return err
	}
	if !l.right {
		if err := b.mend(l); err != nil {
			return err
		}
	}
	b.config.Logger.Warn("nftables: protect_table has no effect, others can change the table", "table", b.config.Table, "why", why)
	return nil
}
