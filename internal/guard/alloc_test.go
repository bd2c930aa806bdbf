package guard

import (
	"testing"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/record"
)

// noMatch are TCP rules of every kind the shipped files have, none of which
// matches what the generator makes.
const noMatch = `
- {name: scan, type: TCP, expression: 'SYN && FIN && PayloadSize == 0', threshold: 50}
- {name: ports, type: TCP, expression: 'SYN && !ACK && DstPort in [2323, 5555, 7547]', threshold: 10}
- {name: range, type: TCP, expression: 'PortInRange(DstPort, 60001, 60002) && SYN && RST', threshold: 10}
- {name: subnet, type: TCP, expression: 'InSubnet(SrcIP, "127.0.0.1/32")', threshold: 10}
- {name: address, type: TCP, expression: 'SrcIP == "255.1.2.3" || IsPrivateIP(DstIP) && URG', threshold: 10}
- {name: window, type: TCP, expression: 'Window * 2 == 7 and not ACK', threshold: 10}
`

// TestNoAllocations: the way of a packet that matches no rule, decoder and
// rules together, allocates nothing.
func TestNoAllocations(t *testing.T) {
	rs, report := engine.Load(engine.Bytes("test", []byte(noMatch)))
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	for _, r := range rs.Rules() {
		if !r.Native() {
			t.Errorf("rule %s runs in the VM", r.Name)
		}
	}
	e := engine.New(rs, engine.Config{Lossless: true})
	defer func() {
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	var packets []capture.Packet
	g := yardstick.New(1)
	for range 5000 {
		data, at := g.Next()
		packets = append(packets, capture.Packet{Data: append([]byte(nil), data...), Time: at, Length: len(data), Link: capture.LinkEthernet})
	}
	w := newWorker(newShared(e))
	all := func() {
		for i := range packets {
			w.packet(&packets[i], 0)
		}
	}
	if n := testing.AllocsPerRun(10, all); n != 0 {
		t.Errorf("%v allocations in %d packets, rules %+v", n, len(packets), e.Stats().Rules)
	}
	for name, s := range e.Stats().Rules {
		if s.Matches != 0 {
			t.Errorf("rule %s matches: the packets are not what the test needs", name)
		}
	}
	if w.records[record.TypeTCP].load() == 0 {
		t.Error("no TCP among the packets")
	}
}
