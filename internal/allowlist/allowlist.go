// Package allowlist reads what an administrator wants never to be blocked: the
// files of whitelist.d, and the addresses that DNS names in them stand for,
// resolved again and again in the background. It yields prefixes and knows
// nothing of who obeys them.
package allowlist

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// maxName is the longest DNS name, without a final dot, and maxLabel its
// longest part (RFC 1035, 2.3.4).
const (
	maxName  = 253
	maxLabel = 63
)

// Parse reads one entry: an address or a CIDR, which gives a canonical prefix
// (host bits masked, IPv4-mapped IPv6 as IPv4), or a DNS name, which is
// returned in lower case, otherwise as written. Exactly one of the two results
// is set where the error is nil. A zone, and a prefix of length 0, which would
// switch all blocking off, are errors.
func Parse(entry string) (netip.Prefix, string, error) {
	if strings.Contains(entry, "/") {
		p, err := netip.ParsePrefix(entry)
		if err != nil {
			return netip.Prefix{}, "", fmt.Errorf("%s is not a CIDR", quote(entry))
		}
		p, err = canonical(p)
		return p, "", err
	}
	if a, err := netip.ParseAddr(entry); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, "", fmt.Errorf("%s: a zone has no meaning here", quote(entry))
		}
		return host(a), "", nil
	}
	if err := checkName(entry); err != nil {
		return netip.Prefix{}, "", fmt.Errorf("%s is neither an address, a CIDR nor a DNS name: %w", quote(entry), err)
	}
	return netip.Prefix{}, strings.ToLower(entry), nil
}

func host(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen())
}

func canonical(p netip.Prefix) (netip.Prefix, error) {
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%v: an IPv4-mapped prefix is 96 to 128 bits long", p)
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	if p.Bits() == 0 {
		return netip.Prefix{}, fmt.Errorf("%v would whitelist every address: nothing would be blocked", p)
	}
	return p.Masked(), nil
}

// checkName says what keeps a text from being the name of a host: letters,
// digits, hyphens and underscores in labels, of which the last is no number
// (RFC 1123, 2.1), so that a mistyped address is not taken for a name.
func checkName(name string) error {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxName {
		return fmt.Errorf("a name has 1 to %d characters", maxName)
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return fmt.Errorf("each part of a name has 1 to %d characters", maxLabel)
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("no part of a name begins or ends with a hyphen")
		}
		for _, c := range []byte(label) {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			case c >= 0x80:
				return errors.New("write the xn-- form of an international name")
			default:
				return fmt.Errorf("%q has no place in a name", c)
			}
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return errors.New("the last part of a name is not a number")
	}
	return nil
}

// quote shows the beginning of a text of anybody's making.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
