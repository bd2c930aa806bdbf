package stream_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

// everything asks for all fields of all types.
func everything() record.Want {
	var w record.Want
	w.Handshakes = true
	for _, t := range record.Types() {
		w.Add(t, fieldsOf(t)...)
	}
	return w
}

// catcher is a Sink that writes down what it gets: the header, then the record
// as JSON.
type catcher struct {
	t     testing.TB
	lines []string
	kinds map[string]int
}

func (c *catcher) Record(set *record.Set) {
	have := set.Have
	for typ := have.Next(); typ != record.NoType; typ = have.Next() {
		b, err := json.Marshal(set.Snapshot(typ))
		if err != nil {
			c.t.Fatal(err)
		}
		c.lines = append(c.lines, fmt.Sprintf("%v %v:%d->%v:%d confirmed=%t late=%t %s", typ, set.Src, set.SrcPort,
			set.Dst, set.DstPort, set.Confirmed, set.Late, b))
		if c.kinds == nil {
			c.kinds = map[string]int{}
		}
		c.kinds[typ.String()]++
	}
}

// ends are a connection's two addresses.
type ends struct {
	client, server netip.AddrPort
	cISN, sISN     uint32
}

func web() ends {
	return ends{netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("198.51.100.2:80"), 1000, 5000}
}

// noScale is the scale of a SYN that has no such option.
const noScale = 0xff

// packet is one segment on its way.
type packet struct {
	e        ends
	toServer bool
	flags    uint8
	seq, ack uint32
	data     []byte
	size     int    // 0 = all of data
	window   uint16 // 0 = 65,535
	scale    uint8  // plus one; 0 = 14
	time     int64
}

func (p packet) set() *record.Set {
	s := &record.Set{HasSegment: true}
	src, dst := p.e.client, p.e.server
	if !p.toServer {
		src, dst = dst, src
	}
	s.Header = record.Header{Time: 1e9 + p.time, Src: src.Addr(), Dst: dst.Addr(), SrcPort: src.Port(), DstPort: dst.Port(), Proto: 6}
	size := p.size
	if size == 0 {
		size = len(p.data)
	}
	if p.window == 0 {
		p.window = 65535
	}
	if p.scale == 0 {
		p.scale = 15
	}
	if p.flags&record.FlagSYN == 0 || p.scale == noScale {
		p.scale = 0
	}
	s.Segment = record.Segment{Scale: p.scale, Seq: p.seq, Ack: p.ack, Flags: p.flags, Payload: p.data, Size: int32(size), Window: p.window}
	return s
}

func (e ends) syn() packet {
	return packet{e: e, toServer: true, flags: record.FlagSYN, seq: e.cISN}
}

func (e ends) synACK() packet {
	return packet{e: e, flags: record.FlagSYN | record.FlagACK, seq: e.sISN, ack: e.cISN + 1}
}

func (e ends) ack() packet {
	return packet{e: e, toServer: true, flags: record.FlagACK, seq: e.cISN + 1, ack: e.sISN + 1}
}

func (e ends) open() []packet { return []packet{e.syn(), e.synACK(), e.ack()} }

// up is data from the client that begins at its byte at, down from the server.
func (e ends) up(at int, data string) packet {
	return packet{e: e, toServer: true, flags: record.FlagACK | record.FlagPSH, seq: e.cISN + 1 + uint32(at), ack: e.sISN + 1, data: []byte(data)}
}

func (e ends) down(at int, data string) packet {
	return packet{e: e, flags: record.FlagACK | record.FlagPSH, seq: e.sISN + 1 + uint32(at), ack: e.cISN + 1, data: []byte(data)}
}

// run takes packets through a new table.
func run(t testing.TB, want record.Want, cfg stream.Config, packets ...packet) (*catcher, *stream.Table) {
	t.Helper()
	c := &catcher{t: t}
	table := stream.New(want, c, cfg)
	for _, p := range packets {
		table.Segment(p.set(), false)
	}
	return c, table
}

func fieldsOf(t record.Type) []string {
	typ := reflect.TypeOf(t.New()).Elem()
	names := make([]string, typ.NumField())
	for i := range names {
		names[i] = typ.Field(i).Name
	}
	return names
}
