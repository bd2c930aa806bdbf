// Package filter makes a classic BPF program of what a rule set asks for, so
// that the kernel keeps away from a capture what no rule could need.
//
// It never hides a packet that some rule could need, and where it is in doubt
// it keeps one: frames that are neither IPv4 nor IPv6 right behind the
// Ethernet header (VLAN tags, MPLS, PPPoE, ARP), fragments, IPv6 extension
// headers, transports other than TCP, UDP and ICMP, headers that are cut
// short, interfaces that are not Ethernet-like. What rules read of HTTP, SSH
// and TLS may come at any port: then all of TCP is kept. DNS is looked for on
// its port alone.
package filter

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/bpf"

	"github.com/netcap-guard/netcap-guard/record"
)

// Needs is what a rule set asks of a capture.
type Needs struct {
	// Conditions of the rules that run, one for each rule and type.
	Conditions []record.Conditions
	// Streams: TCP connections are followed, also for other reasons than
	// records that come from them.
	Streams bool
	// Decap: tunnels are looked into, so that any UDP packet may hold another.
	Decap bool
}

// Program is a filter. The nil Program keeps everything.
type Program struct {
	body  []bpf.Instruction // for Ethernet frames
	lines []string
}

const (
	// keep is how many bytes of a packet are kept: all.
	keep = 0x40000
	// maxCode bounds a program; the kernel's limit is 4096 instructions.
	maxCode = 4000
	// maxValues bounds the list of one test; a longer one is left out.
	maxValues = 100
	// maxCases bounds the cases of one protocol; with more, all of it is kept.
	maxCases = 200
)

// protocol is what is kept of TCP or UDP.
type protocol struct {
	name  string
	least uint32 // bytes of its header
	field func(t record.Test) (operand, bool)
	all   bool
	cases []record.Case
}

// Compile makes the program; nil where it would keep everything.
func Compile(n Needs) *Program {
	tcp := &protocol{name: "TCP", least: 20, field: tcpField, all: n.Streams}
	udp := &protocol{name: "UDP", least: 8, field: udpField, all: n.Decap}
	var v4, v6, icmp bool
	for _, c := range n.Conditions {
		if len(c.Cases) == 0 {
			continue // never true
		}
		switch c.Type {
		case record.TypeTCP:
			tcp.add(c.Cases)
		case record.TypeUDP:
			udp.add(c.Cases)
		case record.TypeICMPv4, record.TypeICMPv6, record.TypeICMPv6NeighborSolicitation, record.TypeICMPv6NeighborAdvertisement:
			icmp = true
		case record.TypeIPv4:
			v4 = true
		case record.TypeIPv6:
			v6 = true
		case record.TypeARP:
			// Never hidden.
		case record.TypeSSH, record.TypeHTTP, record.TypeTLSClientHello, record.TypeTLSServerHello, record.TypeSMTP,
			record.TypeFTP, record.TypePOP3, record.TypeIMAP:
			tcp.all = true
		case record.TypeDNS:
			tcp.add(ofDNS())
			udp.add(ofDNS())
		case record.TypeDHCPv4, record.TypeNTP, record.TypeSIP:
			tcp.all, udp.all = true, true
		default: // Ethernet, connections, and what is not known here
			return nil
		}
	}
	if tcp.all && udp.all || v4 && v6 {
		return nil
	}
	p := &Program{body: ethernet(v4, v6, icmp, tcp, udp)}
	if len(p.body) > maxCode {
		return nil
	}
	yes := map[bool]string{true: "all", false: "none"}
	if v4 || v6 {
		p.lines = append(p.lines, map[bool]string{true: "IPv4: all", false: "IPv6: all"}[v4])
	}
	p.lines = append(p.lines, tcp.String(), udp.String(), "ICMP: "+yes[icmp], "fragments, VLANs, tunnels, everything else: all")
	return p
}

// ofDNS are the packets that may hold DNS, as package decode and package stream
// look for it.
func ofDNS() []record.Case {
	port := func(field string) record.Case {
		return record.Case{{Field: field, Op: record.OneOf, Values: []int64{53}}}
	}
	return []record.Case{port("SrcPort"), port("DstPort")}
}

// add asks for what one of the cases holds for.
func (p *protocol) add(cases []record.Case) {
	for _, c := range cases {
		// What the kernel cannot test is left out, the case never.
		known := slices.DeleteFunc(slices.Clone(c), func(t record.Test) bool {
			_, ok := p.field(t)
			return !ok
		})
		p.all = p.all || len(known) == 0 || len(p.cases) == maxCases
		if !p.all {
			p.cases = append(p.cases, known)
		}
	}
}

// String is what is kept of the protocol.
func (p *protocol) String() string {
	if p.all {
		return p.name + ": all"
	}
	if len(p.cases) == 0 {
		return p.name + ": none"
	}
	var cases []string
	for _, c := range p.cases {
		tests := make([]string, len(c))
		for i, t := range c {
			tests[i] = t.String()
		}
		if text := strings.Join(tests, " and "); !slices.Contains(cases, text) {
			cases = append(cases, text)
		}
	}
	return p.name + ": " + strings.Join(cases, "; or ")
}

// String is what the program keeps, a line each, and how long it is.
func (p *Program) String() string {
	if p == nil {
		return "everything (some rule may need any packet)"
	}
	return fmt.Sprintf("%s\n(%d instructions)", strings.Join(p.lines, "\n"), len(p.body)+prelude)
}

// Kinds of interfaces whose packets begin with an Ethernet header
// (linux/if_arp.h).
const (
	hardwareEther    = 1
	hardwareLoopback = 772

	prelude = 4
)

// Instructions is the program as a socket takes it; nil for the nil Program.
// It keeps packets of interfaces that are not Ethernet-like.
func (p *Program) Instructions() []bpf.RawInstruction {
	if p == nil {
		return nil
	}
	code := append([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLinkLayerType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: hardwareEther, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: hardwareLoopback, SkipTrue: 1},
		bpf.RetConstant{Val: keep},
	}, p.body...)
	raw, err := bpf.Assemble(code)
	if err != nil {
		return nil // the package's tests assemble every kind of instruction; without a filter nothing is hidden
	}
	return raw
}

// Keeps runs the program on an Ethernet frame, as the kernel would, and
// reports whether it is kept.
func (p *Program) Keeps(frame []byte) (bool, error) {
	if p == nil {
		return true, nil
	}
	vm, err := bpf.NewVM(p.body)
	if err != nil {
		return false, fmt.Errorf("load filter: %w", err)
	}
	n, err := vm.Run(frame)
	if err != nil {
		return false, fmt.Errorf("run filter: %w", err)
	}
	return n > 0, nil
}
