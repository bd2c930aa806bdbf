// Package stream follows TCP connections and takes application messages out
// of their bytes: HTTP/1 requests and responses, SSH identification lines and
// key exchange offers, TLS hellos, DNS messages. A record leaves as soon as its
// last byte is there, never when the connection closes.
//
// It is built for hostile input. The number of connections and the bytes kept
// for them are bounded; where room is needed, what is worth least goes first:
// connections whose handshake was not seen in full, then those that carry
// nothing a rule asks for, then the others, each the longest silent first. So
// a flood of half-open connections evicts half-open connections.
//
// Overlapping segments are taken as Linux takes them (net/ipv4/tcp_input.c,
// tcp_data_queue_ofo): bytes already delivered stand; among segments that wait
// for a gap to be filled the one that begins first gives the bytes that two
// share, but a segment that covers another wholly replaces it, and one that
// is covered wholly is dropped. As in Linux, data without the ACK flag and
// resets that do not name the next byte (RFC 5961) count for nothing.
//
// So does a segment with a wrong checksum, where the caller asks for a look at
// it, and one beyond the receiver's window, where the handshake was seen.
//
// What a receiver would refuse for another reason is taken all the same:
// segments with a hop limit that does not reach the receiver, or older than its
// time stamps.
package stream

import (
	"github.com/netcap-guard/netcap-guard/capture/stream/message"
	"github.com/netcap-guard/netcap-guard/record"
)

// Defaults of Config.
const (
	DefaultConnections   = 131_072
	DefaultMemory        = 32 << 20
	DefaultPerConnection = 256 << 10
)

// Config bounds a Table; the zero value of each field has the meaning its
// comment gives.
type Config struct {
	// Connections is how many are followed at a time. Zero = 131,072; each
	// takes 64 bytes, 192 more as soon as more than SYNs of it are seen, both
	// allocated as needed, and 10 in the index, or up to 20 where the number is
	// no power of two.
	Connections int
	// Memory is how many bytes are kept of all connections together: parts of
	// messages, and segments that came before their turn. Zero = 32 MiB.
	Memory int
	// PerConnection is the same for one connection. Zero = 256 KiB.
	PerConnection int
	// DNS decodes a message that came over TCP, without its length, into
	// set.DNS; set.Header is filled. Nil = DNS over TCP is passed over.
	DNS func(msg []byte, set *record.Set) error
}

func (c Config) withDefaults() Config {
	if c.Connections == 0 {
		c.Connections = DefaultConnections
	}
	if c.Memory == 0 {
		c.Memory = DefaultMemory
	}
	if c.PerConnection == 0 {
		c.PerConnection = DefaultPerConnection
	}
	return c
}

// Sink takes the records.
type Sink interface {
	// Record is called from within Segment, once for every record. The set's
	// header is oriented as the record is, from the sender to the receiver, and
	// has the packet that completed it. The set and all that its records refer
	// to, strings included, are good until Record returns.
	Record(set *record.Set)
}

// Table is the connections that one goroutine follows. Its methods are that
// goroutine's, Stats apart.
type Table struct {
	cfg  Config
	sink Sink
	want wanted

	keys    keys
	index   index
	entries slab[entry]
	pairs   slab[pair]
	// How many were ever made, and the first of those not in use.
	made, madePairs uint32
	free, freePair  uint32

	lists  [numClasses]list // all connections, longest silent first
	held   [numClasses]list // those with bytes kept
	pool   pool
	spare  *state // chain of states not in use
	recent recent

	parser message.Parser
	set    record.Set
	// For Full: the message whose record is being delivered.
	kind record.Type
	msg  []byte
	full record.Set
	// scratch holds a TLS message that several records share; scanned is how
	// much of the bytes being read was looked at before.
	scratch []byte
	scanned int
	ended   int // where in the bytes being read the hello of scratch ends

	// The segment being taken.
	packet *record.Header
	dir    int  // its direction
	out    bool // it is a witness

	stats counters
}

// wanted is a record.Want in the form that the table reads.
type wanted struct {
	types               record.Mask
	http, ssh, tls, dns bool
	// allPorts: what is asked for can be on any port.
	allPorts   bool
	kex        bool // some rule reads what a KEXINIT says
	handshakes bool
}

func (w *wanted) any() bool { return w.http || w.ssh || w.tls || w.dns }

// New returns a Table that gives sink what want asks for.
func New(want record.Want, sink Sink, cfg Config) *Table {
	cfg = cfg.withDefaults()
	t := &Table{cfg: cfg, sink: sink, keys: newKeys()}
	t.pool.limit = cfg.Memory
	t.SetWant(want)
	return t
}

// SetWant changes what is asked for. Connections that were passed over so far
// stay so.
func (t *Table) SetWant(want record.Want) {
	has := func(types ...record.Type) bool { return want.Types&record.Of(types...) != 0 }
	t.want = wanted{
		types: want.Types,
		http:  has(record.TypeHTTP), ssh: has(record.TypeSSH), dns: has(record.TypeDNS) && t.cfg.DNS != nil,
		tls: has(record.TypeTLSClientHello, record.TypeTLSServerHello), handshakes: want.Handshakes,
	}
	for _, f := range record.LateFields(record.TypeSSH) {
		t.want.kex = t.want.kex || t.want.ssh && want.Field(record.TypeSSH, f)
	}
	t.want.allPorts = t.want.http || t.want.ssh || t.want.tls || t.want.handshakes
	t.parser.SetWant(want)
	t.set = record.Set{}
	t.recent = recent{}
	if t.want.allPorts {
		t.recent.sets = new([1 << recentBits][recentWays]recently)
	}
	if t.index.groups == nil && t.Active() {
		t.index = newIndex(t.cfg.Connections)
	}
}

