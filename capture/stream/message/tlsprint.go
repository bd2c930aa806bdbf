package message

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/netcap-guard/netcap-guard/record"
)

// ja3 is the MD5 of version, ciphers, extensions, groups and point formats in
// decimal, without GREASE (github.com/salesforce/ja3).
func (p *Parser) ja3(r *record.TLSClientHello) string {
	return p.md5(func(b []byte) []byte {
		b = strconv.AppendInt(b, int64(r.Version), 10)
		for _, list := range [...][]int32{r.CipherSuites, r.Extensions, r.SupportedGroups, r.SupportedPoints} {
			b = decimals(append(b, ','), list)
		}
		return b
	})
}

// ja3s is the same of a server: version, cipher, extensions.
func (p *Parser) ja3s(r *record.TLSServerHello) string {
	return p.md5(func(b []byte) []byte {
		b = strconv.AppendInt(b, int64(r.Version), 10)
		b = strconv.AppendInt(append(b, ','), int64(r.CipherSuite), 10)
		b = append(b, ',')
		for i, n := range r.Extensions {
			if i > 0 {
				b = append(b, '-')
			}
			b = strconv.AppendInt(b, int64(n), 10)
		}
		return b
	})
}

// decimals appends the numbers that are not GREASE, joined by dashes.
func decimals(b []byte, list []int32) []byte {
	first := true
	for _, n := range list {
		if isGREASE(n) {
			continue
		}
		if !first {
			b = append(b, '-')
		}
		b, first = strconv.AppendInt(b, int64(n), 10), false
	}
	return b
}

// md5 is the MD5 of what add appends, in hexadecimal.
func (p *Parser) md5(add func([]byte) []byte) string {
	start := len(p.text)
	p.text = add(p.text)
	sum := md5.Sum(p.text[start:])
	p.text = p.text[:start]
	return p.put(func(b []byte) []byte { return hex.AppendEncode(b, sum[:]) })
}

// ja4 is the client's fingerprint by FoxIO's JA4 (github.com/FoxIO-LLC/ja4,
// technical_details/JA4.md), for TLS over TCP: t13d1516h2_8daaf6152771_e5627efa2ab1.
func (p *Parser) ja4(r *record.TLSClientHello) string {
	ciphers := p.sorted(r.CipherSuites)
	cipherHash := shortHash(p, func(b []byte) []byte { return hexList(b, ciphers) }, len(ciphers) == 0)
	ciphersN := len(ciphers)
	exts := p.sorted(r.Extensions)
	extsN := len(exts)
	exts = slices.DeleteFunc(exts, func(n uint16) bool { return n == extServerName || n == extALPN })
	extHash := shortHash(p, func(b []byte) []byte {
		b = hexList(b, exts)
		sep := byte('_')
		for _, n := range r.SignatureAlgs {
			if !isGREASE(n) {
				b = hex4(append(b, sep), uint16(n))
				sep = ','
			}
		}
		return b
	}, len(exts) == 0)
	return p.put(func(b []byte) []byte {
		b = append(append(b, 't'), ja4Version(r.HandshakeVersion)...)
		sni := byte('i')
		if slices.Contains(r.Extensions, extServerName) {
			sni = 'd'
		}
		b = twoDigits(append(b, sni), ciphersN)
		b = twoDigits(b, extsN)
		alpn := ""
		if len(r.ALPNs) > 0 {
			alpn = r.ALPNs[0]
		}
		b = append(append(ja4ALPN(b, alpn), '_'), cipherHash[:]...)
		return append(append(b, '_'), extHash[:]...)
	})
}

// sorted is the numbers that are not GREASE, in order.
func (p *Parser) sorted(list []int32) []uint16 {
	p.prints = p.prints[:0]
	for _, n := range list {
		if !isGREASE(n) {
			p.prints = append(p.prints, uint16(n))
		}
	}
	slices.Sort(p.prints)
	return p.prints
}

// shortHash is the first twelve digits of a SHA-256; of nothing, zeros.
func shortHash(p *Parser, add func([]byte) []byte, nothing bool) (out [12]byte) {
	if nothing {
		return [12]byte([]byte("000000000000"))
	}
	start := len(p.text)
	p.text = add(p.text)
	sum := sha256.Sum256(p.text[start:])
	p.text = p.text[:start]
	hex.Encode(out[:], sum[:6])
	return out
}

func hexList(b []byte, list []uint16) []byte {
	for i, n := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = hex4(b, n)
	}
	return b
}

func hex4(b []byte, n uint16) []byte {
	return hex.AppendEncode(b, []byte{byte(n >> 8), byte(n)})
}

func twoDigits(b []byte, n int) []byte {
	n = min(n, 99)
	return append(b, byte('0'+n/10), byte('0'+n%10))
}

func ja4Version(v int32) string {
	switch v {
	case 0x0304:
		return "13"
	case 0x0303:
		return "12"
	case 0x0302:
		return "11"
	case 0x0301:
		return "10"
	case 0x0300:
		return "s3"
	case 0x0002:
		return "s2"
	}
	return "00"
}

// ja4ALPN appends the first and the last character of the first protocol, or
// where one of them is no letter or digit, of its bytes in hexadecimal.
func ja4ALPN(b []byte, alpn string) []byte {
	if alpn == "" {
		return append(b, "00"...)
	}
	first, last := alpn[0], alpn[len(alpn)-1]
	if isAlnum(first) && isAlnum(last) {
		return append(b, first, last)
	}
	const digits = "0123456789abcdef"
	return append(b, digits[first>>4], digits[last&15])
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}
