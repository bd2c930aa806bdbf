package filter

import (
	"golang.org/x/net/bpf"

	"github.com/netcap-guard/netcap-guard/record"
)

// Where things are in an Ethernet frame.
const (
	etherType   = 12
	network     = 14
	v4Fragment  = network + 6
	v4Protocol  = network + 9
	v6Next      = network + 6
	v6Header    = 40
	anyFragment = 0x3fff // more fragments follow, or an offset
)

// ethernet is the program for Ethernet frames. X holds the length of the IP
// header from network on.
func ethernet(allV4, allV6, icmp bool, tcp, udp *protocol) []bpf.Instruction {
	kept := bpf.RetConstant{Val: keep}
	v6 := []bpf.Instruction{kept}
	if !allV6 {
		v6 = append(version(6), bpf.LoadConstant{Dst: bpf.RegX, Val: v6Header}, bpf.LoadAbsolute{Off: v6Next, Size: 1})
	}
	v4 := []bpf.Instruction{kept}
	if !allV4 {
		v4 = append(version(4), bpf.LoadAbsolute{Off: v4Fragment, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: anyFragment, SkipFalse: 1}, kept,
			bpf.LoadMemShift{Off: network}, bpf.LoadAbsolute{Off: v4Protocol, Size: 1},
			bpf.Jump{Skip: uint32(2 + len(v6))})
	}
	code := []bpf.Instruction{
		bpf.LoadAbsolute{Off: etherType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x0800, SkipFalse: uint8(len(v4))},
	}
	code = append(code, v4...)
	code = append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x86dd, SkipTrue: 1}, kept)
	code = append(code, v6...)
	return append(code, transport(icmp, tcp, udp)...)
}

// version keeps what is not of the IP version that the frame says it is.
func version(v uint32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: network, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: v << 4, SkipTrue: 1},
		bpf.RetConstant{Val: keep},
	}
}

// transport decides by the protocol in A.
func transport(icmp bool, tcp, udp *protocol) []bpf.Instruction {
	ofICMP := bpf.RetConstant{}
	if icmp {
		ofICMP.Val = keep
	}
	ofTCP := tcp.code()
	code := []bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipFalse: 1},
		bpf.Jump{Skip: 6},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 17, SkipFalse: 1},
		bpf.Jump{Skip: uint32(4 + len(ofTCP))},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 1, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 58, SkipTrue: 1},
		bpf.RetConstant{Val: keep},
		ofICMP,
	}
	return append(append(code, ofTCP...), udp.code()...)
}

// code decides on a packet of the protocol, whose header is whole unless the
// packet is kept for that.
func (p *protocol) code() []bpf.Instruction {
	if p.all {
		return []bpf.Instruction{bpf.RetConstant{Val: keep}}
	}
	code := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.ALUOpX{Op: bpf.ALUOpSub},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: network + p.least, SkipTrue: 1},
		bpf.RetConstant{Val: keep},
	}
	for _, c := range p.cases {
		rest := []bpf.Instruction{bpf.RetConstant{Val: keep}}
		for i := len(c) - 1; i >= 0; i-- {
			if o, ok := p.field(c[i]); ok {
				rest = append(o.code(c[i], uint32(len(rest))), rest...)
			}
		}
		code = append(code, rest...)
	}
	return append(code, bpf.RetConstant{})
}

// operand is where the transport header has a field.
type operand struct {
	offset uint32
	mask   uint32
}

const wholePort = 0xffff

func tcpField(t record.Test) (operand, bool) {
	switch t.Field {
	case "SrcPort":
		return operand{0, wholePort}.of(t)
	case "DstPort":
		return operand{2, wholePort}.of(t)
	case record.FieldFlags:
		return operand{12, 0x1ff}.of(t) // beside the header's length
	case "Window":
		return operand{14, wholePort}.of(t)
	}
	return operand{}, false
}

func udpField(t record.Test) (operand, bool) {
	switch t.Field {
	case "SrcPort":
		return operand{0, wholePort}.of(t)
	case "DstPort":
		return operand{2, wholePort}.of(t)
	case "Length":
		return operand{4, wholePort}.of(t)
	}
	return operand{}, false
}

// of reports whether the test can be put to the operand. Fields have 16 bits:
// a number outside of that is none that a short list need bother about.
func (o operand) of(t record.Test) (operand, bool) {
	for _, v := range t.Values {
		if v < 0 || v > 0xffff {
			return o, false
		}
	}
	if t.Mask != 0 {
		o.mask &= uint32(t.Mask)
	}
	switch t.Op {
	case record.OneOf, record.NoneOf:
		return o, len(t.Values) <= maxValues
	case record.Between, record.NotBetween:
		return o, len(t.Values) == 2
	case record.Within, record.NotWithin, record.ContainsAny:
	}
	return o, false
}

// code falls through where the test holds, else skips so many instructions
// more.
func (o operand) code(t record.Test, more uint32) []bpf.Instruction {
	code := []bpf.Instruction{
		bpf.LoadIndirect{Off: network + o.offset, Size: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: o.mask},
	}
	fail := bpf.Jump{Skip: more}
	switch t.Op {
	case record.OneOf, record.NoneOf:
		for i, v := range t.Values {
			code = append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(v), SkipTrue: uint8(len(t.Values) - i)})
		}
		if t.Op == record.NoneOf {
			code = append(code, bpf.Jump{Skip: 1})
		}
	case record.Between:
		code = append(code, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: uint32(t.Values[0]), SkipFalse: 1},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(t.Values[1]), SkipFalse: 1})
	case record.NotBetween:
		code = append(code, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: uint32(t.Values[0]), SkipFalse: 2},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(t.Values[1]), SkipTrue: 1})
	case record.Within, record.NotWithin, record.ContainsAny: // refused by of
	}
	return append(code, fail)
}
