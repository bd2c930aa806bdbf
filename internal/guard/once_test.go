package guard

import (
	"testing"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/internal/links"
)

func TestTagOf(t *testing.T) {
	macs, cooked := string(make([]byte, 12)), string(make([]byte, 14))
	for _, tt := range []struct {
		name string
		link capture.LinkType
		data string
		want links.Tag
	}{
		{"Ethernet", capture.LinkEthernet, macs + "\x81\x00\x60\x05\x08\x00", links.Tag{Protocol: 0x8100, ID: 5}},
		{"outermost of two", capture.LinkEthernet, macs + "\x88\xa8\x0f\xff\x81\x00\x00\x05\x08\x00", links.Tag{Protocol: 0x88a8, ID: 4095}},
		{"cooked", capture.LinkLinuxSLL, cooked + "\x81\x00\x60\x05\x08\x00", links.Tag{Protocol: 0x8100, ID: 5}},
		{"untagged", capture.LinkEthernet, macs + "\x08\x00\x45\x00", links.Tag{}},
		{"cut", capture.LinkEthernet, macs + "\x81\x00\x60", links.Tag{}},
		{"nothing", capture.LinkLinuxSLL, "", links.Tag{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tagOf(&capture.Packet{Link: tt.link, Data: []byte(tt.data)}); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// closing is a source that remembers being closed.
type closing struct {
	capture.Source
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

func TestAnInterfaceIsCapturedOnce(t *testing.T) {
	all := []links.Link{{Index: 2, Names: []string{"eth0", "uplink"}}, {Index: 3, Names: []string{"eth1"}}}
	for _, tt := range []struct {
		name  string
		asked []string
		open  []bool
	}{
		{"different", []string{"eth0", "eth1"}, []bool{true, true}},
		{"the same", []string{"eth0", "eth1", "eth0"}, []bool{true, true, false}},
		{"another name", []string{"eth0", "uplink"}, []bool{true, false}},
		{"any holds all", []string{"eth0", "any", "eth1"}, []bool{false, true, false}},
		{"any twice", []string{"any", "any"}, []bool{false, true}},
		{"gone already", []string{"eth8", "eth9", "eth8"}, []bool{true, true, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &runner{cfg: Config{Interfaces: tt.asked}}
			for range tt.asked {
				r.sources = append(r.sources, &closing{})
			}
			r.captured(all)
			for i, s := range r.sources {
				if c, ok := s.(*closing); !ok || c.closed == tt.open[i] {
					t.Errorf("%s (number %d): closed %v", tt.asked[i], i, ok && c.closed)
				}
			}
		})
	}
}
