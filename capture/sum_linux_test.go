package capture_test

import (
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture"
)

// TestLiveChecksums: what this host's own stack sends to itself has no
// checksum yet; of what comes from elsewhere nobody has looked at it.
func TestLiveChecksums(t *testing.T) {
	left, right := pair(t)
	src := openLive(t, capture.LiveConfig{Interface: right, Promiscuous: true})
	send(t, "10.99.0.2:9", "of the stack")
	if p, _ := await(t, src, "of the stack"); p.Sum != capture.SumMissing {
		t.Errorf("of the stack: %d", p.Sum)
	}
	mac, err := net.InterfaceByName(right)
	if err != nil {
		t.Fatal(err)
	}
	network := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{10, 99, 0, 1}, DstIP: net.IP{10, 99, 0, 2}}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true},
		&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: mac.HardwareAddr, EthernetType: layers.EthernetTypeIPv4},
		network, &layers.UDP{SrcPort: 1, DstPort: 9, Checksum: 7}, gopacket.Payload("by hand")); err != nil {
		t.Fatal(err)
	}
	blast(t, left, buf.Bytes())
	if p, _ := await(t, src, "by hand"); p.Sum != capture.SumUnchecked {
		t.Errorf("by hand: %d", p.Sum)
	}
}
