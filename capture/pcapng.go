package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// pcapng reads draft-ietf-opsawg-pcapng: sections in either byte order, any
// number of interfaces with their own link types and clocks. The reader of
// gopacket's pcapgo is not used: a hostile file makes it panic (options shorter
// than their fixed size, a division by a zero clock) and ask for 4 GB.
type pcapng struct {
	big    bool // the section's byte order
	ifaces []ngInterface
	// usable: some interface described so far has a supported link type.
	usable bool
}

// ngInterface is what an interface description block says.
type ngInterface struct {
	link   LinkType
	snap   uint32
	clock  ngClock
	offset int64 // seconds
}

// maxInterfaces bounds the table that a file can make us keep.
const maxInterfaces = 1 << 14

// Block types.
const (
	ngInterfaceBlock = 1
	ngPacketBlock    = 2 // obsolete, still met
	ngSimpleBlock    = 3
	ngEnhancedBlock  = 6
)

func openPcapng(f *file) (format, error) {
	c := &pcapng{}
	if err := c.section(f); err != nil {
		return nil, err
	}
	return c, nil
}

// u16, u32 and i64 read numbers in the section's byte order.
func (c *pcapng) u16(b []byte) uint16 {
	v := binary.LittleEndian.Uint16(b)
	if c.big {
		return bits.ReverseBytes16(v)
	}
	return v
}

func (c *pcapng) u32(b []byte) uint32 {
	v := binary.LittleEndian.Uint32(b)
	if c.big {
		return bits.ReverseBytes32(v)
	}
	return v
}

func (c *pcapng) i64(b []byte) int64 {
	v := binary.LittleEndian.Uint64(b)
	if c.big {
		v = bits.ReverseBytes64(v)
	}
	return int64(v)
}

// section reads a section header block, whose byte order is its own.
func (c *pcapng) section(f *file) error {
	head, err := f.in.peek(16)
	if err != nil {
		return damaged(err)
	}
	const magic = 0x1a2b3c4d
	c.big = binary.BigEndian.Uint32(head[8:]) == magic
	if c.u32(head[8:]) != magic {
		return fmt.Errorf("%w: a pcapng section without a byte-order magic", ErrFormat)
	}
	if major, minor := c.u16(head[12:]), c.u16(head[14:]); major != 1 || minor != 0 && minor != 2 {
		// 1.2 was written by some tools for what is 1.0.
		return fmt.Errorf("%w: pcapng version %d.%d, only 1.0 is known", ErrFormat, major, minor)
	}
	size, err := c.blockSize(head, 28)
	if err != nil {
		return err
	}
	c.ifaces, c.usable = c.ifaces[:0], false
	if err := f.in.skip(size); err != nil {
		return damaged(err)
	}
	return nil
}

// blockSize checks a block's total length: at least min, a multiple of four.
func (c *pcapng) blockSize(head []byte, least int) (int, error) {
	size := c.u32(head[4:])
	if size < uint32(least) || size%4 != 0 || size > 1<<30 {
		return 0, fmt.Errorf("%w: a pcapng block of %d bytes", ErrTruncated, size)
	}
	return int(size), nil
}

// next implements format.
func (c *pcapng) next(f *file, p *Packet) error {
	for {
		head, err := f.in.peek(12)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return err
			}
			return damaged(err)
		}
		kind := c.u32(head)
		if kind == magicSection {
			if err := c.section(f); errors.Is(err, ErrFormat) {
				return fmt.Errorf("%w: %w", ErrTruncated, err)
			} else if err != nil {
				return err
			}
			continue
		}
		size, err := c.blockSize(head, 12)
		if err != nil {
			return err
		}
		switch kind {
		case ngInterfaceBlock, ngEnhancedBlock, ngPacketBlock, ngSimpleBlock:
			block, err := f.in.next(size)
			if err != nil {
				return damaged(err)
			}
			if delivered, err := c.block(f, kind, block[8:size-4], p); delivered || err != nil {
				return err
			}
		default:
			if err := f.in.skip(size); err != nil {
				return damaged(err)
			}
		}
	}
}

