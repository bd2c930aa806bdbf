package guard

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// human is the event as a line for people, with its end of line.
func (ev *event) human() string {
	var text string
	switch {
	case ev.Alert != nil:
		text = fmt.Sprintf("ALERT  %-8s %s: %s (%s)", ev.Alert.Severity, ev.Alert.Signature, ev.flow(), ev.Alert.counted())
		if ev.Alert.Via != "" {
			text += " through proxy " + ev.Alert.Via
		}
	case ev.Action != nil:
		text = ev.Action.human()
	case ev.Log != nil:
		text = fmt.Sprintf("LOG    %s%s (rule %s)", ev.Log.Prefix, ev.flow(), ev.Log.Rule)
		if ev.Log.Kernel {
			text += " [kernel]"
		}
		if ev.Log.Error != "" {
			text += ": " + ev.Log.Error
		}
	case ev.Block != nil:
		text = fmt.Sprintf("%-6s %s (%s, %s, rule %s)", strings.ToUpper(ev.EventType), ev.Block.Prefix, ev.Block.Action, ev.Block.Target, ev.Block.Rule)
		if ev.By != "" {
			text += " by " + ev.By
		}
	case ev.Resync != nil:
		text = fmt.Sprintf("RESYNC %d blocks put back: %s", ev.Resync.Restored, ev.Resync.Reason)
	case ev.Start != nil:
		text = fmt.Sprintf("START  netcap-guard %s, backend %s, %d rules", ev.Start.Version, ev.Start.Backend, ev.Start.Rules)
	case ev.Stats != nil:
		return ev.Stats.human()
	}
	return ev.clock() + " " + printable(text) + "\n"
}

// again reports whether the event only says that a block is in force already:
// an attacker who goes on would fill the screen with it.
func (ev *event) again() bool {
	return ev.Action != nil && (ev.Action.Result == "duplicate" || ev.Action.Result == "extended")
}

// clock is the event's time stamp as people read it, in UTC like the JSON.
func (ev *event) clock() string {
	if len(ev.Timestamp) < len("2006-01-02T15:04:05.000") {
		return ev.Timestamp
	}
	return strings.Replace(ev.Timestamp[:len("2006-01-02T15:04:05.000")], "T", " ", 1) + "Z"
}

// flow is "TCP 192.0.2.1:4444 -> 198.51.100.1:22".
func (ev *event) flow() string {
	side := func(ip string, port uint16) string {
		if port == 0 {
			return ip
		}
		return net.JoinHostPort(ip, strconv.Itoa(int(port)))
	}
	s := side(ev.SrcIP, ev.SrcPort) + " -> " + side(ev.DestIP, ev.DestPort)
	if ev.Proto != "" {
		s = ev.Proto + " " + s
	}
	if ev.Packet != 0 {
		s += ", packet " + strconv.FormatUint(ev.Packet, 10)
	}
	return s
}

func (a *alertBody) counted() string {
	if a.Threshold <= 1 {
		return "every match"
	}
	return fmt.Sprintf("%d in %gs", a.Count, a.ThresholdWindow)
}

func (a *actionBody) human() string {
	verb := map[string]string{"iptables_block": "BLOCK", "iptables_reject": "REJECT", "iptables_rate_limit": "LIMIT"}[a.Type]
	life := a.Duration
	if life == "0s" {
		life = "permanent"
	}
	if a.Limit != "" {
		life += " " + a.Limit
	}
	text := fmt.Sprintf("%-6s %-8s %s %s %s (rule %s)", verb, a.Result, a.Target, a.IP, life, a.Rule)
	if a.DryRun {
		text += " [dry run]"
	}
	if a.Error != "" {
		text += ": " + a.Error
	}
	if a.Evidence != "" {
		text += ", evidence " + a.Evidence
	}
	return text
}

// human is the summary at the end of a run.
func (s *statsBody) human() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d packets, %d bytes, %d decode errors; received %d, dropped %d, ring full %d times\n",
		s.Packets, s.Bytes, s.DecodeErrors, s.Capture.Received, s.Capture.Dropped, s.Capture.RingFull)
	for _, name := range slices.Sorted(maps.Keys(s.Rules)) {
		if r := s.Rules[name]; r.Matches > 0 || r.Errors > 0 {
			fmt.Fprintf(&b, "  %-32s %d matches, %d alerts", printable(name), r.Matches, r.Alerts)
			if r.Errors > 0 {
				fmt.Fprintf(&b, ", %d evaluation errors", r.Errors)
			}
			b.WriteByte('\n')
		}
	}
	fmt.Fprintf(&b, "firewall: %s\nactions: %s\n", counted(s.Firewall), counted(s.Actions))
	for _, action := range slices.Sorted(maps.Keys(s.Drops)) {
		if d := s.Drops[action]; d != (familyDrops{}) {
			fmt.Fprintf(&b, "stopped by %s: %d packets of IPv4, %d of IPv6\n", action, d.IPv4, d.IPv6)
		}
	}
	if k := s.KernelLog; k != (kernelLogStats{}) {
		fmt.Fprintf(&b, "kernel log: %d packets, %d without an event, %d lost, group unavailable %d times\n", k.Packets, k.Suppressed, k.Lost, k.Unavailable)
	}
	if v := s.Escalation; v != (escalationStats{}) {
		fmt.Fprintf(&b, "escalation: %d addresses remembered, %d gave way, %d writes failed\n", v.Remembered, v.Evicted, v.Failed)
	}
	if t := s.Streams; t != (streamStats{}) {
		fmt.Fprintf(&b, "streams: %d open, %d handshakes, %d records, %d evicted, %d gaps, %d segments dropped\n",
			t.Open, t.Confirmed, t.Records, t.Evicted, t.Gaps, t.Dropped)
	}
	if v := s.Evidence; v != (evidenceStats{}) {
		fmt.Fprintf(&b, "evidence: %d files written, %d gave way, %d lost, %d failed\n", v.Written, v.Evicted, v.Lost, v.Failed)
	}
	if c := s.Connections; c != (connectionStats{}) {
		fmt.Fprintf(&b, "connections ended: %d, failed attempts %d, blocks without room %d\n", c.Ended, c.Failed, c.Lost)
	}
	return b.String()
}

func counted(m map[string]uint64) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(out, ", ")
}
