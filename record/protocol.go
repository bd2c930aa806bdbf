package record

import "strconv"

// protocolNames holds IANA's keywords of the protocols that are met in
// practice; it is read-only.
var protocolNames = [256]string{
	0: "HOPOPT", 1: "ICMP", 2: "IGMP", 4: "IPv4", 6: "TCP", 8: "EGP", 9: "IGP", 17: "UDP", 33: "DCCP",
	41: "IPv6", 43: "IPv6-Route", 44: "IPv6-Frag", 46: "RSVP", 47: "GRE", 50: "ESP", 51: "AH",
	58: "IPv6-ICMP", 59: "IPv6-NoNxt", 60: "IPv6-Opts", 88: "EIGRP", 89: "OSPFIGP", 94: "IPIP",
	97: "ETHERIP", 103: "PIM", 108: "IPComp", 112: "VRRP", 115: "L2TP", 132: "SCTP", 135: "Mobility Header",
	136: "UDPLite", 137: "MPLS-in-IP", 139: "HIP", 140: "Shim6", 143: "Ethernet",
}

// ProtocolName is IANA's keyword of an IP protocol number (TCP, UDP, ICMP,
// IPv6-ICMP ...), or the number where it is rare or out of range.
func ProtocolName(proto int32) string {
	if proto >= 0 && proto < int32(len(protocolNames)) && protocolNames[proto] != "" {
		return protocolNames[proto]
	}
	return strconv.Itoa(int(proto))
}