// block reads the body of one block; it reports whether p was filled.
func (c *pcapng) block(f *file, kind uint32, body []byte, p *Packet) (bool, error) {
	if kind == ngInterfaceBlock {
		return false, c.describe(body)
	}
	iface, ts, captured, length, data, err := c.packet(kind, body)
	if err != nil {
		return false, err
	}
	if iface >= uint32(len(c.ifaces)) {
		return false, fmt.Errorf("%w: a packet of interface %d, which is not described", ErrTruncated, iface)
	}
	in := &c.ifaces[iface]
	if kind == ngSimpleBlock {
		// Only its length on the wire is stated: the snap length or the
		// block's end cut it.
		captured = min(length, uint32(len(data)))
		if in.snap > 0 {
			captured = min(captured, in.snap)
		}
	}
	if captured > uint32(len(data)) {
		return false, fmt.Errorf("%w: a packet of %d bytes in a block of %d", ErrTruncated, captured, len(body))
	}
	if !in.link.Supported() {
		if !c.usable {
			return false, in.link.check()
		}
		f.skip()
		return false, nil
	}
	p.Data = data[:captured:captured]
	p.Time = in.clock.nanos(ts) + in.offset*1e9
	p.Length = wireLength(length, captured)
	p.Link, p.Iface, p.Outgoing, p.Sum = in.link, int(iface), false, SumUnknown
	return true, nil
}

// packet takes the fixed fields of a packet block apart.
func (c *pcapng) packet(kind uint32, body []byte) (iface uint32, ts uint64, captured, length uint32, data []byte, err error) {
	fixed := 20
	if kind == ngSimpleBlock {
		fixed = 4
	}
	if len(body) < fixed {
		return 0, 0, 0, 0, nil, fmt.Errorf("%w: a packet block of %d bytes", ErrTruncated, len(body))
	}
	data = body[fixed:]
	if kind == ngSimpleBlock {
		return 0, 0, 0, c.u32(body), data, nil
	}
	iface = c.u32(body)
	if kind == ngPacketBlock {
		iface = uint32(c.u16(body)) // the other half counts drops
	}
	ts = uint64(c.u32(body[4:]))<<32 | uint64(c.u32(body[8:]))
	return iface, ts, c.u32(body[12:]), c.u32(body[16:]), data, nil
}

// describe reads an interface description block.
func (c *pcapng) describe(body []byte) error {
	if len(body) < 8 {
		return fmt.Errorf("%w: an interface block of %d bytes", ErrTruncated, len(body))
	}
	if len(c.ifaces) == maxInterfaces {
		return fmt.Errorf("%w: more than %d interfaces", ErrTruncated, maxInterfaces)
	}
	in := ngInterface{
		link:  LinkType(c.u16(body)),
		snap:  c.u32(body[4:]),
		clock: makeClock(6),
	}
	const (
		optEnd    = 0
		optResol  = 9
		optOffset = 14
	)
	for opts := body[8:]; len(opts) >= 4; {
		code, size := c.u16(opts), int(c.u16(opts[2:]))
		opts = opts[4:]
		if code == optEnd || size > len(opts) {
			break
		}
		switch {
		case code == optResol && size == 1:
			in.clock = makeClock(opts[0])
		case code == optOffset && size == 8:
			in.offset = c.i64(opts)
		}
		opts = opts[min((size+3)&^3, len(opts)):]
	}
	c.usable = c.usable || in.link.Supported()
	c.ifaces = append(c.ifaces, in)
	return nil
}

// ngClock converts an interface's time stamps.
type ngClock struct {
	mul, div uint64 // nanoseconds = ts*mul/div for powers of ten
	shift    uint8  // or units of 2^-shift seconds, where binary
	binary   bool
}

// makeClock reads if_tsresol: the top bit tells powers of two from powers of
// ten, the rest is the negative exponent.
func makeClock(resol byte) ngClock {
	exp := resol & 0x7f
	if resol&0x80 != 0 {
		return ngClock{binary: true, shift: min(exp, 64)}
	}
	c := ngClock{mul: 1, div: 1}
	for e := exp; e < 9; e++ {
		c.mul *= 10
	}
	for e := min(exp, 28); e > 9; e-- {
		c.div *= 10
	}
	return c
}

// nanos converts a time stamp; what does not fit wraps, as in any clock.
func (c *ngClock) nanos(ts uint64) int64 {
	if !c.binary {
		if c.div == 1 {
			return int64(ts * c.mul)
		}
		return int64(ts / c.div)
	}
	sec := ts >> c.shift // 0 for a shift of 64
	frac := ts - sec<<c.shift
	hi, lo := bits.Mul64(frac, 1e9)
	if c.shift == 0 {
		return int64(sec * 1e9)
	}
	return int64(sec*1e9 + (hi<<(64-c.shift) | lo>>c.shift))
}
