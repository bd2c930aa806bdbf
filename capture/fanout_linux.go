package capture

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// fanout is a group of sockets that share an interface's packets.
type fanout struct {
	mu      sync.Mutex // guards the rest against workers that join anew
	id      int
	index   int // of the interface; -1 = there is no group yet
	program []bpf.RawInstruction
}

func newFanout() *fanout { return &fanout{index: -1, program: pairProgram(rand.Uint32())} }

// join makes the bound socket a member. A group has one interface: the first
// worker to come with another one makes a new group.
func (f *fanout) join(fd, index int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	option := unix.PACKET_FANOUT_CBPF << 16
	if fresh := f.index != index; fresh {
		option |= unix.PACKET_FANOUT_FLAG_UNIQUEID << 16 // Linux 4.12
	} else {
		option |= f.id
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, option); err != nil {
		return fmt.Errorf("join the other workers: %w", err)
	}
	value, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
	if err != nil {
		return fmt.Errorf("read the group of workers: %w", err)
	}
	f.id, f.index = value&0xffff, index
	if err := setProgram(fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, f.program); err != nil {
		return fmt.Errorf("share out by addresses: %w", err)
	}
	return nil
}

// Parts of classic BPF (linux/bpf_common.h, linux/filter.h).
const (
	opLoadWord  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opLoadHalf  = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
	opLoadConst = unix.BPF_LD | unix.BPF_IMM
	opEqual     = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opXorX      = unix.BPF_ALU | unix.BPF_XOR | unix.BPF_X
	opMul       = unix.BPF_ALU | unix.BPF_MUL | unix.BPF_K
	opShift     = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	opToX       = unix.BPF_MISC | unix.BPF_TAX
	opReturnA   = unix.BPF_RET | unix.BPF_A
	opReturn    = unix.BPF_RET | unix.BPF_K

	// Offsets below 0: from the network header on, wherever that is, and what
	// the kernel knows of the packet.
	netOffset      = 0xfff00000 // SKF_NET_OFF
	protocolOffset = 0xfffff000 // SKF_AD_OFF + SKF_AD_PROTOCOL
)

// pairProgram maps both directions between two addresses to the same number;
// the worker is that number modulo how many there are. A frame with a VLAN tag
// still in it is looked into; what is neither IPv4 nor IPv6 gives 0. The key
// makes it hard to aim at one worker.
func pairProgram(key uint32) []bpf.RawInstruction {
	v4, tagged4 := mixAddresses(12, 1, key), mixAddresses(16, 1, key)
	v6, tagged6 := mixAddresses(8, 4, key), mixAddresses(12, 4, key)
	p := []bpf.RawInstruction{{Op: opLoadWord, K: protocolOffset}}
	add := func(protocol uint32, part []bpf.RawInstruction) {
		p = append(p, bpf.RawInstruction{Op: opEqual, Jf: uint8(len(part)), K: protocol})
		p = append(p, part...)
	}
	add(unix.ETH_P_IP, v4)
	add(unix.ETH_P_IPV6, v6)
	// Behind a tag's number stands the protocol of what it holds. A packet too
	// short for a load gives 0.
	p = append(p, bpf.RawInstruction{Op: opEqual, Jt: 2, K: unix.ETH_P_8021Q},
		bpf.RawInstruction{Op: opEqual, Jt: 1, K: unix.ETH_P_8021AD}, bpf.RawInstruction{Op: opReturn},
		bpf.RawInstruction{Op: opLoadHalf, K: netOffset + 2})
	add(unix.ETH_P_IP, tagged4)
	add(unix.ETH_P_IPV6, tagged6)
	return append(p, bpf.RawInstruction{Op: opReturn})
}

// mixAddresses reads two addresses of so many words, which begin at the
// offset, and returns a number of both.
func mixAddresses(offset, words int, key uint32) []bpf.RawInstruction {
	p := []bpf.RawInstruction{{Op: opLoadConst}}
	for i := range 2 * words {
		p = append(p, bpf.RawInstruction{Op: opToX}, bpf.RawInstruction{Op: opLoadWord, K: uint32(netOffset + offset + 4*i)},
			bpf.RawInstruction{Op: opXorX})
	}
	return append(p, bpf.RawInstruction{Op: opMul, K: key | 1}, bpf.RawInstruction{Op: opShift, K: 16},
		bpf.RawInstruction{Op: opReturnA})
}

func dropAll() []bpf.RawInstruction { return []bpf.RawInstruction{{Op: opReturn}} }

// attach puts a program in force, in one step; it keeps at most snap bytes of a
// packet.
func attach(fd int, program []bpf.RawInstruction, snap int) error {
	if len(program) == 0 {
		program = []bpf.RawInstruction{{Op: opReturn, K: uint32(snap)}}
	}
	limited := make([]bpf.RawInstruction, len(program))
	for i, in := range program {
		if in.Op == opReturn {
			in.K = min(in.K, uint32(snap))
		}
		limited[i] = in
	}
	if err := setProgram(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, limited); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

func setProgram(fd, level, option int, program []bpf.RawInstruction) error {
	if len(program) == 0 || len(program) > unix.BPF_MAXINSNS {
		return errors.New("a program has 1 to 4096 instructions")
	}
	raw := make([]unix.SockFilter, len(program))
	for i, in := range program {
		raw[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := unix.SockFprog{Len: uint16(len(raw)), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0]))}
	return unix.SetsockoptSockFprog(fd, level, option, &prog)
}
