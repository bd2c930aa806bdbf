package guard

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/record"
)

// TestWriteWhy reads the table as a person does who asks why a rule did not
// fire.
func TestWriteWhy(t *testing.T) {
	rs, report := engine.Load(engine.Bytes("rules.yml", []byte(`
- {name: scan, type: TCP, expression: SYN, threshold: 50, threshold_window: 10}
- {name: ports, type: TCP, expression: SYN, distinct_field: DstPort, distinct_threshold: 9, track_by: pair}
- {name: once, type: TCP, expression: SYN && DstPort == 3}
- {name: proven, type: TCP, expression: SYN, confirmed: true, threshold: 3}
- {name: after, type: TCP, expression: SYN, sequence: {after: silent, within: 60}}
- {name: silent, type: TCP, expression: FIN}
- {name: off, type: TCP, expression: FIN, enabled: false}
- {name: broken, type: TCP, expression: 'Options[0].OptionType == 1', threshold: 2}
`)))
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	e := engine.New(rs, engine.Config{Lossless: true})
	defer func() { _ = e.Close(context.Background()) }() // nothing waits
	w := e.NewWorker()
	for i := range 4 {
		set := &record.Set{Have: record.Of(record.TypeTCP)}
		set.Header = record.Header{Time: int64(i) * 1e9, Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("2001:db8::1"), Proto: 6}
		set.TCP = record.TCP{SYN: true, DstPort: int32(i)}
		w.Evaluate(set)
	}
	var out bytes.Buffer
	if err := writeWhy(&out, e); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"rule matches alerts highest count for time not counted",
		"scan 4 0 4 of 50 in 10s 192.0.2.1 - -",
		"ports 4 0 4 of 9 DstPort in 60s 192.0.2.1 to 2001:db8::1 - -",
		"once 1 1 1 of 1 192.0.2.1 - -",
		"proven 4 0 0 of 3 in 60s - - 4 without a handshake",
		"after 4 0 0 of 1 - - 4 without the rule before",
		"silent 0 0 0 of 1 - - -",
		"broken 0 0 0 of 2 in 60s - - 4 evaluation errors",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
