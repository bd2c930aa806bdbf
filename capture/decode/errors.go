package decode

// Layer is where decoding failed.
type Layer uint8

// The layers.
const (
	LayerLink Layer = iota
	LayerIPv4
	LayerIPv6
	LayerTCP
	LayerUDP
	LayerICMPv4
	LayerICMPv6
	LayerDNS
	LayerARP
	LayerFragment
	LayerTunnel

	numLayers
)

var layerNames = [numLayers]string{"link", "ipv4", "ipv6", "tcp", "udp", "icmpv4", "icmpv6", "dns", "arp", "fragment", "tunnel"}

// String is the layer's name, in lower case.
func (l Layer) String() string {
	if l >= numLayers {
		return "unknown"
	}
	return layerNames[l]
}

// Error says which layer of a packet could not be decoded, and why. All of
// them are made beforehand: a flood of broken packets allocates nothing.
type Error struct {
	Layer Layer
	Why   string
}

func (e *Error) Error() string { return "decode " + e.Layer.String() + ": " + e.Why }

// Errors counts undecodable layers, one entry a Layer.
type Errors [numLayers]uint64

// Total is the sum over all layers.
func (e Errors) Total() uint64 {
	var sum uint64
	for _, n := range e {
		sum += n
	}
	return sum
}

// Of is the count of one layer.
func (e Errors) Of(l Layer) uint64 {
	if l >= numLayers {
		return 0
	}
	return e[l]
}

var (
	errLinkType    = &Error{LayerLink, "unsupported link type"}
	errLinkShort   = &Error{LayerLink, "the header is cut short"}
	errLinkLayers  = &Error{LayerLink, "too many encapsulations"}
	errLinkVersion = &Error{LayerLink, "neither IPv4 nor IPv6"}

	errIPv4Short   = &Error{LayerIPv4, "the header is cut short"}
	errIPv4Version = &Error{LayerIPv4, "the version is not 4"}
	errIPv4Length  = &Error{LayerIPv4, "a header length that cannot be"}
	errIPv4Option  = &Error{LayerIPv4, "an option longer than the header"}

	errIPv6Short   = &Error{LayerIPv6, "the header is cut short"}
	errIPv6Version = &Error{LayerIPv6, "the version is not 6"}
	errIPv6Ext     = &Error{LayerIPv6, "an extension header is cut short"}
	errIPv6Exts    = &Error{LayerIPv6, "too many extension headers"}

	errTCPShort  = &Error{LayerTCP, "the header is cut short"}
	errTCPOffset = &Error{LayerTCP, "a data offset that cannot be"}
	errTCPOption = &Error{LayerTCP, "an option longer than the header"}

	errUDPShort  = &Error{LayerUDP, "the header is cut short"}
	errUDPLength = &Error{LayerUDP, "a length below that of the header"}

	errICMPv4Short = &Error{LayerICMPv4, "the header is cut short"}
	errICMPv6Short = &Error{LayerICMPv6, "the header is cut short"}

	errNeighborShort  = &Error{LayerICMPv6, "a neighbour message is cut short"}
	errNeighborOption = &Error{LayerICMPv6, "an option of neighbour discovery that cannot be"}

	errARPShort      = &Error{LayerARP, "cut short"}
	errFragment      = &Error{LayerFragment, "fragments that overlap or cannot be"}
	errTunnelShort   = &Error{LayerTunnel, "the header is cut short"}
	errTunnelNesting = &Error{LayerTunnel, "too many packets inside each other"}

	errDNSShort   = &Error{LayerDNS, "the header is cut short"}
	errDNSName    = &Error{LayerDNS, "a name that cannot be"}
	errDNSRecord  = &Error{LayerDNS, "a record is cut short"}
	errDNSRecords = &Error{LayerDNS, "too many records"}
	errDNSBomb    = &Error{LayerDNS, "names of more text than a message can have"}
	errDNSLong    = &Error{LayerDNS, "a name longer than 255 bytes"}
)
