package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Backend is the nftables backend. It has one owner: its methods are not safe
// for concurrent use.
type Backend struct {
	config Config
	table  *nftables.Table
	conn   *nftables.Conn // reads the structure; its socket owns the table
	wire   *wire          // writes, over the same socket
	read   *reader
	// monitor is read by Watch, beside everything else.
	monitor *monitor
	port    uint32 // conn's: what it does is our doing
	// protect are the flags that protect the table; 0 where it is not to be
	// protected or cannot be.
	protect nftables.TableFlags

	closed  bool
	ready   bool // Init has succeeded
	known   structure
	skipped int
	listed  []kind // the kinds of logs that the last List found
	// allowed is what the allow sets hold, by name: what Init found there or
	// this process allowed since; nil before Init.
	allowed map[string][]nftables.SetElement
	// destroys: the kernel can delete an element that may be missing (6.3).
	destroys bool
	// batch is how many elements one transaction takes. It shrinks where the
	// socket buffer is bounded (a container without CAP_NET_ADMIN outside).
	batch int
}

// maxBatch is how many elements one transaction takes at most: about 4 MB of
// netlink messages. A Change that fits is atomic without further ado. One that
// does not is cut into pieces of maxPiece, which the kernel takes a fifth faster
// (100,000 elements, Linux 6.18).
const (
	maxBatch = 20_000
	maxPiece = 4000
)

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Detacher = (*Backend)(nil)
	_ backend.Skipper  = (*Backend)(nil)
	_ backend.Watcher  = (*Backend)(nil)
	_ backend.Dropper  = (*Backend)(nil)
)

// New opens the connections to the kernel and changes nothing there. Privilege
// is checked by the kernel, at the first operation.
func New(c Config) (*Backend, error) {
	b := &Backend{batch: maxBatch, destroys: true}
	var err error
	if b.config, err = c.complete(); err != nil {
		return nil, b.fail("open", err)
	}
	if c.Protect {
		b.protect = protection
	}
	b.table = &nftables.Table{Name: b.config.Table, Family: nftables.TableFamilyINet}
	var socket *netlink.Conn
	keep := func(c *netlink.Conn) error { socket = c; return nil }
	if b.conn, err = nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(c.NetNS), nftables.WithSockOptions(keep)); err != nil {
		return nil, b.explain("open", err, true)
	}
	if b.wire, err = newWire(socket); err != nil {
		return nil, errors.Join(b.explain("open", err, true), b.conn.CloseLasting())
	}
	if b.read, err = newReader(c.NetNS); err != nil {
		return nil, errors.Join(b.explain("open", err, true), b.conn.CloseLasting())
	}
	if b.monitor, err = newMonitor(c.NetNS); err == nil {
		b.port, err = b.conn.GetPortID()
	}
	if err != nil {
		return nil, errors.Join(b.explain("open", err, true), b.Detach())
	}
	return b, nil
}

// Name returns "nft".
func (*Backend) Name() string { return name }

// Skipped returns how many sets in our table and elements in our sets the last
// List could not read as blocks.
func (b *Backend) Skipped() int { return b.skipped }

// Init makes the table, its chains and rules, or what of them is missing or
// was changed, in one transaction. Sets and their blocks stay as they are; a
// set of one of our names that somebody made in another way is replaced, what
// can be read of its elements included. Rules that somebody added to our
// chains go; other chains and sets in the table stay.
func (b *Backend) Init(ctx context.Context) error {
	if err := b.usable(ctx, "init"); err != nil {
		return err
	}
	live, err := b.inspect()
	if err == nil {
		err = b.mine(live)
	}
	if err != nil {
		return b.explain("read table", err, true)
	}
	if !live.right {
		if live.exists {
			b.config.Logger.Warn("nftables: structure of the table is not as we make it, putting it back", "table", b.config.Table, "why", live.wrong)
		}
		if err := b.make(live); err != nil {
			return b.explain("make table", err, true)
		}
		if live, err = b.inspect(); err != nil {
			return b.explain("read table", err, true)
		}
	}
	b.known = live.structure
	b.destroys = b.destroys && b.canDestroy()
	b.allowed = b.allows(live)
	b.ready = true
	return nil
}

// canDestroy asks the kernel to destroy an element of a set that does not
// exist: one that knows the message says ENOENT.
func (b *Backend) canDestroy() bool {
	nowhere := entry{kind: &kind{bits: -1}, addr: netip.IPv4Unspecified()}
	b.wire.begin()
	b.wire.elements(msgDestroySetElem, 0, b.config.Table, []entry{nowhere}, true)
	err := b.wire.commit()
	return err == nil || errors.Is(err, unix.ENOENT)
}

