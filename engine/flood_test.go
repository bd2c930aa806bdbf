package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// floodRules are the three rules that attackers are to be found by; the first
// two count every forged SYN as well.
const floodRules = `
- {name: scan, type: TCP, expression: SYN && !ACK && PayloadSize == 0, threshold: 50, threshold_window: 10}
- {name: flood, type: TCP, expression: SYN && !ACK && PayloadSize == 0, threshold: 100, threshold_window: 5}
- {name: ssh, type: TCP, expression: DstPort == 22 && SYN && !ACK, threshold: 10, threshold_window: 300}
`

// TestForgedFlood sends SYNs from as many forged sources in 10 seconds of
// packet time, and among them 100 attackers for each of three rules, each at
// 1.2 times the rule's rate: those of the SSH rule began 145 seconds before
// the flood and go on 145 seconds after it. NETCAP_GUARD_FLOOD is the number
// of forged sources (make bench-rules: 3,000,000); the default is a tenth of
// that, on a table of an eighth.
func TestForgedFlood(t *testing.T) {
	forged, entries := 300_000, defaultEntries/8
	if s := os.Getenv("NETCAP_GUARD_FLOOD"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("NETCAP_GUARD_FLOOD=%s is no number", s)
		}
		forged, entries = n, defaultEntries
	}
	rs, _ := mustLoad(t, floodRules)
	j := &journal{}
	e := New(rs, Config{Alerts: j, Lossless: true, TrackerEntries: entries})
	defer func() { _ = e.Close(context.Background()) }() // nothing waits
	hits := flood(forged)
	w, set := e.NewWorker(), syn(1, "192.0.2.1", 0)
	begun := time.Now()
	for hits.next() {
		set.Time, set.Src, set.TCP.DstPort = hits.at, hits.src, hits.port
		w.Evaluate(set)
	}
	took := time.Since(begun)
	found, wrong := map[string]map[netip.Addr]bool{"scan": {}, "flood": {}, "ssh": {}}, 0
	for _, a := range j.alerts {
		if !strings.HasPrefix(a.Src.String(), "10.") {
			wrong++
		}
		found[a.Rule][a.Src] = true
	}
	s := e.Stats()
	t.Logf("%d forged sources in 10 s, %d attackers each; %d of %d counters, %d evictions, %.0f ns a packet, VmRSS %s",
		forged, attackersEach, s.TrackerEntries, entries, s.TrackerEvictions, float64(took)/float64(hits.sent), residentSet())
	for i, rule := range []string{"scan", "flood", "ssh"} {
		n := 0
		for a := range attackersEach {
			if found[rule][attackerAddr(i, a)] {
				n++
			}
		}
		t.Logf("  %-6s found %3d, missed %3d", rule, n, attackersEach-n)
		if n < attackersEach && rule != "ssh" {
			t.Errorf("%s: %d of %d attackers found", rule, n, attackersEach)
		}
	}
	if wrong > 0 || s.TrackerEvictions == 0 {
		t.Errorf("%d alerts for forged sources, %d evictions", wrong, s.TrackerEvictions)
	}
	if kb := residentKilobytes(); kb > 100_000 && os.Getenv("NETCAP_GUARD_FLOOD") != "" {
		t.Errorf("VmRSS is %d kB, want at most 100 MB", kb)
	}
}

const attackersEach = 100

func attackerAddr(rule, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(rule), 0, byte(i)})
}

// hits are the flood's packets in the order of their times.
type hits struct {
	r      *rand.Rand
	forged int
	left   int
	sent   int
	now    int64
	// due is when each attacker sends next.
	due       [3][attackersEach]int64
	rule, who int // who is due first
	first     int64

	at   int64
	src  netip.Addr
	port int32
}

// gaps are the times between two packets of an attacker: 1.2 times 50 in 10 s,
// 100 in 5 s, 10 in 300 s.
func gaps() [3]int64 { return [3]int64{10_000_000_000 / 60, 5_000_000_000 / 120, 300_000_000_000 / 12} }

func flood(forged int) *hits {
	h := &hits{r: rand.New(rand.NewPCG(1, 2)), forged: forged, left: forged}
	for rule, gap := range gaps() {
		for i := range h.due[rule] {
			h.due[rule][i] = h.r.Int64N(gap)
			if rule == 2 {
				h.due[rule][i] -= 145e9
			}
		}
	}
	h.soonest()
	return h
}

// soonest finds the attacker who is due first.
func (h *hits) soonest() {
	h.first = 1 << 62
	for r := range h.due {
		for i, at := range h.due[r] {
			if at < h.first && (r == 2 && at < 155e9 || at < 10e9) {
				h.rule, h.who, h.first = r, i, at
			}
		}
	}
}

// next makes the next packet: of an attacker who is due, else of the flood.
func (h *hits) next() bool {
	h.sent++
	if h.first <= h.now || h.left == 0 && h.first < 1<<62 {
		h.at, h.src, h.port = t0+h.first, attackerAddr(h.rule, h.who), 22
		if h.rule < 2 {
			h.port = int32(1 + h.r.IntN(20))
		}
		h.due[h.rule][h.who] += gaps()[h.rule]
		h.soonest()
		return true
	}
	if h.left == 0 {
		return false
	}
	h.left--
	n := h.r.Uint32()
	h.at, h.port = t0+h.now, 80
	h.src = netip.AddrFrom4([4]byte{byte(n>>24)%80 + 100, byte(n >> 16), byte(n >> 8), byte(n)})
	h.now = 10e9 / int64(h.forged) * int64(h.forged-h.left)
	return true
}

// residentKilobytes is the process's memory, 0 where the system does not say.
func residentKilobytes() int {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	var kb int
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		return 0
	}
	return kb
}

func residentSet() string { return fmt.Sprintf("%d MB", residentKilobytes()/1000) }
