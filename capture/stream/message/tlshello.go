package message

import "github.com/netcap-guard/netcap-guard/record"

// Numbers of TLS (RFC 8446, 4 and 5.1): content types and handshake messages.
const (
	TLSChangeCipher = 20
	TLSAlert        = 21
	TLSHandshake    = 22
	ClientHello     = 1
	ServerHello     = 2
	// MaxTLSRecord is the longest record (RFC 8446, 5.2).
	MaxTLSRecord = 1<<14 + 256
)

// Numbers of extensions (IANA).
const (
	extServerName    = 0
	extStatusRequest = 5
	extGroups        = 10
	extPoints        = 11
	extSignatures    = 13
	extALPN          = 16
	extSCT           = 18
	extMasterSecret  = 23
	extTicket        = 35
	extPreSharedKey  = 41
	extVersions      = 43
	extCookie        = 44
	extKeyShare      = 51
	extNPN           = 13172
	extRenegotiation = 0xff01
)

// maxListed bounds every list taken out of a hello.
const maxListed = 1024

// cursor reads a message field by field; after the first one that is cut short
// all are empty, and bad is set.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.b, c.bad = nil, true
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) byte() int {
	if b := c.take(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (c *cursor) word() int {
	if b := c.take(2); b != nil {
		return int(u16(b))
	}
	return 0
}

// bytes8 and bytes16 read what follows its own length in one or two bytes.
func (c *cursor) bytes8() []byte  { return c.take(c.byte()) }
func (c *cursor) bytes16() []byte { return c.take(c.word()) }

// isGREASE reports whether a number is one that clients throw in at random to
// keep servers tolerant (RFC 8701).
func isGREASE(n int32) bool { return n&0x0f0f == 0x0a0a && n>>8 == n&0xff }

// start empties what the lists of the record before stood in.
func (p *Parser) start() {
	p.text, p.numbers, p.names, p.blobs = p.text[:0], p.numbers[:0], p.names[:0], p.blobs[:0]
}

// words is a list of 16-bit numbers, bytes one of 8-bit numbers. The lists of
// one record share an array; each is cut to its own length.
func (p *Parser) words(b []byte) []int32 {
	from := len(p.numbers)
	for ; len(b) >= 2 && len(p.numbers)-from < maxListed; b = b[2:] {
		p.numbers = append(p.numbers, int32(u16(b)))
	}
	return p.numbers[from:len(p.numbers):len(p.numbers)]
}

func (p *Parser) octets(b []byte) []int32 {
	from := len(p.numbers)
	for _, c := range b[:min(len(b), maxListed)] {
		p.numbers = append(p.numbers, int32(c))
	}
	return p.numbers[from:len(p.numbers):len(p.numbers)]
}

// protocols is ALPN's list of names (RFC 7301).
func (p *Parser) protocols(b []byte) []string {
	from := len(p.names)
	list := cursor{b: b}
	list = cursor{b: list.bytes16()}
	for len(list.b) > 0 && len(p.names)-from < maxListed {
		if name := list.bytes8(); len(name) > 0 {
			p.names = append(p.names, str(name))
		}
	}
	return p.names[from:len(p.names):len(p.names)]
}

// ClientHello fills r from a client's hello, from its message type on. It
// reports false for one that cannot be read up to its extensions.
//
// Version is the one that the message names, HandshakeVersion the highest that
// the client offers in an extension, or the same.
func (p *Parser) ClientHello(msg []byte, h *record.Header, r *record.TLSClientHello) bool {
	*r = record.TLSClientHello{}
	p.start()
	c := cursor{b: msg}
	c.take(4)
	r.Version = int32(c.word())
	r.Random = c.take(32)
	r.SessionID = c.bytes8()
	ciphers := c.bytes16()
	compress := c.bytes8()
	if c.bad {
		return false
	}
	r.Timestamp = h.Time
	r.Type, r.HandshakeType = TLSHandshake, ClientHello
	r.HandshakeLen, r.MessageLen = uint32(len(msg)-4), int32(len(msg))
	r.HandshakeVersion = r.Version
	r.SessionIDLen, r.CipherSuiteLen = uint32(len(r.SessionID)), int32(len(ciphers))
	r.CipherSuites, r.CompressMethods = p.words(ciphers), p.octets(compress)
	addresses(h, p.want.chlo.addrs, &r.SrcIP, &r.DstIP, &r.SrcPort, &r.DstPort)
	offered := r.Version
	if len(c.b) > 0 {
		exts := c.bytes16()
		r.ExtensionLen = int32(len(exts))
		r.Extensions = p.extensionTypes(exts)
		offered = p.clientExtensions(exts, r)
	}
	r.ExtensionCount = int32(len(r.Extensions))
	for _, list := range [...][]int32{r.CipherSuites, r.Extensions, r.SupportedGroups} {
		for _, n := range list {
			r.HasGreaseExtensions = r.HasGreaseExtensions || isGREASE(n)
		}
	}
	r.HandshakeVersion = offered
	r.IsSuspiciousCipherOrder = weakFirst(r.CipherSuites)
	if p.want.chlo.community {
		r.CommunityID = h.CommunityID()
	}
	if p.want.chlo.ja3 {
		r.Ja3 = p.ja3(r)
	}
	if p.want.chlo.ja4 {
		r.Ja4 = p.ja4(r)
	}
	return true
}

// extensionTypes lists the extensions in their order.
func (p *Parser) extensionTypes(exts []byte) []int32 {
	from := len(p.numbers)
	for c := (cursor{b: exts}); len(c.b) > 0 && len(p.numbers)-from < maxListed; {
		kind := c.word()
		c.bytes16()
		if c.bad {
			break
		}
		p.numbers = append(p.numbers, int32(kind))
	}
	return p.numbers[from:len(p.numbers):len(p.numbers)]
}

// clientExtensions reads the extensions that have fields, and returns the
// highest version that is offered.
func (p *Parser) clientExtensions(exts []byte, r *record.TLSClientHello) int32 {
	offered := r.Version
	for c := (cursor{b: exts}); len(c.b) > 0; {
		kind := c.word()
		e := cursor{b: c.bytes16()}
		if c.bad {
			break
		}
		switch kind {
		case extServerName:
			names := cursor{b: e.bytes16()}
			if names.byte() == 0 && r.SNI == "" {
				r.SNI = str(names.bytes16())
			}
		case extStatusRequest:
			r.OSCP = true
		case extGroups:
			r.SupportedGroups = p.words(e.bytes16())
		case extPoints:
			r.SupportedPoints = p.octets(e.bytes8())
		case extSignatures:
			r.SignatureAlgs = p.words(e.bytes16())
		case extALPN:
			r.ALPNs = p.protocols(e.b)
		case extVersions:
			highest := int32(0)
			for list := e.bytes8(); len(list) >= 2; list = list[2:] {
				if v := int32(u16(list)); !isGREASE(v) {
					highest = max(highest, v)
				}
			}
			if highest != 0 {
				offered = highest
			}
		}
	}
	return offered
}

// weakFirst reports whether a client prefers a cipher that no current library
// prefers: NULL, export, RC4, DES or 3DES suites (IANA's numbers) come first.
func weakFirst(ciphers []int32) bool {
	for _, c := range ciphers {
		if isGREASE(c) {
			continue
		}
		return c <= 0x001b || c == 0xc007 || c == 0xc008 || c == 0xc011 || c == 0xc012
	}
	return false
}

// ServerHello fills r from a server's hello, from its message type on. again:
// it asks the client for another hello (RFC 8446, 4.1.4). It reports false for
// one that cannot be read up to its extensions.
func (p *Parser) ServerHello(msg []byte, h *record.Header, r *record.TLSServerHello) (again, ok bool) {
	*r = record.TLSServerHello{}
	p.start()
	c := cursor{b: msg}
	c.take(4)
	r.Version = int32(c.word())
	r.Random = c.take(32)
	r.SessionID = c.bytes8()
	r.CipherSuite = int32(c.word())
	r.CompressionMethod = int32(c.byte())
	if c.bad {
		return false, false
	}
	r.Timestamp = h.Time
	r.SupportedVersion = r.Version
	addresses(h, p.want.shlo.addrs, &r.SrcIP, &r.DstIP, &r.SrcPort, &r.DstPort)
	if len(c.b) > 0 {
		exts := c.bytes16()
		r.Extensions = p.extensionTypes(exts)
		p.serverExtensions(exts, r)
	}
	if p.want.shlo.community {
		r.CommunityID = h.CommunityID()
	}
	if p.want.shlo.ja3s {
		r.Ja3s = p.ja3s(r)
	}
	return string(r.Random) == retryRandom, true
}

// retryRandom is the random of a hello that asks for another one: the SHA-256
// of "HelloRetryRequest" (RFC 8446, 4.1.3).
const retryRandom = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91" +
	"\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"

func (p *Parser) serverExtensions(exts []byte, r *record.TLSServerHello) {
	for c := (cursor{b: exts}); len(c.b) > 0; {
		kind := c.word()
		e := cursor{b: c.bytes16()}
		if c.bad {
			return
		}
		switch kind {
		case extStatusRequest:
			r.OCSPStapling = true
		case extTicket:
			r.TicketSupported = true
		case extRenegotiation:
			r.SecureRenegotiationSupported, r.SecureRenegotiation = true, e.bytes8()
		case extALPN:
			if names := p.protocols(e.b); len(names) > 0 {
				r.AlpnProtocol = names[0]
			}
		case extNPN:
			r.NextProtoNeg = true
			from := len(p.names)
			for len(e.b) > 0 && len(p.names)-from < maxListed {
				p.names = append(p.names, str(e.bytes8()))
			}
			r.NextProtos = p.names[from:len(p.names):len(p.names)]
		case extMasterSecret:
			r.Ems = true
		case extSCT:
			from := len(p.blobs)
			for list := (cursor{b: e.bytes16()}); len(list.b) > 0 && len(p.blobs)-from < maxListed; {
				p.blobs = append(p.blobs, list.bytes16())
			}
			r.Scts = p.blobs[from:len(p.blobs):len(p.blobs)]
		case extVersions:
			r.SupportedVersion = int32(e.word())
		case extPreSharedKey:
			r.SelectedIdentityPresent, r.SelectedIdentity = true, int32(e.word())
		case extCookie:
			r.Cookie = e.bytes16()
		case extKeyShare:
			r.SelectedGroup = int32(e.word())
		}
	}
}
