package record

// entry is what the package knows of one record type.
type entry struct {
	name      string
	served    bool
	blockable bool
	fresh     func() any
	of        func(*Set) any
	// addresses points at the record's own address fields; nil where it has
	// none that a Header fills.
	addresses func(rec any) (src, dst *string)
}

// entries is read-only.
var entries = [NumTypes]entry{
	NoType: {name: "none", fresh: func() any { return nil }, of: func(*Set) any { return nil }},
	TypeTCP: {"TCP", true, true, fresh[TCP], func(s *Set) any { return &s.TCP },
		func(r any) (*string, *string) { v := r.(*TCP); return &v.SrcIP, &v.DstIP }},
	TypeUDP: {"UDP", true, true, fresh[UDP], func(s *Set) any { return &s.UDP },
		func(r any) (*string, *string) { v := r.(*UDP); return &v.SrcIP, &v.DstIP }},
	TypeIPv4: {"IPv4", true, true, fresh[IPv4], func(s *Set) any { return &s.IPv4 },
		func(r any) (*string, *string) { v := r.(*IPv4); return &v.SrcIP, &v.DstIP }},
	TypeIPv6: {"IPv6", true, true, fresh[IPv6], func(s *Set) any { return &s.IPv6 },
		func(r any) (*string, *string) { v := r.(*IPv6); return &v.SrcIP, &v.DstIP }},
	TypeICMPv4: {"ICMPv4", true, true, fresh[ICMPv4], func(s *Set) any { return &s.ICMPv4 },
		func(r any) (*string, *string) { v := r.(*ICMPv4); return &v.SrcIP, &v.DstIP }},
	TypeICMPv6: {"ICMPv6", true, true, fresh[ICMPv6], func(s *Set) any { return &s.ICMPv6 },
		func(r any) (*string, *string) { v := r.(*ICMPv6); return &v.SrcIP, &v.DstIP }},
	TypeICMPv6NeighborSolicitation: {"ICMPv6NeighborSolicitation", true, true,
		fresh[ICMPv6NeighborSolicitation], func(s *Set) any { return &s.NeighborSolicitation },
		func(r any) (*string, *string) { v := r.(*ICMPv6NeighborSolicitation); return &v.SrcIP, &v.DstIP }},
	TypeICMPv6NeighborAdvertisement: {"ICMPv6NeighborAdvertisement", true, true,
		fresh[ICMPv6NeighborAdvertisement], func(s *Set) any { return &s.NeighborAdvertisement },
		func(r any) (*string, *string) { v := r.(*ICMPv6NeighborAdvertisement); return &v.SrcIP, &v.DstIP }},
	TypeARP:      {"ARP", true, false, fresh[ARP], func(s *Set) any { return &s.ARP }, nil},
	TypeEthernet: {"Ethernet", true, false, fresh[Ethernet], func(s *Set) any { return &s.Ethernet }, nil},
	TypeDNS: {"DNS", true, true, fresh[DNS], func(s *Set) any { return &s.DNS },
		func(r any) (*string, *string) { v := r.(*DNS); return &v.SrcIP, &v.DstIP }},
	TypeHTTP: {"HTTP", true, true, fresh[HTTP], func(s *Set) any { return &s.HTTP },
		func(r any) (*string, *string) { v := r.(*HTTP); return &v.SrcIP, &v.DstIP }},
	TypeSSH: {"SSH", true, true, fresh[SSH], func(s *Set) any { return &s.SSH },
		func(r any) (*string, *string) { v := r.(*SSH); return &v.SrcIP, &v.DstIP }},
	TypeTLSClientHello: {"TLSClientHello", true, true, fresh[TLSClientHello],
		func(s *Set) any { return &s.ClientHello },
		func(r any) (*string, *string) { v := r.(*TLSClientHello); return &v.SrcIP, &v.DstIP }},
	TypeTLSServerHello: {"TLSServerHello", true, true, fresh[TLSServerHello],
		func(s *Set) any { return &s.ServerHello },
		func(r any) (*string, *string) { v := r.(*TLSServerHello); return &v.SrcIP, &v.DstIP }},
	TypeDHCPv4: {"DHCPv4", false, true, fresh[DHCPv4], func(s *Set) any { return &s.DHCPv4 },
		func(r any) (*string, *string) { v := r.(*DHCPv4); return &v.SrcIP, &v.DstIP }},
	TypeNTP: {"NTP", false, true, fresh[NTP], func(s *Set) any { return &s.NTP },
		func(r any) (*string, *string) { v := r.(*NTP); return &v.SrcIP, &v.DstIP }},
	TypeSIP: {"SIP", false, true, fresh[SIP], func(s *Set) any { return &s.SIP },
		func(r any) (*string, *string) { v := r.(*SIP); return &v.SrcIP, &v.DstIP }},
	TypeSMTP: {"SMTP", false, true, fresh[SMTP], func(s *Set) any { return &s.SMTP },
		func(r any) (*string, *string) { v := r.(*SMTP); return &v.SrcIP, &v.DstIP }},
	TypeFTP: {"FTP", false, true, fresh[FTP], func(s *Set) any { return &s.FTP },
		func(r any) (*string, *string) { v := r.(*FTP); return &v.SrcIP, &v.DstIP }},
	TypePOP3: {"POP3", false, true, fresh[POP3], func(s *Set) any { return &s.POP3 },
		func(r any) (*string, *string) { v := r.(*POP3); return &v.ClientIP, &v.ServerIP }},
	TypeIMAP: {"IMAP", false, true, fresh[IMAP], func(s *Set) any { return &s.IMAP },
		func(r any) (*string, *string) { v := r.(*IMAP); return &v.SrcIP, &v.DstIP }},
	TypeConnection: {"Connection", false, true, fresh[Connection], func(s *Set) any { return &s.Connection },
		func(r any) (*string, *string) { v := r.(*Connection); return &v.SrcIP, &v.DstIP }},
}

func fresh[T any]() any { return new(T) }

// of looks t up; a number outside the list is NoType.
func of(t Type) *entry {
	if t >= NumTypes {
		t = NoType
	}
	return &entries[t]
}

// Types lists every record type that a rule can name, in their order. The
// slice is the caller's.
func Types() []Type {
	list := make([]Type, 0, NumTypes-1)
	for t := NoType + 1; t < NumTypes; t++ {
		list = append(list, t)
	}
	return list
}

// String is the type's name as rules spell it.
func (t Type) String() string { return of(t).name }

// New returns a pointer to a zero record of the type, nil for NoType.
func (t Type) New() any { return of(t).fresh() }

// Served reports whether some decoder of this release emits the type. Rules
// on the others are checked all the same, and said not to be served yet.
func (t Type) Served() bool { return of(t).served }

// Blockable reports whether a record of the type carries an IP address that
// an action can target.
func (t Type) Blockable() bool { return of(t).blockable }

// Record returns a pointer to the set's own record of the type, without
// allocating. It is overwritten with the next packet; whether this packet
// filled it is what Have says.
func (s *Set) Record(t Type) any { return of(t).of(s) }
