package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// reserve is kept free in front of every packet in the ring, beyond what
	// the kernel leaves: a VLAN tag or a cooked header is put there.
	reserve   = 32
	vlanTag   = 4
	macs      = 12 // two addresses: the tag goes behind them
	etherVLAN = 0x8100

	cookedHeader = 16

	// blockBytes is the size of one block. The kernel hands a block over when
	// it is full or, by and large, a millisecond old (before Linux 6.18 its
	// clock ticks every 4 ms where CONFIG_HZ is 250), so that at low rates a ring holds as
	// many milliseconds as it has blocks: many small blocks bear with a reader
	// that is late. A packet is at most 64 KiB with its headers, but for BIG
	// TCP.
	blockBytes    = 128 << 10
	minBlockBytes = 16 << 10
	minBlocks     = 4
	retireAfter   = 1 // ms

	// Where things are (linux/if_packet.h, the same on every architecture).
	blockHeader  = 8  // of a block: tpacket_hdr_v1 in tpacket_block_desc
	linkAddress  = 48 // of a packet: sockaddr_ll behind tpacket3_hdr, aligned
	packetHeader = linkAddress + unix.SizeofSockaddrLinklayer
)

// ring is one AF_PACKET socket with its receive ring of version 3 (Linux
// 3.2). Block by block is the kernel's or ours; the reader is one goroutine.
type ring struct {
	fd        int
	mem       []byte
	blockSize int
	current   int    // the block that comes next, or is being read
	block     []byte // the one being read; nil while waiting for it
	left      uint32 // its packets that were not read yet
	next      int    // where in it the next one is
	// filled is how long the kernel took to fill the block that it handed over
	// last; 0 where it was not full.
	filled time.Duration
}

// openRing makes the socket and its ring. Nothing arrives before it is bound.
func openRing(size int) (*ring, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("open packet socket: %w; it takes root or the capability CAP_NET_RAW", err)
		}
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	r := &ring{fd: fd}
	if err := r.allocate(size); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// allocate makes the ring, half as big and half again where the kernel has no
// memory for it.
func (r *ring) allocate(size int) error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("ask for a ring of version 3: %w", err)
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_RESERVE, reserve); err != nil {
		return fmt.Errorf("reserve headroom: %w", err)
	}
	for {
		err := r.request(size)
		if err == nil {
			break
		}
		if size /= 2; !errors.Is(err, unix.ENOMEM) || size < minBlocks*minBlockBytes {
			return fmt.Errorf("make the ring: %w", err)
		}
	}
	return nil
}

func (r *ring) request(size int) error {
	r.blockSize = blockBytes
	for r.blockSize > minBlockBytes && size/r.blockSize < minBlocks {
		r.blockSize /= 2
	}
	blocks := max(size/r.blockSize, minBlocks)
	const frame = 2048 // of no meaning in version 3 but that the numbers must fit
	req := unix.TpacketReq3{
		Block_size: uint32(r.blockSize), Block_nr: uint32(blocks),
		Frame_size: frame, Frame_nr: uint32(blocks * (r.blockSize / frame)),
		Retire_blk_tov: retireAfter,
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return err
	}
	mem, err := unix.Mmap(r.fd, 0, blocks*r.blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		// Else a smaller one would be refused: there is one already.
		_ = unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq3{})
		return fmt.Errorf("map: %w", err)
	}
	r.mem = mem
	return nil
}

// close gives memory and socket back. As long as the memory is mapped the
// socket lives on.
func (r *ring) close() {
	if r.mem != nil {
		_ = unix.Munmap(r.mem) // ours, and mapped
		r.mem, r.block, r.left = nil, nil, 0
	}
	if r.fd >= 0 {
		_ = unix.Close(r.fd) // nothing is buffered in it
		r.fd = -1
	}
}

func (r *ring) header() *unix.TpacketHdrV1 {
	return (*unix.TpacketHdrV1)(unsafe.Pointer(&r.mem[r.current*r.blockSize+blockHeader]))
}

// acquire takes the next block if the kernel has handed it over.
func (r *ring) acquire() bool {
	h := r.header()
	status := atomic.LoadUint32(&h.Block_status)
	if status&unix.TP_STATUS_USER == 0 {
		return false
	}
	r.filled = 0
	if status&unix.TP_STATUS_BLK_TMO == 0 {
		first, last := &h.Ts_first_pkt, &h.Ts_last_pkt // in nanoseconds, whatever the name of the field
		r.filled = time.Duration(int64(last.Sec)-int64(first.Sec))*time.Second + time.Duration(last.Usec) - time.Duration(first.Usec)
	}
	at := r.current * r.blockSize
	r.block = r.mem[at : at+r.blockSize : at+r.blockSize]
	r.left, r.next = h.Num_pkts, int(h.Offset_to_first_pkt)
	return true
}

