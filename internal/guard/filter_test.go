package guard

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/filter"
	"github.com/netcap-guard/netcap-guard/capture/yardstick"
	"github.com/netcap-guard/netcap-guard/engine"
)

// filterRules are rules of which the kernel can test something.
const filterRules = `
- {name: scan, type: TCP, expression: 'SYN && !ACK && PayloadSize == 0', threshold: 5}
- {name: ssh, type: TCP, expression: 'DstPort == 22 && SYN && !ACK', threshold: 2}
- {name: odd, type: TCP, expression: 'FIN && !ACK || (SYN && FIN) || !(SYN || ACK || RST || FIN)', threshold: 2}
- {name: ports, type: TCP, expression: 'PortInRange(DstPort, 20, 25) && PSH', threshold: 3}
- {name: window, type: TCP, expression: 'Window < 100 && RST', threshold: 2}
- {name: amplified, type: UDP, expression: 'SrcPort in [53, 123, 1900] && Length > 200', threshold: 3}
- {name: high, type: UDP, expression: 'DstPort > 60000', threshold: 3}
- {name: ping, type: ICMPv4, expression: 'Type == 8', threshold: 3}
`

// alertList gathers alerts as text.
type alertList struct {
	mu  sync.Mutex // guards all
	all []string
}

func (l *alertList) WriteAlert(a *engine.Alert) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprint(a.Rule, " ", a.Src, " ", a.Packet))
	return nil
}

// filtered evaluates packets, all of them or those that the program keeps, and
// returns the alerts and how many packets were hidden.
func filtered(t *testing.T, rs *engine.RuleSet, packets []capture.Packet, p *filter.Program) (alerts []string, hidden int) {
	t.Helper()
	var list alertList
	e := engine.New(rs, engine.Config{Alerts: &list, Lossless: true})
	w := newWorker(newShared(e))
	for i := range packets {
		kept, err := p.Keeps(packets[i].Data)
		if err != nil {
			t.Fatal(err)
		}
		if kept {
			w.packet(&packets[i], uint64(i+1))
		} else {
			hidden++
		}
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list.all)
	return list.all, hidden
}

// ruleSets are the rules that the filter is tested with: those and the shipped
// ones.
func ruleSets(t *testing.T, test func(t *testing.T, rs *engine.RuleSet, p *filter.Program)) {
	t.Helper()
	shipped, err := os.ReadFile(filepath.Join("..", "..", "configs", "firewall-rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"own": filterRules, "shipped": string(shipped)} {
		t.Run(name, func(t *testing.T) {
			rs, p := filterRuleSet(t, text)
			test(t, rs, p)
		})
	}
}

func filterRuleSet(t *testing.T, text string) (*engine.RuleSet, *filter.Program) {
	t.Helper()
	rs, report := engine.Load(engine.Bytes("test", []byte(text)))
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	p := filter.Compile(needs(rs, false))
	if len(p.Instructions()) == 0 {
		t.Fatal("no filter")
	}
	return rs, p
}

// TestFilterChangesNoAlert: rules find the same with and without the kernel's
// filter.
func TestFilterChangesNoAlert(t *testing.T) {
	var packets []capture.Packet
	g := yardstick.New(5)
	for range 20000 {
		data, at := g.Next()
		packets = append(packets, capture.Packet{Data: slices.Clone(data), Time: at, Length: len(data), Link: capture.LinkEthernet})
	}
	ruleSets(t, func(t *testing.T, rs *engine.RuleSet, p *filter.Program) {
		want, _ := filtered(t, rs, packets, nil)
		got, hidden := filtered(t, rs, packets, p)
		if !slices.Equal(got, want) {
			t.Errorf("alerts with the filter:\n%q\nwithout:\n%q", got, want)
		}
		if len(want) < 10 || hidden < len(packets)/20 {
			t.Errorf("%d alerts, %d of %d packets hidden: the test tests little", len(want), hidden, len(packets))
		}
	})
}

// TestFilterChangesNoAlertOfCaptures: the same over real captures, those of
// NETCAP_GUARD_CAPTURES.
func TestFilterChangesNoAlertOfCaptures(t *testing.T) {
	dir := os.Getenv(capturesVariable)
	if dir == "" {
		t.Skipf("%s is not set: no captures to replay", capturesVariable)
	}
	ruleSets(t, func(t *testing.T, rs *engine.RuleSet, p *filter.Program) { filterCaptures(t, dir, rs, p) })
}

func filterCaptures(t *testing.T, dir string, rs *engine.RuleSet, p *filter.Program) {
	t.Helper()
	files, alerts, total, hidden := 0, 0, 0, 0
	for _, row := range manifest(t, dir) {
		name := row["category"] + "/" + row["file"]
		packets := ethernetPackets(t, filepath.Join(dir, filepath.FromSlash(name)))
		want, _ := filtered(t, rs, packets, nil)
		got, n := filtered(t, rs, packets, p)
		if !slices.Equal(got, want) {
			t.Errorf("%s: alerts with the filter:\n%q\nwithout:\n%q", name, got, want)
		}
		files, alerts, total, hidden = files+1, alerts+len(want), total+len(packets), hidden+n
	}
	t.Logf("%d captures, %d alerts with and without; %d of %d packets hidden", files, alerts, hidden, total)
	if files < 800 || alerts < 100 || hidden < total/50 {
		t.Error("the test tests little")
	}
}

// ethernetPackets are the first of a capture's packets, as far as they have an
// Ethernet header.
func ethernetPackets(t *testing.T, path string) []capture.Packet {
	t.Helper()
	src, err := capture.OpenFile(path)
	if err != nil {
		return nil // one that no reader reads
	}
	defer func() { _ = src.Close() }()
	const most = 20000
	var packets []capture.Packet
	for p := (capture.Packet{}); len(packets) < most; {
		if err := src.Next(&p); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Logf("%s: %v", path, err)
			}
			break
		}
		if p.Link == capture.LinkEthernet {
			q := p
			q.Data = slices.Clone(p.Data)
			packets = append(packets, q)
		}
	}
	return packets
}