// List reads all blocks out of the kernel. It is slow for large sets: the kernel
// hands over 32 KB at a time and walks the set from its beginning for each.
// 100,000 blocks with counters and comments, 152 bytes each, are 472 times, which
// took it 1.1 to 1.4 s on a machine whose caches others used, too (Linux 6.18);
// what is done with them here takes 0.1 s.
func (b *Backend) List(ctx context.Context) ([]backend.Block, error) {
	if err := b.usable(ctx, "list"); err != nil {
		return nil, err
	}
	var damage error
	if b.ready {
		l, err := b.settled()
		switch {
		case err != nil:
			return nil, b.explain("read table", err, false)
		case !l.exists, len(l.chains)+len(l.rules)+len(l.allow)+len(l.replace) == 0:
			return nil, b.fail("list", fmt.Errorf("%w (table inet %s)", backend.ErrGone, b.config.Table))
		case !l.right:
			damage = b.fail("list", fmt.Errorf("%w (table inet %s): %s", backend.ErrDamaged, b.config.Table, l.wrong))
		}
	}
	out, err := b.blocks()
	if err != nil {
		return nil, b.explain("list", err, false)
	}
	return out, damage
}

// settled is inspect that does not take a table in the middle of somebody's
// changes for a damaged one: a dump during a transaction lies.
func (b *Backend) settled() (l live, err error) {
	for range dumpTries {
		before, err := b.conn.GetGen()
		if err != nil {
			return l, fmt.Errorf("read generation: %w", err)
		}
		if l, err = b.inspect(); err != nil || l.right {
			return l, err
		}
		after, err := b.conn.GetGen()
		if err != nil || before.ID == after.ID {
			return l, err
		}
	}
	return l, nil
}

// blocks reads all blocks out of the sets.
func (b *Backend) blocks() ([]backend.Block, error) {
	defs, err := b.read.sets(b.config.Table)
	if err != nil {
		return nil, fmt.Errorf("read sets: %w", err)
	}
	var out []backend.Block
	texts := make(map[string]string)
	b.skipped, b.listed = 0, nil
	for _, d := range defs {
		k, ours := parseKind(d.name)
		switch {
		case isAllow(d.name) || d.anonymous():
			continue
		case !ours || !d.fits(k):
			b.skipped++
			continue
		}
		if k.action == backend.Log {
			b.listed = append(b.listed, k)
		}
		elements, err := b.read.elements(b.config.Table, d.name)
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", d.name, err)
		}
		out = slices.Grow(out, len(elements))
		for i := range elements {
			one, ok := k.block(elements[i])
			switch {
			case !ok:
				b.skipped++
			case !one.Expired(elements[i].read):
				one.Rule, one.Reason = same(texts, one.Rule), same(texts, one.Reason)
				out = append(out, one)
			}
		}
	}
	return out, nil
}

// maxTexts bounds how many different texts are looked for twice.
const maxTexts = 4096

// same returns a text from those seen before: most blocks say the same as
// others, and what they say would otherwise keep the whole comment.
func same(seen map[string]string, s string) string {
	if t, ok := seen[s]; ok {
		return t
	}
	s = strings.Clone(s)
	if len(seen) < maxTexts {
		seen[s] = s
	}
	return s
}

// Flush removes all blocks with their sets and rules in one transaction; the
// table, the chains and the allowed addresses stay.
func (b *Backend) Flush(ctx context.Context) error {
	if err := b.usable(ctx, "flush"); err != nil {
		return err
	}
	live, err := b.inspect()
	switch {
	case err != nil:
		return b.explain("read table", err, false)
	case !live.exists:
		return b.fail("flush", backend.ErrGone)
	}
	if err := b.restore(live, goal{allow: b.allows(live)}); err != nil {
		return b.explain("flush", err, false)
	}
	return b.look()
}

// Close deletes the table and releases the connections, also if that fails.
func (b *Backend) Close(ctx context.Context) error {
	if b.closed {
		return nil
	}
	err := ctx.Err()
	if err == nil {
		b.wire.begin()
		err = b.wire.structure(func(c *nftables.Conn) error { c.DelTable(b.table); return nil })
	}
	if err == nil {
		err = b.wire.commit()
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil // somebody was faster, or Init never ran
	}
	return errors.Join(b.explain("delete table", err, false), b.Detach())
}

// Detach releases the connections; the table stays in force.
func (b *Backend) Detach() error {
	if b.closed {
		return nil
	}
	b.closed = true
	err := errors.Join(b.conn.CloseLasting(), b.read.close())
	if b.monitor != nil {
		err = errors.Join(err, b.monitor.close())
	}
	if err != nil {
		return b.fail("close connection", err)
	}
	return nil
}

func (b *Backend) usable(ctx context.Context, op string) error {
	if b.closed {
		return b.fail(op, backend.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return b.fail(op, err)
	}
	return nil
}