// Active reports whether anything is asked for that a Table knows: if not,
// Segment does nothing.
func (t *Table) Active() bool { return t.want.any() || t.want.handshakes }

// Takes reports whether Segment would look at the set: it has a segment, and
// what is asked for can be in it. DNS is looked for on its port alone, all else
// on every one.
func (t *Table) Takes(set *record.Set) bool {
	return set.HasSegment && t.index.groups != nil &&
		(t.want.allPorts || t.want.dns && (set.SrcPort == dnsPort || set.DstPort == dnsPort))
}

// Segment takes the segment of set, if it has one, and gives the sink the
// records that it completes. It sets set.Confirmed where the segment belongs
// to a connection whose handshake was seen in full.
//
// A witness is a copy of a packet that counts elsewhere (what a router sends
// on): its handshake is looked at, its data are not.
//
// Nothing is allocated for segments that come in order and whose messages do
// not end between two of them; else from memory that is used again.
func (t *Table) Segment(set *record.Set, witness bool) {
	if !t.Takes(set) {
		return
	}
	seg := &set.Segment
	hash, dir := t.keys.name(&set.Header)
	p := t.lately(hash, seg)
	if p != nil && t.ignores(p, seg) {
		set.Confirmed = p.name&isConfirmed != 0
		return
	}
	i, c := t.known(p, hash, seg)
	if seg.Check && t.weighs(c, dir, seg) && !rightSum(&set.Header, seg) {
		t.stats.badSum.Add(1)
		return
	}
	if i == 0 {
		if !t.opens(seg, witness) {
			return
		}
		i, c = t.open(hash, set.Time, seg)
	} else {
		t.touch(i, c.entry, set.Time)
	}
	t.packet, t.dir, t.out = &set.Header, dir, witness
	take := t.follow(i, c, dir, seg)
	set.Confirmed = c.confirmed
	if c.hash != hash {
		return // it was closed
	}
	if !witness && take {
		t.data(i, c, dir, seg)
	}
	if c.pair != nil {
		t.settle(i, c)
		if p == nil {
			t.recent.note(i, c.entry, t.deaf(c))
		} else {
			p.judge(c.entry, t.deaf(c))
		}
	}
	if used := uint64(t.pool.used); used != t.stats.bytes.Load() {
		t.stats.bytes.Store(used)
	}
}

// lately looks a segment's connection up among the recent ones.
func (t *Table) lately(hash uint64, seg *record.Segment) *recently {
	if seg.Flags&record.FlagSYN != 0 {
		return nil // few SYNs belong to one
	}
	return t.recent.find(hash)
}

// ignores reports whether nothing is to be done about a segment of a recent
// connection.
func (t *Table) ignores(p *recently, seg *record.Segment) bool {
	if p.name&isIgnored == 0 || seg.Flags&(record.FlagFIN|record.FlagRST) != 0 {
		return false
	}
	t.recent.hits++
	return t.recent.hits%longWay != 0
}

// known returns a segment's connection, which may be a recent one; 0 if it is
// not known.
func (t *Table) known(p *recently, hash uint64, seg *record.Segment) (uint32, conn) {
	if p != nil {
		return p.number, conn{t.at(p.number), t.pairs.at(p.pairAt)}
	}
	i := t.find(hash)
	if i == 0 {
		return 0, conn{}
	}
	return i, t.conn(i, seg)
}

// bare reports whether a segment says nothing but that a connection is to begin
// or is none.
func bare(seg *record.Segment) bool {
	return seg.Flags&record.FlagRST != 0 || seg.Flags&(record.FlagSYN|record.FlagACK) == record.FlagSYN
}

// opens reports whether a segment of no known connection begins one: a SYN of
// either side, and where records are asked for, data in the middle of a stream.
func (t *Table) opens(seg *record.Segment, witness bool) bool {
	switch {
	case seg.Flags&record.FlagRST != 0:
		return false
	case seg.Flags&record.FlagSYN != 0:
		return true
	}
	return seg.Size > 0 && !witness && seg.Flags&record.FlagACK != 0 && t.want.any()
}

// emit delivers the record in t.set; msg is what it was made of.
func (t *Table) emit(kind record.Type, msg []byte) {
	t.kind, t.msg = kind, msg
	t.set.Have = record.Of(kind)
	t.stats.records.Add(1)
	t.sink.Record(&t.set)
	t.kind, t.msg = record.NoType, nil
}

// orient fills the header of the record to come, which direction dir of c
// sends.
func (t *Table) orient(c conn, dir int) *record.Header {
	h := &t.set.Header
	*h = *t.packet
	if dir != t.dir {
		h.Src, h.Dst, h.SrcPort, h.DstPort = h.Dst, h.Src, h.DstPort, h.SrcPort
	}
	h.Stream, h.Confirmed = true, c.confirmed
	return h
}

// Message returns the type of the record under delivery and the bytes it was
// made of, good until Record returns; NoType outside Record.
func (t *Table) Message() (record.Type, []byte) { return t.kind, t.msg }

// Full returns the record under delivery with every field filled, for who
// shows it; nil outside Record and for DNS. The set is good until Record
// returns.
func (t *Table) Full() *record.Set {
	if t.kind == record.NoType || t.msg == nil {
		return nil
	}
	t.full = record.Set{Header: t.set.Header, Have: record.Of(t.kind)}
	t.parser.Full(t.kind, t.msg, &t.set, &t.full)
	return &t.full
}
