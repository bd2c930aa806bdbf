package engine

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/netcap-guard/netcap-guard/record"
)

// Sequence makes a rule count only what comes after a match of another rule
// for the same group.
type Sequence struct {
	// After names the other rule; its matches count, whether or not they reach
	// its own threshold.
	After string
	// GroupBy are the fields that both records must have in common; none = the
	// source address.
	GroupBy []string
	// Within is how long a match of After opens the way, the end included.
	Within time.Duration
}

// String names what a reload compares.
func (s *Sequence) String() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%q %q %v", s.After, s.GroupBy, s.Within)
}

// reader appends what a field of a record holds to a key.
type reader func(*env, []byte) []byte

// mark is what a match of a rule opens: the way of a later one.
type mark struct {
	rule   uint32 // whose way
	group  []reader
	within int64
}

// groupReaders are the readers of a sequence's group for one record type.
func groupReaders(t record.Type, fields []string) []reader {
	if len(fields) == 0 {
		return []reader{func(e *env, b []byte) []byte { return appendAddr(b, e.hdr.Src.As16()) }}
	}
	typ := reflect.TypeOf(t.New()).Elem()
	readers := make([]reader, len(fields))
	for i, name := range fields {
		f, _ := typ.FieldByName(name)
		load := intLoader(f.Type.Kind())
		switch addr := headerAddress(t, name); {
		case addr != nil:
			readers[i] = func(e *env, b []byte) []byte { return appendAddr(b, addr(e).As16()) }
		case load != nil:
			readers[i] = func(e *env, b []byte) []byte {
				return binary.LittleEndian.AppendUint64(b, uint64(load(e.rec.at(f.Offset))))
			}
		case f.Type.Kind() == reflect.Bool:
			readers[i] = func(e *env, b []byte) []byte { return append(b, byte(boolInt(e.rec.at(f.Offset).bool()))) }
		default:
			readers[i] = func(e *env, b []byte) []byte {
				s := e.rec.at(f.Offset).text()
				return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
			}
		}
	}
	return readers
}

func appendAddr(b []byte, a [16]byte) []byte { return append(b, a[:]...) }

// groupable says what is wrong with a field of a group.
func groupable(t reflect.Type) string {
	if isInteger(t.Kind()) || t.Kind() == reflect.String || t.Kind() == reflect.Bool {
		return ""
	}
	return "must be a number, a text or a boolean"
}

// opened is a mark that a match of the packet under evaluation made.
type opened struct {
	key    trackerKey
	within int64
}

// groupKey names the way of a rule for the record's group.
func (w *Worker) groupKey(rule uint32, group []reader) trackerKey {
	b := binary.LittleEndian.AppendUint32(w.group[:0], rule)
	b = append(b, byte(followsRule))
	for _, read := range group {
		b = read(&w.env, b)
	}
	w.group = b
	return keyOf(rule, w.engine.tracker.hashBytes(b))
}

// open notes what the match opens. It takes effect once the packet is through:
// a packet does not come after itself.
func (w *Worker) open(ev *evaluator) {
	for i := range ev.marks {
		m := &ev.marks[i]
		w.opened = append(w.opened, opened{w.groupKey(m.rule, m.group), m.within})
	}
}

// flush makes what the packet opened take effect.
func (w *Worker) flush(now int64) {
	for _, o := range w.opened {
		w.engine.tracker.mark(o.key, now, o.within)
	}
	w.opened = w.opened[:0]
}

// mark notes that the way is open from now on.
func (t *tracker) mark(k trackerKey, now, within int64) {
	sh := t.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := t.find(sh, k, now, within)
	c.count, c.newest = 1, max(now, c.newest)
}

// marked reports whether the way is open at now.
func (t *tracker) marked(k trackerKey, now, within int64) bool {
	sh := t.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	b := &sh.heads[k.place&(t.perShard-1)]
	for i := range b {
		if h := &b[i]; h.tag == k.tag {
			return max(now, h.newest) <= later(h.newest, within)
		}
	}
	return false
}

// connect gives the evaluators of the rules that sequences name their marks.
func (a *active) connect(rs *RuleSet) {
	for _, r := range rs.rules {
		if r.Sequence == nil || !r.Runs() {
			continue
		}
		id := a.states[r.signature()].id
		for t := range a.byType {
			for i := range a.byType[t] {
				ev := &a.byType[t][i]
				if ev.rule.Name == r.Sequence.After {
					ev.marks = append(ev.marks, mark{id, groupReaders(ev.record, r.Sequence.GroupBy), int64(r.Sequence.Within)})
				}
				if ev.rule == r {
					ev.follows = groupReaders(ev.record, r.Sequence.GroupBy)
				}
			}
		}
	}
}

// sequenceFields are the fields that sequences read of a rule's records.
func (s *RuleSet) sequenceFields(r *Rule) []string {
	var fields []string
	for _, other := range s.rules {
		if q := other.Sequence; q != nil && other.Runs() && (other == r || q.After == r.Name) {
			fields = append(fields, q.GroupBy...)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(fields)))
}
