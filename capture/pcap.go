package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// pcap reads the classic format (draft-ietf-opsawg-pcap).
type pcap struct {
	link  LinkType
	swap  bool // big endian
	scale int64
	// Before version 2.3 a record's two lengths stood the other way round;
	// 2.3 was written both ways.
	minor uint16
}

const (
	pcapHeader = 24
	pcapRecord = 16
	// linkMask leaves out the frame check sequence's length and the reserved
	// bits, which share the header's last word with the link type.
	linkMask = 0xffff
)

func openPcap(f *file, swap, nanos bool) (format, error) {
	head, err := f.in.next(pcapHeader)
	if err != nil {
		return nil, damaged(err)
	}
	order := byteOrder(swap)
	major, minor := order.Uint16(head[4:]), order.Uint16(head[6:])
	if major != 2 || minor > 4 {
		return nil, fmt.Errorf("%w: pcap version %d.%d, only 2.0 to 2.4 are known", ErrFormat, major, minor)
	}
	p := &pcap{link: LinkType(order.Uint32(head[20:]) & linkMask), swap: swap, scale: 1000, minor: minor}
	if nanos {
		p.scale = 1
	}
	if err := p.link.check(); err != nil {
		return nil, err
	}
	return p, nil
}

// next implements format. It stays one function with the header read inline,
// because it runs for every packet.
func (c *pcap) next(f *file, p *Packet) error {
	head, err := f.in.peek(pcapRecord)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return err
		}
		return damaged(err)
	}
	sec, frac := binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint32(head[4:])
	captured, length := binary.LittleEndian.Uint32(head[8:]), binary.LittleEndian.Uint32(head[12:])
	if c.swap {
		sec, frac = bits.ReverseBytes32(sec), bits.ReverseBytes32(frac)
		captured, length = bits.ReverseBytes32(captured), bits.ReverseBytes32(length)
	}
	if c.minor < 3 || c.minor == 3 && captured > length {
		captured, length = length, captured
	}
	if captured > maxPacket {
		return fmt.Errorf("%w: a record claims %d bytes", ErrTruncated, captured)
	}
	record, err := f.in.next(pcapRecord + int(captured))
	if err != nil {
		return damaged(err)
	}
	p.Data = record[pcapRecord:]
	p.Time = int64(sec)*1e9 + int64(frac)*c.scale
	p.Length = wireLength(length, captured)
	p.Link = c.link
	p.Outgoing, p.Iface, p.Sum = false, 0, SumUnknown
	return nil
}

// wireLength is the length on the wire, which cannot be less than what was
// captured of it, whatever a broken file says.
func wireLength(stated, captured uint32) int {
	const most = 1 << 30 // fits an int everywhere
	return int(min(max(stated, captured), most))
}

func byteOrder(big bool) binary.ByteOrder {
	if big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}
