package yardstick

import (
	"fmt"
	"strings"
)

// Rules returns a rule file of n rules as an administrator's collection would
// hold them: services by port, scans by flags, names, networks, sizes and
// patterns in requests. The first five are the specification page's on TCP and
// DNS. The same n gives the same text; a longer file begins with a shorter
// one's rules. On this package's traffic few of the others match.
func Rules(n int) string {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range n {
		kind, expression, threshold := generatedRule(i)
		fmt.Fprintf(&b, "  - name: rule %d\n    type: %s\n    expression: |\n      %s\n    threshold: %d\n    threshold_window: 60\n", i, kind, expression, threshold)
		b.WriteString("    actions: [{type: iptables_block, config: {duration: 1h}}]\n")
	}
	return b.String()
}

// generatedRule is the i-th rule.
func generatedRule(i int) (kind, expression string, threshold int) {
	const bare = "SYN && !ACK && PayloadSize == 0"
	switch i {
	case 0:
		return "TCP", bare, 5000
	case 1:
		return "TCP", bare, 10000
	case 2:
		return "TCP", "DstPort == 22 && SYN && !ACK", 1000
	case 3:
		return "TCP", "DstPort in [23, 2323] && SYN && !ACK", 50
	case 4:
		return "DNS", "!QR && len(Questions) > 0 && len(Questions[0].Name) > 100", 1000
	}
	port := 1024 + i*61%60000
	switch i % 20 {
	case 0, 1, 2, 3, 4, 5:
		return "TCP", fmt.Sprintf("DstPort == %d && SYN && !ACK", port), 20
	case 6, 7:
		return "TCP", fmt.Sprintf("DstPort in [%d, %d, %d] && SYN && !ACK && Window < %d", port, port+1, port+7, 600+i), 20
	case 8:
		return "TCP", fmt.Sprintf("PortInRange(DstPort, %d, %d) && SYN && !ACK", port, port+5), 30
	case 9:
		return "TCP", fmt.Sprintf("DstPort == %d && FIN && !ACK && !SYN && !RST", port), 10
	case 10:
		return "TCP", fmt.Sprintf(`InSubnet(SrcIP, "198.18.%d.0/24", "2001:db8:%x::/48") && SYN && !ACK`, i%256, i), 5
	case 11, 12:
		return "UDP", fmt.Sprintf("DstPort == %d && PayloadSize > %d", port, 100+i%900), 50
	case 13:
		return "UDP", fmt.Sprintf("SrcPort in [%d, %d] && Length > 400", port, port+2), 100
	case 14, 15:
		return "DNS", fmt.Sprintf("!QR && len(Questions) > 0 && Questions[0].Name == %q", word(i)+".example"), 3
	case 16:
		return "DNS", fmt.Sprintf(`!QR && len(Questions) > 0 && MatchesPattern(Questions[0].Name, "(?i)^[a-z0-9]+[.]%s[.](com|net)$")`, word(i)), 3
	case 17, 18:
		return "TCP", fmt.Sprintf(`DstPort == 80 && PayloadSize > 0 && MatchesPattern(Payload, "(?i)/%s[0-9]*[.](php|cgi|asp)")`, word(i)), 3
	}
	return "ICMPv4", fmt.Sprintf("IsEchoRequest && PayloadSize == %d", 200+i), 10
}

// word is a name of eight letters, another for each i.
func word(i int) string {
	const consonants, vowels = "bcdfghjklmnprstvz", "aeiou"
	b := make([]byte, 0, 8)
	for n := uint32(i)*2654435761 + 12345; len(b) < 8; n = n*1664525 + 1013904223 {
		b = append(b, consonants[n>>8%17], vowels[n>>20%5])
	}
	return string(b)
}
