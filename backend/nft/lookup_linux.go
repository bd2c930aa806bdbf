package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Lookup asks for single elements, a few microseconds each however many the
// sets hold. Without Config.Counters, and for elements in sets that were made
// without, HasPackets is false. A block that is replaced keeps its count.
func (b *Backend) Lookup(ctx context.Context, keys []backend.Key) ([]backend.Status, error) {
	if err := b.usable(ctx, "lookup"); err != nil {
		return nil, err
	}
	out := make([]backend.Status, len(keys))
	var questions []question
	var about []int // the index of each question's key
	for i, key := range keys {
		out[i].Key = key
		for _, k := range b.kindsOf(key) {
			questions = append(questions, question{k, key.Prefix.Addr().AsSlice()})
			about = append(about, i)
		}
	}
	answers, err := b.read.find(b.config.Table, questions)
	if err != nil {
		return nil, b.explain("lookup", err, false)
	}
	for i, e := range answers {
		status := &out[about[i]]
		if e == nil || status.Found {
			continue
		}
		if e.timed && e.left() <= 0 {
			continue // its end has come; the kernel has not taken it out yet
		}
		status.Found, status.Action, status.Permanent = true, questions[i].kind.action, !e.timed
		status.Remaining = e.left()
		status.HasPackets, status.Packets = e.counts, e.packets
	}
	return out, nil
}

// kindsOf are the kinds that a block of the key can be of, the one that is
// looked up first in front. After Init sets that are not there are left out;
// before, the texts in front of logs are known of the last List only.
func (b *Backend) kindsOf(key backend.Key) []kind {
	var out []kind
	for _, a := range backend.Actions() {
		slot := backend.Slot{Key: key, Action: a}
		if (backend.Change{Remove: []backend.Block{{Key: key, Action: a}}}).Validate() != nil {
			continue
		}
		if a == backend.Log {
			for k := range b.known.rules {
				if k.holds(slot) {
					out = append(out, k)
				}
			}
			for _, k := range b.listed {
				if !b.ready && k.holds(slot) {
					out = append(out, k)
				}
			}
			continue
		}
		k := kindOf(&backend.Block{Key: key, Action: a})
		if _, known := b.known.rules[k]; known || !b.ready {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, kind.compare)
	return out
}

// question is one element that may be there.
type question struct {
	kind kind
	key  []byte
}

// window is how many questions are asked in one go: the answers have to fit
// into the socket's receive buffer.
const window = 64

// find asks for single elements; the answer to one that is not there is nil.
func (r *reader) find(table string, questions []question) ([]*element, error) {
	out := make([]*element, 0, len(questions))
	for part := range slices.Chunk(questions, window) {
		answers, err := r.ask(table, part)
		if err != nil {
			return nil, err
		}
		out = append(out, answers...)
	}
	return out, nil
}

func (r *reader) ask(table string, questions []question) ([]*element, error) {
	requests := make([]netlink.Message, 0, len(questions))
	for _, q := range questions {
		data, err := q.encode(table)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		requests = append(requests, netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM), Flags: netlink.Request},
			Data:   data,
		})
	}
	sent, err := r.conn.SendMessages(requests)
	if err != nil {
		return nil, fmt.Errorf("request element: %w", err)
	}
	index := make(map[uint32]int, len(sent))
	for i, m := range sent {
		index[m.Header.Sequence] = i
	}
	out := make([]*element, len(questions))
	for len(index) > 0 {
		n, err := r.receive()
		if err != nil {
			return nil, fmt.Errorf("read element: %w", err)
		}
		read := time.Now()
		for h, body := range messages(r.buf[:n]) {
			i, mine := index[h.sequence]
			if !mine || !h.whole {
				continue
			}
			delete(index, h.sequence)
			if out[i], err = answer(h, body, read); err != nil {
				return nil, fmt.Errorf("element of set %s: %w", questions[i].kind, err)
			}
		}
	}
	return out, nil
}

// answer reads the one message that answers a question.
func answer(h header, body []byte, read time.Time) (*element, error) {
	if h.typ == unix.NLMSG_ERROR {
		err := status(body)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil //nolint:nilnil // there is none, and that is the answer
		}
		return nil, err
	}
	if len(body) < 4 {
		return nil, errors.New("malformed answer")
	}
	var one element
	n := 0
	decodeElements(body[4:], read, new(arena), func(e element) { one, n = e, n+1 })
	if n != 1 {
		return nil, fmt.Errorf("%d elements in an answer for one", n)
	}
	return &one, nil
}

func (q question) encode(table string) ([]byte, error) {
	const nested = unix.NLA_F_NESTED
	data := q.key
	var err error
	for _, typ := range []uint16{unix.NFTA_DATA_VALUE, unix.NFTA_SET_ELEM_KEY | nested, unix.NFTA_LIST_ELEM | nested} {
		if data, err = netlink.MarshalAttributes([]netlink.Attribute{{Type: typ, Data: data}}); err != nil {
			return nil, err
		}
	}
	data, err = netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: text(table)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: text(q.kind.String())},
		{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | nested, Data: data},
	})
	return append([]byte{byte(nftables.TableFamilyINet), unix.NFNETLINK_V0, 0, 0}, data...), err
}