// release gives the block that was read back to the kernel.
func (r *ring) release() {
	if r.block == nil {
		return
	}
	h := r.header()
	h.Num_pkts = 0 // for filling
	atomic.StoreUint32(&h.Block_status, unix.TP_STATUS_KERNEL)
	if r.current++; r.current*r.blockSize == len(r.mem) {
		r.current = 0
	}
	r.block = nil
}

// rest is how long to stay away from a ring that was read to its end: 0 while
// the kernel wakes us every millisecond as it is. At higher rates it would do so
// more often, for every block, and to wake up costs as much as a hundred
// packets. An eighth of the ring may fill meanwhile.
func (r *ring) rest() time.Duration {
	if r.filled <= 0 || r.filled >= retireAfter*time.Millisecond/2 {
		return 0
	}
	return min(retireAfter*time.Millisecond, r.filled*time.Duration(len(r.mem)/r.blockSize/8)) - r.filled
}

// filling reports whether the kernel holds packets in a block that it has not
// handed over yet.
func (r *ring) filling() bool {
	return atomic.LoadUint32(&r.header().Num_pkts) != 0
}

// take fills p with the block's next packet; left is not 0. It reports false
// for the outgoing copy of a packet on a loopback interface, which comes in
// again.
func (r *ring) take(p *Packet) bool {
	at := r.next
	_ = r.block[at+packetHeader]
	h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&r.block[at]))
	from := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&r.block[at+linkAddress]))
	r.left--
	r.next += int(h.Next_offset)
	p.Outgoing = from.Pkttype == unix.PACKET_OUTGOING
	ethernet := from.Hatype == unix.ARPHRD_ETHER || from.Hatype == unix.ARPHRD_LOOPBACK
	if p.Outgoing && from.Hatype == unix.ARPHRD_LOOPBACK {
		return false
	}
	p.Time = int64(h.Sec)*1e9 + int64(h.Nsec)
	p.Iface, p.Sum = int(from.Ifindex), sumOf(h.Status)
	start, end := at+int(h.Mac), at+int(h.Mac)+int(h.Snaplen)
	p.Length = int(h.Len)
	if ethernet {
		p.Link = LinkEthernet
		if h.Status&unix.TP_STATUS_VLAN_VALID != 0 && h.Snaplen >= macs {
			start = r.putTag(start, h)
			p.Length += vlanTag
		}
	} else {
		p.Link = LinkLinuxSLL
		network := min(at+int(h.Net), end)
		p.Length -= network - start
		start = r.putCooked(network, h, from)
		p.Length += network - start
	}
	p.Data = r.block[start:end:end]
	return true
}

// sumOf reads what tpacket_rcv (net/packet/af_packet.c) says of the checksum;
// kernels before 4.1 never say that it is right.
func sumOf(status uint32) Sum {
	switch {
	case status&unix.TP_STATUS_CSUMNOTREADY != 0:
		return SumMissing
	case status&unix.TP_STATUS_CSUM_VALID != 0:
		return SumRight
	}
	return SumUnchecked
}

// putTag puts the VLAN tag, which the kernel took off, back into the frame
// that begins at start, and returns where it begins now.
func (r *ring) putTag(start int, h *unix.Tpacket3Hdr) int {
	b := r.block[start-vlanTag:]
	copy(b[:macs], b[vlanTag:])
	binary.BigEndian.PutUint16(b[macs:], protocolOf(h))
	binary.BigEndian.PutUint16(b[macs+2:], uint16(h.Hv1.Vlan_tci))
	return start - vlanTag
}

// protocolOf is the protocol of the VLAN tag; kernels before 3.14 do not tell.
func protocolOf(h *unix.Tpacket3Hdr) uint16 {
	if h.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		return h.Hv1.Vlan_tpid
	}
	return etherVLAN
}

// putCooked writes a Linux cooked header (version 1) in front of the network
// header, as libpcap does, and returns where it begins. A VLAN tag that the
// kernel took off goes behind it.
func (r *ring) putCooked(network int, h *unix.Tpacket3Hdr, from *unix.RawSockaddrLinklayer) int {
	start := network - cookedHeader
	var protocol [2]byte
	binary.NativeEndian.PutUint16(protocol[:], from.Protocol) // it is in network order
	// What the header takes from lies in front of it and may be overwritten.
	kind, hardware, length, addr := from.Pkttype, from.Hatype, from.Halen, from.Addr
	if h.Status&unix.TP_STATUS_VLAN_VALID != 0 {
		start -= vlanTag
		binary.BigEndian.PutUint16(r.block[start+cookedHeader:], uint16(h.Hv1.Vlan_tci))
		copy(r.block[start+cookedHeader+2:], protocol[:])
		binary.BigEndian.PutUint16(protocol[:], protocolOf(h))
	}
	head := r.block[start : start+cookedHeader]
	binary.BigEndian.PutUint16(head, uint16(kind))
	binary.BigEndian.PutUint16(head[2:], hardware)
	binary.BigEndian.PutUint16(head[4:], uint16(length))
	copy(head[6:14], addr[:])
	copy(head[14:], protocol[:])
	return start
}
