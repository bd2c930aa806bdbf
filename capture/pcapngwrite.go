package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// PcapngWriter writes packets as pcapng (draft-ietf-opsawg-pcapng): one
// section, little endian, time stamps in nanoseconds, an interface for each
// link type and Packet.Iface that comes. Whatever it writes OpenReader reads.
// It belongs to one goroutine.
type PcapngWriter struct {
	w      io.Writer
	buf    []byte // one block, reused
	ifaces []ngSeen
	err    error // the first one: what follows would be no block
}

type ngSeen struct {
	link  LinkType
	iface int
}

// PcapngSection says what a file is.
type PcapngSection struct {
	Application string // that writes it, with its version
	Comment     string
}

// Options of blocks.
const (
	ngOptEnd         = 0
	ngOptComment     = 1
	ngOptApplication = 4 // of a section
	ngOptResolution  = 9 // of an interface
	// maxComment bounds a comment's bytes; an option's length has 16 bits.
	maxComment = 4096
)

// NewPcapngWriter writes the section's header to w. Each later write to w is one
// whole block.
func NewPcapngWriter(w io.Writer, s PcapngSection) (*PcapngWriter, error) {
	n := &PcapngWriter{w: w}
	n.begin(magicSection)
	n.words(0x1a2b3c4d, 1)                                      // byte order; version 1.0
	n.buf = binary.LittleEndian.AppendUint64(n.buf, ^uint64(0)) // of a length that is not told
	n.text(ngOptComment, s.Comment)
	n.text(ngOptApplication, s.Application)
	return n, n.end()
}

// Write writes one packet: Data, Time, Length, Link and Iface of it. The
// comment may be empty; what is longer than 4,096 bytes is cut. Data of more
// than 1 MiB, which no reader takes, is an error.
func (n *PcapngWriter) Write(p *Packet, comment string) error {
	if len(p.Data) > maxPacket {
		return fmt.Errorf("write pcapng: a packet of %d bytes", len(p.Data))
	}
	number, err := n.number(p)
	if err != nil {
		return err
	}
	n.begin(ngEnhancedBlock)
	n.words(number, uint32(uint64(p.Time)>>32), uint32(p.Time), uint32(len(p.Data)), uint32(max(p.Length, len(p.Data))))
	n.buf = append(n.buf, p.Data...)
	n.pad()
	n.text(ngOptComment, comment)
	return n.end()
}

// number is the packet's interface in the file, which is described first where
// it is a new one.
func (n *PcapngWriter) number(p *Packet) (uint32, error) {
	seen := ngSeen{p.Link, p.Iface}
	for i, s := range n.ifaces {
		if s == seen {
			return uint32(i), nil
		}
	}
	if p.Link > 0xffff || len(n.ifaces) == maxInterfaces {
		return 0, fmt.Errorf("write pcapng: interface %d of link type %d", len(n.ifaces), p.Link)
	}
	n.begin(ngInterfaceBlock)
	n.words(uint32(p.Link), 0) // no snap length
	n.option(ngOptResolution, []byte{9})
	if err := n.end(); err != nil {
		return 0, err
	}
	n.ifaces = append(n.ifaces, seen)
	return uint32(len(n.ifaces) - 1), nil
}

func (n *PcapngWriter) words(v ...uint32) {
	for _, w := range v {
		n.buf = binary.LittleEndian.AppendUint32(n.buf, w)
	}
}

// begin starts a block; end fills in its length.
func (n *PcapngWriter) begin(kind uint32) {
	n.buf = n.buf[:0]
	n.words(kind, 0)
}

func (n *PcapngWriter) pad() {
	for len(n.buf)%4 != 0 {
		n.buf = append(n.buf, 0)
	}
}

// text is a text option; an empty one is left out.
func (n *PcapngWriter) text(code uint16, s string) {
	s = strings.ToValidUTF8(s[:min(len(s), maxComment)], "")
	if s != "" {
		n.option(code, []byte(s))
	}
}

func (n *PcapngWriter) option(code uint16, value []byte) {
	n.buf = binary.LittleEndian.AppendUint16(n.buf, code)
	n.buf = binary.LittleEndian.AppendUint16(n.buf, uint16(len(value)))
	n.buf = append(n.buf, value...)
	n.pad()
}

func (n *PcapngWriter) end() error {
	n.words(ngOptEnd)
	size := uint32(len(n.buf) + 4)
	n.words(size)
	binary.LittleEndian.PutUint32(n.buf[4:], size)
	if n.err == nil {
		if _, err := n.w.Write(n.buf); err != nil {
			n.err = fmt.Errorf("write pcapng: %w", err)
		}
	}
	return n.err
}
