package decode

import "github.com/netcap-guard/netcap-guard/record"

// more is what a rule asks of a record beyond the fields that cost a load: a
// set of bits, one plan a record type.
type more uint32

const (
	moreSrc more = 1 << iota
	moreDst
	morePayload
	moreEntropy
	moreFlags
	moreName
	moreCommunity
	moreOptions
	morePrint
	moreQuestions
	moreQueryName
	moreAnswers
	moreAuthorities
	moreAdditionals
	moreEDNS
	moreMalformed
	moreHardware
	moreValues
)

// plan is a record.Want in the form the hot path reads.
type plan struct {
	tcp, udp, ip4, ip6, icmp4, icmp6, dns                             bool
	ether, arp, solicit, advert                                       bool
	etherMore, arpMore, solicitMore, advertMore                       more
	segment                                                           bool // some type comes out of TCP streams
	tcpMore, udpMore, ip4More, ip6More, icmp4More, icmp6More, dnsMore more
}

// costly lists the fields of each type that are filled only where a rule reads
// them. All others are always filled; a test holds the list to the structs.
var costly = map[record.Type]map[string]more{
	record.TypeTCP: {
		"SrcIP": moreSrc, "DstIP": moreDst, "Payload": morePayload, "PayloadEntropy": moreEntropy,
		"FlagsStr": moreFlags, "CommunityID": moreCommunity, "Options": moreOptions, "Padding": moreOptions,
		"MSS": moreValues, "WindowScale": moreValues, "HasSACK": moreValues, "TSval": moreValues,
		"TSecr": moreValues, "OptionsFingerprint": morePrint, "Ja4t": morePrint, "Ja4ts": morePrint,
	},
	record.TypeUDP: {"SrcIP": moreSrc, "DstIP": moreDst, "Payload": morePayload, "PayloadEntropy": moreEntropy},
	record.TypeIPv4: {
		"SrcIP": moreSrc, "DstIP": moreDst, "PayloadEntropy": moreEntropy, "FlagsStr": moreFlags,
		"ProtocolName": moreName, "Options": moreOptions, "Padding": moreOptions,
		"HasLooseSourceRoute": moreOptions, "HasStrictSourceRoute": moreOptions, "HasRecordRoute": moreOptions,
	},
	record.TypeIPv6: {"SrcIP": moreSrc, "DstIP": moreDst, "PayloadEntropy": moreEntropy,
		"NextHeaderName": moreName, "HopByHop": moreOptions},
	record.TypeICMPv4: {"SrcIP": moreSrc, "DstIP": moreDst, "Payload": morePayload,
		"PayloadEntropy": moreEntropy, "TypeName": moreName},
	record.TypeICMPv6: {"SrcIP": moreSrc, "DstIP": moreDst, "Payload": morePayload,
		"PayloadEntropy": moreEntropy, "TypeName": moreName},
	record.TypeDNS: {
		"SrcIP": moreSrc, "DstIP": moreDst, "CommunityID": moreCommunity, "ResponseCodeName": moreName,
		"Questions": moreQuestions, "QueryNameLength": moreQueryName, "SubdomainCount": moreQueryName,
		"QueryNameEntropy": moreQueryName, "QueryNameTLD": moreQueryName, "Answers": moreAnswers,
		"Authorities": moreAuthorities, "Additionals": moreAdditionals,
		"EDNSPayloadSize": moreEDNS, "HasEDNS": moreEDNS, "IsMalformed": moreMalformed,
	},
	record.TypeEthernet: {"SrcMAC": moreSrc, "DstMAC": moreDst, "PayloadEntropy": moreEntropy, "EthernetTypeName": moreName},
	record.TypeARP: {"SrcHwAddress": moreHardware, "DstHwAddress": moreHardware, "SrcProtocolAddress": moreSrc,
		"DstProtocolAddress": moreDst, "SrcIP": moreSrc, "DstIP": moreDst, "OperationName": moreName},
	record.TypeICMPv6NeighborSolicitation:  {"SrcIP": moreSrc, "DstIP": moreDst, "TargetAddress": moreName, "Options": moreOptions},
	record.TypeICMPv6NeighborAdvertisement: {"SrcIP": moreSrc, "DstIP": moreDst, "TargetAddress": moreName, "Options": moreOptions},
}

// compile makes the plan of a want.
func compile(w *record.Want) plan {
	fields := func(t record.Type) (bool, more) {
		var m more
		for name, bit := range costly[t] {
			if w.Field(t, name) {
				m |= bit
			}
		}
		return w.Types.Has(t), m
	}
	p := plan{segment: w.Handshakes || w.Types&record.StreamTypes() != 0}
	p.tcp, p.tcpMore = fields(record.TypeTCP)
	p.udp, p.udpMore = fields(record.TypeUDP)
	p.ip4, p.ip4More = fields(record.TypeIPv4)
	p.ip6, p.ip6More = fields(record.TypeIPv6)
	p.icmp4, p.icmp4More = fields(record.TypeICMPv4)
	p.icmp6, p.icmp6More = fields(record.TypeICMPv6)
	p.dns, p.dnsMore = fields(record.TypeDNS)
	p.ether, p.etherMore = fields(record.TypeEthernet)
	p.arp, p.arpMore = fields(record.TypeARP)
	p.solicit, p.solicitMore = fields(record.TypeICMPv6NeighborSolicitation)
	p.advert, p.advertMore = fields(record.TypeICMPv6NeighborAdvertisement)
	return p
}

// transports reports whether anything is asked for of what IP carries.
func (p *plan) transports() bool {
	return p.tcp || p.segment || p.udp || p.dns || p.icmp4 || p.icmp6 || p.solicit || p.advert
}

func (p *plan) needsAddrs() bool {
	all := p.tcpMore | p.udpMore | p.ip4More | p.ip6More | p.icmp4More | p.icmp6More | p.dnsMore | p.arpMore |
		p.solicitMore | p.advertMore
	return all&(moreSrc|moreDst|moreName) != 0
}
