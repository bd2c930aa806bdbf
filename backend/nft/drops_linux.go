package nft

import (
	"context"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// dropCounter is the name of the counter of what an action has stopped in a
// family: count_drop4. It is an object of the table, not a part of a rule, so
// it goes on counting when rules are made anew.
func dropCounter(a backend.Action, v6 bool) string {
	if v6 {
		return "count_" + word(a) + "6"
	}
	return "count_" + word(a) + "4"
}

// stopping are the actions that are counted.
func stopping() []backend.Action {
	return []backend.Action{backend.Drop, backend.Reject, backend.RejectReset, backend.RateLimit}
}

// dropCounters are all of our counters, at zero.
func dropCounters(t *nftables.Table) []*nftables.CounterObj {
	var out []*nftables.CounterObj
	for _, a := range stopping() {
		for _, f := range families() {
			out = append(out, &nftables.CounterObj{Table: t, Name: dropCounter(a, f.v6)})
		}
	}
	return out
}

// Dropped implements backend.Dropper, with or without Config.Counters. Each
// packet that is stopped is counted by its rule (some nanoseconds); one that
// passes is not. They start again from zero when somebody deletes the table.
func (b *Backend) Dropped(ctx context.Context) ([]backend.Drops, error) {
	if err := b.usable(ctx, "read counters"); err != nil {
		return nil, err
	}
	have, err := b.read.counters(b.config.Table)
	if err != nil {
		return nil, b.explain("read counters", err, false)
	}
	var out []backend.Drops
	for _, a := range stopping() {
		for _, f := range families() {
			out = append(out, backend.Drops{Action: a, Is6: f.v6, Packets: have[dropCounter(a, f.v6)].packets})
		}
	}
	return out, nil
}

// counters reads the named counters of the table.
func (r *reader) counters(table string) (map[string]element, error) {
	out := make(map[string]element)
	_, err := r.dump(unix.NFT_MSG_GETOBJ, []netlink.Attribute{{Type: unix.NFTA_OBJ_TABLE, Data: text(table)}},
		func(attrs []byte, _ time.Time) {
			var e element
			var name string
			var typ uint32
			for a, data := range attributes(attrs) {
				switch a {
				case unix.NFTA_OBJ_NAME:
					name = unix.ByteSliceToString(data)
				case unix.NFTA_OBJ_TYPE:
					typ = be32(data)
				case unix.NFTA_OBJ_DATA:
					e.count(data)
				}
			}
			if typ == unix.NFT_OBJECT_COUNTER {
				out[name] = e
			}
		})
	return out, err
}
